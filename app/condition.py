"""How the service itself is: whether requests may come, and what speaks against it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.asks import ModelRef, ref_of
from app.engine.engine import Engine
from app.engine.model import ServedModel
from app.errors import StoreNotDurable, TracerError
from app.settings import Settings
from app.store.histories import Histories
from app.telemetry import Metrics

log = logging.getLogger(__name__)

_UNRECORDED = "store: predictions are answered, and nothing is recorded"


@dataclass(frozen=True, slots=True, kw_only=True)
class Readiness:
    """Whether requests may come, and the parts that decide it."""

    reasons: list[str]  # why not; empty when ready
    warnings: list[str]  # what may be lost, or is not recorded
    draining: bool
    models: list[ModelRef]
    provider: Mapping[str, Any]
    store: Mapping[str, Any]

    @property
    def is_ready(self) -> bool:
        """Nothing speaks against it."""
        return not self.reasons


class Condition:
    """Asks the engine and the store how they are, and tells of changes."""

    def __init__(
        self,
        engine: Engine,
        models: Sequence[ServedModel],
        histories: Histories,
        settings: Settings,
        metrics: Metrics,
    ) -> None:
        """`models` are those served, by name."""
        self._engine = engine
        self._models = models
        self._histories = histories
        self._metrics = metrics
        self._must_be_durable = settings.require_durable
        self._warnings: list[str] = []
        self._refusal: str | None = None  # why the store takes no writes
        self._draining = False

    def drain(self) -> None:
        """Say from now on that the service is not ready; requests are answered still."""
        self._draining = True

    def stuck_s(self) -> float:
        """Return the age of the oldest run that has not come back; 0 for none."""
        stuck_s = self._engine.stuck_s()
        self._metrics.stuck.set(stuck_s)
        return stuck_s

    async def start(self) -> None:
        """Ask the store for the first time; raise `StoreNotDurable` where it must be and is not."""
        await self.readiness()
        if self._must_be_durable and self._warnings:
            raise StoreNotDurable("; ".join(self._warnings))

    async def readiness(self) -> Readiness:
        """Ask the store, and say whether requests may come."""
        reasons = ["draining"] if self._draining else []
        answers = True
        try:
            with self._metrics.watched():
                durability = await self._histories.ping()
        except TracerError as exc:
            reasons.append(f"store: {exc}")
            answers = False
        store = {**self._histories.describe(), "answers": answers}
        self._metrics.servers_gone.set(store.get("servers_gone", int(not answers)))
        if answers:
            store |= {
                "persistence": durability.persistence,
                "eviction": durability.eviction,
                "takes_writes": durability.refusal is None,
            }
            self._warn(durability.warnings)
            self._refuses(durability.refusal)
        if self._must_be_durable:
            reasons += [f"store: {warning}" for warning in self._warnings]
        is_read_only = answers and self._refusal is not None
        self._metrics.store_refuses_writes.set(is_read_only)
        unrecorded = [f"{_UNRECORDED}: {self._refusal}"] if is_read_only else []
        self._metrics.ready.set(not reasons)
        provider = self._engine.provider
        return Readiness(
            reasons=reasons,
            warnings=[*self._warnings, *unrecorded],
            draining=self._draining,
            models=[ref_of(m) for m in self._models],
            provider={
                "requested": provider.requested,
                "effective": provider.effective,
                "fallback_reason": provider.fallback_reason,
            },
            store=store,
        )

    def _warn(self, warnings: list[str]) -> None:
        """Say what may be lost, where that is new."""
        if warnings != self._warnings:
            level = logging.WARNING if warnings else logging.INFO
            log.log(level, "store_durability", extra={"warnings": warnings})
        self._warnings = warnings
        self._metrics.store_warnings.set(len(warnings))

    def _refuses(self, refusal: str | None) -> None:
        """Say whether answers can be recorded, where that is new."""
        if refusal is not None and refusal != self._refusal:
            log.warning("store_takes_no_writes", extra={"why": refusal})
        if refusal is None and self._refusal is not None:
            log.info("store_takes_writes")
        self._refusal = refusal
