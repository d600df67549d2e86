"""Every model that is served, opened and running."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, replace
from pathlib import Path

from app.engine.artifact import Artifact, open_artifact
from app.engine.asked import Asked
from app.engine.batcher import Batcher, Bounds, Result, Score
from app.engine.cores import usable_cores
from app.engine.kept import KeptScorer
from app.engine.many import AskedMany, ManyScore, ManyScorer
from app.engine.model import ServedModel
from app.engine.observer import Observer
from app.engine.pace import Pace
from app.engine.providers import Provider, ProviderChoice, choose_provider
from app.engine.workers import Workers
from app.errors import ArtifactInvalid, ModelUnknown, ProviderUnavailable
from app.settings import Settings
from models.contract.artifact import MANIFEST

log = logging.getLogger(__name__)

_THREADS_IN_A_RUN = 1
"""Runs go side by side, one a core: a recurrence gains nothing from more threads in one run."""


_INLINE_PLACES = 4
"""A few steps from a kept state take less time than the way to a thread and back."""

_INLINE_ROWS = 2048
"""Reading so many takes about two milliseconds, for which the loop answers nobody else."""

_INLINE_MANY = 8192
"""The same of a run of many questions: it reads them in columns."""


class Engine:
    """The served models by name, and the provider that runs them."""

    def __init__(self, models: Mapping[str, ServedModel], provider: ProviderChoice) -> None:
        self.models = models
        self.provider = provider

    def model(self, name: str) -> ServedModel:
        """Return a model; raise `ModelUnknown` where none of that name is served."""
        try:
            return self.models[name]
        except KeyError:
            raise ModelUnknown(name, sorted(self.models)) from None

    def stuck_s(self) -> float:
        """Return the age of the oldest run that has not come back, 0 for none."""
        return max((model.stuck_s() for model in self.models.values()), default=0.0)


@asynccontextmanager
async def open_engine(
    settings: Settings, observer: Observer | None = None
) -> AsyncIterator[Engine]:
    """Open the newest version of every model in `settings.artifact_dir`, and serve them.

    Raises `ArtifactInvalid` where one of them cannot be served, and `ProviderUnavailable`. Leaving
    drains every queue.
    """
    folders = newest_versions(settings.artifact_dir)
    choice = choose_provider(settings.provider)
    count = settings.threads or usable_cores()
    try:
        artifacts = await _open_all(folders, choice, count)
    except ProviderUnavailable as exc:
        if settings.provider != "auto":
            raise
        choice = choice.fallen_back(str(exc))
        artifacts = await _open_all(folders, choice, count)
    if choice.fallback_reason:
        log.warning("provider_fallback", extra={"reason": choice.fallback_reason})
    bounds = Bounds(
        max_items=settings.batch_max_items,
        max_places=settings.batch_max_places,
        max_waiting=settings.queue_max_items,
    )
    # On a GPU one run at a time: what comes meanwhile is better off together in the next.
    side_by_side = count if choice.effective == "cpu" else 1
    async with AsyncExitStack() as stack:
        workers = await stack.enter_async_context(Workers(side_by_side))

        async def shared(
            name: str, score: Score[Asked, Result], bounds: Bounds
        ) -> Batcher[Asked, Result]:
            batcher = Batcher(
                name,
                score,
                workers,
                bounds,
                drain_s=settings.drain_s,
                observer=observer,
                rows=lambda asked: len(asked.interactions),
            )
            return await stack.enter_async_context(batcher)

        async def in_bulk(name: str, kept: KeptScorer) -> Batcher[AskedMany, ManyScore | Exception]:
            batcher: Batcher[AskedMany, ManyScore | Exception] = Batcher(
                name,
                ManyScorer(kept),
                workers,
                replace(
                    bounds,
                    max_items=1,
                    max_inline_places=_INLINE_MANY,
                    max_inline_rows=_INLINE_MANY,
                ),
                drain_s=settings.drain_s,
                observer=observer,
                rows=lambda asked: asked.work,
                windows=lambda asked: len(asked.queries),
            )
            return await stack.enter_async_context(batcher)

        models = {}
        for artifact in artifacts:
            name, pace = artifact.manifest.name, artifact.pace
            windows = await shared(name, artifact.scorer, _paced(bounds, pace.window_places))
            kept, many = None, None
            if artifact.kept is not None:
                kept = await shared(name, artifact.kept, _kept_bounds(bounds, pace))
            if isinstance(artifact.kept, KeptScorer):
                many = await in_bulk(name, artifact.kept)
            models[name] = ServedModel(artifact, windows, kept, many)
        yield Engine(models, choice)


def _paced(bounds: Bounds, most: int) -> Bounds:
    """Return bounds within which no run is longer than pays."""
    return replace(bounds, max_places=min(most, bounds.max_places))


def _kept_bounds(bounds: Bounds, pace: Pace) -> Bounds:
    """Return the bounds of runs that go on from what is kept."""
    in_threads = _paced(bounds, pace.first_places)
    if not pace.next_items:
        return in_threads
    return replace(
        in_threads,
        max_inline_places=_INLINE_PLACES,
        max_inline_rows=_INLINE_ROWS,
        max_inline_items=min(pace.next_items, bounds.max_items),
    )


def newest_versions(artifact_dir: Path) -> list[Path]:
    """Return `<model>/<version>` of each model's newest version: 10 is newer than 9.

    Raises `ArtifactInvalid` where there is no folder or no model in it.
    """
    if not artifact_dir.is_dir():
        raise ArtifactInvalid(
            f"{artifact_dir} is no folder; KT_ARTIFACT_DIR names <model>/<version>/"
        )
    newest = [
        max(versions, key=lambda folder: _in_order(folder.name))
        for model in sorted(_folders(artifact_dir))
        if (versions := [v for v in _folders(model) if (v / MANIFEST).is_file()])
    ]
    if not newest:
        raise ArtifactInvalid(
            f"{artifact_dir} holds no model; "
            f"`python -m export RUN {artifact_dir}/<model>/<version>` puts one there"
        )
    return newest


def _folders(parent: Path) -> list[Path]:
    return [f for f in parent.iterdir() if f.is_dir() and not f.name.startswith(".")]


def _in_order(version: str) -> list[tuple[bool, int, str]]:
    """Return what sorts versions as people read them: runs of digits as numbers."""
    parts = re.findall(r"\d+|\D+", version)
    return [(p.isdigit(), int(p) if p.isdigit() else 0, p) for p in parts]


async def _open_all(folders: list[Path], choice: ProviderChoice, threads: int) -> list[Artifact]:
    """Open artifacts side by side; the first failure is raised."""
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(threads, thread_name_prefix="artifact-open") as openers:
        opened = [
            loop.run_in_executor(openers, _open, folder, choice.effective) for folder in folders
        ]
        return list(await asyncio.gather(*opened))


def _open(folder: Path, provider: Provider) -> Artifact:
    started_s = time.monotonic()
    artifact = open_artifact(folder, provider, _THREADS_IN_A_RUN)
    log.info(
        "artifact_opened",
        extra={
            "model": artifact.manifest.name,
            "version": artifact.manifest.version,
            "provider": provider,
            "seconds": round(time.monotonic() - started_s, 3),
            **asdict(artifact.pace),
        },
    )
    return artifact
