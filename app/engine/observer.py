"""What the engine tells of its work, to whoever counts."""

from __future__ import annotations

from typing import Protocol


class Observer(Protocol):
    """Told of every event of a model's queue, from the event loop's thread."""

    def queue_changed(self, model: str, more: int) -> None:
        """So many more windows wait for a run than before, or fewer."""
        ...

    def refused(self, model: str, windows: int) -> None:
        """So many windows were refused: the queue is full."""
        ...

    def abandoned(self, model: str, windows: int) -> None:
        """A caller left before the run of so many windows began; they are not run."""
        ...

    def failed(self, model: str) -> None:
        """No run could answer a window."""
        ...

    def batch_ran(
        self,
        model: str,
        items: int,
        padded_places: int,
        real_places: int,
        wait_s: float,
        run_s: float,
    ) -> None:
        """A run answered `items` windows; the one that came first had waited `wait_s`."""
        ...


class NoObserver:
    """Nobody counts."""

    def queue_changed(self, model: str, more: int) -> None:
        """Ignore it."""

    def refused(self, model: str, windows: int) -> None:
        """Ignore it."""

    def abandoned(self, model: str, windows: int) -> None:
        """Ignore it."""

    def failed(self, model: str) -> None:
        """Ignore it."""

    def batch_ran(
        self,
        model: str,
        items: int,
        padded_places: int,
        real_places: int,
        wait_s: float,
        run_s: float,
    ) -> None:
        """Ignore it."""
