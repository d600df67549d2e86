"""The protocols under which figures are published: who trains, who chooses, who is scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from models.contract.artifact import WindowRule
from models.datasets.split import SplitConfig


@dataclass(frozen=True, kw_only=True)
class Fold:
    """One run of a protocol; the three parts name folds of the set's `folds.csv`.

    Where they are empty, users are drawn into the three parts by `seed`.
    """

    number: int
    train: tuple[int, ...] = ()
    validation: tuple[int, ...] = ()
    test: tuple[int, ...] = ()
    seed: int | None = None  # None: the recipe's own, which then draws nobody


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """A data set and the runs over it whose figures are averaged."""

    name: str
    set: str
    rule: str  # in a sentence or two, for the reader of the table
    window: WindowRule | None  # how much history the published figures may see, where it is said
    folds: tuple[Fold, ...]

    def chosen(self, numbers: Sequence[int] | None) -> tuple[Fold, ...]:
        """Return the folds of these numbers, all for None; raise `ValueError` for unknown ones."""
        if numbers is None:
            return self.folds
        by_number = {fold.number: fold for fold in self.folds}
        if unknown := [n for n in numbers if n not in by_number]:
            known = ", ".join(map(str, by_number))
            raise ValueError(f"{self.name} has no fold {unknown[0]}; its folds: {known}")
        return tuple(by_number[n] for n in numbers)

    def split(self, fold: Fold, folder: str | None = None) -> SplitConfig:
        """Return what opens the three parts of a fold; `folder` is where the known sets lie."""
        parts = SplitConfig(
            set=self.set, train=fold.train, validation=fold.validation, test=fold.test
        )
        return parts if folder is None else replace(parts, folder=folder)


def one_test(numbers: Sequence[int], *, test: int) -> tuple[Fold, ...]:
    """Return pyKT's runs: fold k chooses, all others train, the same users are always scored."""
    return tuple(
        Fold(number=k, train=tuple(n for n in numbers if n != k), validation=(k,), test=(test,))
        for k in numbers
    )


def rotating(numbers: Sequence[int]) -> tuple[Fold, ...]:
    """Return AKT's runs: k is scored, the fold after (round the end) chooses, the others train."""
    following = dict(zip(numbers, [*numbers[1:], *numbers[:1]], strict=True))
    return tuple(
        Fold(
            number=k,
            train=tuple(n for n in numbers if n not in {k, following[k]}),
            validation=(following[k],),
            test=(k,),
        )
        for k in numbers
    )


_ROTATING = (
    "AKT's: run k is scored on fold k, chooses its epoch on fold k+1 (5: on 1) and trains on the "
    "other three; every answer is scored once, from the history before it. AKT cut histories into "
    "pieces of 200 answers and showed nothing of an earlier piece, so its figures come from at "
    "most 199 answers before one; what ours may see stands in the column `window`: where that is "
    "more, some of the difference is due to it."
)

PROTOCOLS: Mapping[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            name="assist2009",
            set="assist2009",
            rule=(
                "pyKT's, question level, all in one: five runs, each choosing its epoch on one of "
                "five folds and training on the other four; all are scored on the same test users, "
                "every attempt once, from the history before it, its skills pooled; windows of 200 "
                "that slide after the first."
            ),
            window=WindowRule(length=200),
            folds=one_test((0, 1, 2, 3, 4), test=-1),
        ),
        Protocol(
            name="assist2017",
            set="assist2017",
            rule=_ROTATING,
            window=None,
            folds=rotating((1, 2, 3, 4, 5)),
        ),
        Protocol(
            name="statics2011",
            set="statics2011",
            rule=_ROTATING,
            window=None,
            folds=rotating((1, 2, 3, 4, 5)),
        ),
        Protocol(
            name="riiid_sample",
            set="riiid_sample",
            rule=(
                "Ours, to exercise the timed path: run k draws the users 7 : 1 : 2 by seed k, so "
                "the runs' test users overlap; no figure is published for these rows."
            ),
            window=None,
            folds=tuple(Fold(number=k, seed=k) for k in range(5)),
        ),
    )
}


def protocol_named(name: str) -> Protocol:
    """Return a protocol; raise `ValueError` naming those there are."""
    if name not in PROTOCOLS:
        raise ValueError(f"protocol {name!r} is not known; known: {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]
