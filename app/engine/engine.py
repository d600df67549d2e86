"""Every model that is served, opened and running."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, replace
from pathlib import Path

from app.engine.artifact import Artifact, open_artifact
from app.engine.asked import Asked, AskedMany
from app.engine.batcher import Batcher, Bounds, Result, Score
from app.engine.cores import usable_cores
from app.engine.kept import KeptScorer
from app.engine.many import ManyScore, ManyScorer
from app.engine.model import ServedModel
from app.engine.observer import Observer
from app.engine.pace import Pace
from app.engine.providers import Provider, ProviderChoice, choose_provider
from app.engine.versions import chosen_versions
from app.engine.workers import Workers
from app.errors import ModelUnknown, ProviderUnavailable
from app.settings import Settings

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
    """The served models by name, and the provider that runs them: as they are at one moment."""

    def __init__(self, models: Mapping[str, ServedModel], opener: Opener) -> None:
        self.models = models
        self.opener = opener

    @property
    def provider(self) -> ProviderChoice:
        """What runs the models."""
        return self.opener.provider

    def model(self, name: str) -> ServedModel:
        """Return a model; raise `ModelUnknown` where none of that name is served."""
        try:
            return self.models[name]
        except KeyError:
            raise ModelUnknown(name, sorted(self.models)) from None

    def stuck_s(self) -> float:
        """Return the age of the oldest run that has not come back, 0 for none."""
        return self.opener.stuck_s()

    def with_model(self, model: ServedModel) -> Engine:
        """Return an engine that serves this model in place of the one of its name."""
        return Engine({**self.models, model.name: model}, self.opener)


class Opener:
    """Opens models, gives them queues on one set of threads, and closes them."""

    def __init__(
        self,
        settings: Settings,
        provider: ProviderChoice,
        workers: Workers,
        observer: Observer | None,
    ) -> None:
        self.provider = provider
        self._settings = settings
        self._workers = workers
        self._observer = observer
        self._bounds = Bounds(
            max_items=settings.batch_max_items,
            max_places=settings.batch_max_places,
            max_waiting=settings.queue_max_items,
        )
        self._queues: dict[ServedModel, AsyncExitStack] = {}

    async def open(self, folder: Path) -> ServedModel:
        """Return the model in `<model>/<version>`, proved, warm and ready to be asked.

        Raises `ArtifactInvalid` or `ProviderUnavailable`. What is served meanwhile goes on.
        """
        return await self.serve(await asyncio.to_thread(_open, folder, self.provider.effective))

    async def serve(self, artifact: Artifact) -> ServedModel:
        """Return the model of an open artifact, behind queues."""
        name, pace, kept = artifact.manifest.name, artifact.pace, artifact.kept
        queues = AsyncExitStack()
        windows = await self._queue(
            queues, name, artifact.scorer, _paced(self._bounds, pace.window_places)
        )
        following, many = None, None
        if kept is not None:
            following = await self._queue(queues, name, kept, _kept_bounds(self._bounds, pace))
        if isinstance(kept, KeptScorer):
            many = await self._queue_of_many(queues, name, kept)
        model = ServedModel(artifact, windows, following, many)
        self._queues[model] = queues
        return model

    async def close(self, model: ServedModel) -> None:
        """Answer who waits for a model, and take no more."""
        await self._queues.pop(model).aclose()

    async def aclose(self) -> None:
        """Close every model."""
        await asyncio.gather(*(self.close(model) for model in [*self._queues]))

    def stuck_s(self) -> float:
        """Return the age of the oldest run that has not come back, 0 for none."""
        return max((model.stuck_s() for model in self._queues), default=0.0)

    async def _queue(
        self, queues: AsyncExitStack, name: str, score: Score[Asked, Result], bounds: Bounds
    ) -> Batcher[Asked, Result]:
        batcher = Batcher(
            name,
            score,
            self._workers,
            bounds,
            drain_s=self._settings.drain_s,
            observer=self._observer,
            rows=lambda asked: len(asked.interactions),
        )
        return await queues.enter_async_context(batcher)

    async def _queue_of_many(
        self, queues: AsyncExitStack, name: str, kept: KeptScorer
    ) -> Batcher[AskedMany, ManyScore | Exception]:
        batcher: Batcher[AskedMany, ManyScore | Exception] = Batcher(
            name,
            ManyScorer(kept),
            self._workers,
            replace(
                self._bounds,
                max_items=1,
                max_inline_places=_INLINE_MANY,
                max_inline_rows=_INLINE_MANY,
            ),
            drain_s=self._settings.drain_s,
            observer=self._observer,
            rows=lambda asked: asked.work,
            windows=lambda asked: len(asked.queries),
        )
        return await queues.enter_async_context(batcher)


@asynccontextmanager
async def open_engine(
    settings: Settings, observer: Observer | None = None
) -> AsyncIterator[Engine]:
    """Open every model in `settings.artifact_dir`, and serve them.

    Of each the newest version, or the one that `settings.model_versions` names. Raises
    `ArtifactInvalid` where one of them cannot be served, and `ProviderUnavailable`. Leaving drains
    every queue.
    """
    folders = chosen_versions(settings.artifact_dir, settings.model_versions)
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
    # On a GPU one run at a time: what comes meanwhile is better off together in the next.
    side_by_side = count if choice.effective == "cpu" else 1
    async with Workers(side_by_side) as workers:
        opener = Opener(settings, choice, workers, observer)
        try:
            models = [await opener.serve(artifact) for artifact in artifacts]
            yield Engine({model.name: model for model in models}, opener)
        finally:
            await opener.aclose()


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
