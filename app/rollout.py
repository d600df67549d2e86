"""Versions of models change while requests run.

A new version is opened beside the old one, proved and warmed; then a tracer is made that has it,
and whoever asks from then on asks that one. Requests under way keep the tracer that they began
with, so no answer is half of one version and half of another; the old version is closed when the
last of them must have ended. States and memories are kept by version: none is read by another.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from contextvars import Context
from typing import Any, NamedTuple

from app.candidates import Candidate
from app.engine.engine import Engine
from app.engine.memory import Memories
from app.engine.model import ServedModel
from app.engine.versions import is_newer, newest_versions, versions_of
from app.errors import (
    ArtifactInvalid,
    CandidateServed,
    VersionRefused,
    VersionUnknown,
)
from app.meters import EngineMeter
from app.service import Tracer
from app.settings import Settings

log = logging.getLogger(__name__)

_MARGIN_S = 1.0

MakeTracer = Callable[[Engine, Mapping[str, Candidate]], Tracer]


class Lineup(NamedTuple):
    """Which versions of a model there are, and what each does."""

    current: str
    before: str | None  # what a roll back goes to
    candidate: Candidate | None
    there: list[str]  # in the artifact folder, oldest first


class Rollout:
    """The tracer of the moment, and the changes of it. Belongs to the event loop's thread."""

    def __init__(
        self,
        engine: Engine,
        make: MakeTracer,
        memories: Memories,
        settings: Settings,
        meter: EngineMeter,
    ) -> None:
        """Raise `ArtifactInvalid` where no tracer can be made of this engine."""
        self._make = make
        self._memories = memories
        self._settings = settings
        self._meter = meter
        self._engine = engine
        self._candidates: dict[str, Candidate] = {}
        self._before: dict[str, str] = {}
        # The newest version of each model that has answered, or was refused when it was followed.
        self._newest = {model.name: model.version for model in engine.models.values()}
        self._changing = asyncio.Lock()
        self._under_way: set[asyncio.Task[ServedModel]] = set()
        self._closing: set[asyncio.Task[None]] = set()
        self._is_draining = False
        self.tracer = make(engine, {})
        for model in engine.models.values():
            meter.serves(model.name, model.version, model.manifest.network)

    def drain(self) -> None:
        """Say from now on that the service is not ready; requests are answered still."""
        self._is_draining = True
        self.tracer.condition.drain()

    def lineup(self, name: str) -> Lineup:
        """Return how the versions of a model stand; raise `ModelUnknown`."""
        model = self._engine.model(name)
        try:
            there = [f.name for f in versions_of(self._settings.artifact_dir).get(name, [])]
        except ArtifactInvalid:  # the folder is gone; what is open is served on
            there = []
        return Lineup(model.version, self._before.get(name), self._candidates.get(name), there)

    async def serve(self, name: str, version: str) -> ServedModel:
        """Let this version answer from now on; it is opened first, if it is not the candidate.

        Raises `VersionUnknown`, `VersionRefused` or `ProviderUnavailable`; nothing changes then.
        A change that has begun is ended, whoever leaves.
        """
        return await self._to_its_end(self._serve(name, version))

    async def _serve(self, name: str, version: str) -> ServedModel:
        async with self._changing:
            old = self._engine.models.get(name)
            if old is not None and old.version == version:
                return old
            candidate = self._candidates.get(name)
            is_promoted = candidate is not None and candidate.model.version == version
            if candidate is not None and is_promoted:
                model = candidate.model
            else:
                model = await self._opened(name, version)
            others = {n: c for n, c in self._candidates.items() if n != name or not is_promoted}
            await self._become(self._engine.with_model(model), others, opened=model)
            self._met(name, version)
            if old is not None:
                self._before[name] = old.version
                self._retire(old)
            self._meter.serves(model.name, model.version, model.manifest.network)
            log.info("model_served", extra={"model": name, "version": version})
            return model

    async def roll_back(self, name: str) -> ServedModel:
        """Let the version answer that did before; raise as `serve` does."""
        self._engine.model(name)
        if name not in self._before:
            raise VersionUnknown(f"no other version of {name!r} has answered before this one")
        return await self.serve(name, self._before[name])

    async def offer(
        self, name: str, version: str, *, share: float, is_compared: bool
    ) -> ServedModel:
        """Make a version the candidate of its model; raise as `serve` does, or `CandidateServed`.

        One that is the candidate already is not opened again: its share changes.
        """
        return await self._to_its_end(self._offer(name, version, share, is_compared))

    async def _offer(self, name: str, version: str, share: float, is_compared: bool) -> ServedModel:
        async with self._changing:
            served = self._engine.model(name)
            if served.version == version:
                raise CandidateServed(name, version)
            old = self._candidates.get(name)
            is_same = old is not None and old.model.version == version
            model = old.model if old and is_same else await self._opened(name, version)
            candidate = Candidate(model, share, is_compared)
            await self._become(self._engine, {**self._candidates, name: candidate}, opened=model)
            if old is not None and not is_same:
                self._retire(old.model)
            log.info("candidate_offered", extra={"model": name, "version": version})
            return model

    async def withdraw(self, name: str) -> None:
        """Let a model have no candidate."""
        async with self._changing:
            self._engine.model(name)
            candidate = self._candidates.get(name)
            if candidate is None:
                return
            others = {n: c for n, c in self._candidates.items() if n != name}
            await self._become(self._engine, others, opened=None)
            self._retire(candidate.model)
            log.info("candidate_withdrawn", extra={"model": name})

    async def follow(self) -> None:
        """Serve newer versions as they come into the artifact folder, for ever.

        One that is refused is told of once, and not tried again.
        """
        while True:
            await asyncio.sleep(self._settings.follow_artifacts_s)
            try:
                newest = newest_versions(self._settings.artifact_dir)
            except ArtifactInvalid as exc:
                log.warning("artifacts_not_read", extra={"reason": str(exc)})
                continue
            for folder in newest:
                name, version = folder.parent.name, folder.name
                is_pinned = name in self._settings.model_versions
                if is_pinned or not self._is_news(name, version):
                    continue
                try:
                    await self.serve(name, version)
                except Exception as exc:  # whatever a folder holds: others are followed on
                    self._met(name, version)
                    log.error("model_refused", extra={"model": name, "reason": str(exc)})

    async def _to_its_end(self, change: Coroutine[Any, Any, ServedModel]) -> ServedModel:
        task = asyncio.create_task(change)
        self._under_way.add(task)
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    def _ended(self, task: asyncio.Task[ServedModel]) -> None:
        self._under_way.discard(task)
        if not task.cancelled():
            task.exception()  # seen: the caller may have left

    # -- inside ------------------------------------------------------------------------------------

    def _is_news(self, name: str, version: str) -> bool:
        """Newer than all that have answered or been refused: what was left is not gone back to."""
        return name not in self._newest or is_newer(version, self._newest[name])

    def _met(self, name: str, version: str) -> None:
        if self._is_news(name, version):
            self._newest[name] = version

    async def _opened(self, name: str, version: str) -> ServedModel:
        try:
            there = versions_of(self._settings.artifact_dir).get(name, [])
        except ArtifactInvalid as exc:
            raise VersionUnknown(
                f"version {version!r} of {name!r} is not to be had: {exc}"
            ) from exc
        folder = next((f for f in there if f.name == version), None)
        if folder is None:
            names = ", ".join(f.name for f in there) or "none"
            raise VersionUnknown(
                f"the artifact folder has no version {version!r} of {name!r}; it has {names}"
            )
        try:
            return await self._engine.opener.open(folder)
        except ArtifactInvalid as exc:
            raise VersionRefused(str(exc)) from exc

    async def _become(
        self, engine: Engine, candidates: dict[str, Candidate], opened: ServedModel | None
    ) -> None:
        """Let a new tracer answer; where none can be made, what was opened for it is closed."""
        try:
            tracer = self._make(engine, candidates)
        except ArtifactInvalid as exc:
            if opened is not None and opened not in self._in_use():
                await engine.opener.close(opened)
            raise VersionRefused(str(exc)) from exc
        before = self._candidates
        self._engine, self._candidates, self.tracer = engine, candidates, tracer
        self._tell_candidates(before)
        if self._is_draining:
            tracer.condition.drain()

    def _tell_candidates(self, before: Mapping[str, Candidate]) -> None:
        now = {candidate.model for candidate in self._candidates.values()}
        for model in now | {candidate.model for candidate in before.values()}:
            self._meter.tries(model.name, model.version, model.manifest.network, is_on=model in now)

    def _in_use(self) -> list[ServedModel]:
        return [*self._engine.models.values(), *(c.model for c in self._candidates.values())]

    def _versions_in_use(self, name: str) -> set[str]:
        return {model.version for model in self._in_use() if model.name == name}

    def _retire(self, model: ServedModel) -> None:
        """Close a version when no request can have it any more."""
        # Apart from the request that asked for the change: it has been answered long since.
        task = asyncio.create_task(self._closed(model), context=Context())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _closed(self, model: ServedModel) -> None:
        await asyncio.sleep(self._settings.deadline_ms / 1000 + _MARGIN_S)
        await self._engine.opener.close(model)
        if model.version not in self._versions_in_use(model.name):  # or it was opened again
            self._memories.retire(model.state_key)
        if model.version != self._engine.model(model.name).version:  # a candidate does not answer
            self._meter.retired(model.name, model.version, model.manifest.network)
        log.info("model_closed", extra={"model": model.name, "version": model.version})
