"""Which users train, which choose, which are scored: users are split, never rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import polars as pl

from models.datasets.dataset import Dataset, DatasetError
from models.datasets.known import FOLDS_FILE, KNOWN, open_dataset


@dataclass(frozen=True, kw_only=True)
class SplitConfig:
    """A source of answers and how its users are split."""

    set: str  # name of a known set, or the path of a CSV or Parquet file
    folder: str = "../shared/data"  # where the known sets lie
    folds: str | None = None  # a folds.csv (user_id,fold); known sets have theirs beside them
    train: tuple[int, ...] = ()  # folds; all three empty: users are drawn, 7 : 1 : 2, by the seed
    validation: tuple[int, ...] = ()
    test: tuple[int, ...] = ()

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> Self:
        """Make one of plain values, as JSON gives them."""
        plain: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in content.items()
        }
        return cls(**plain)


class Split(NamedTuple):
    """Three data sets without a user in common."""

    train: Dataset
    validation: Dataset
    test: Dataset
    description: dict[str, Any]  # plain values, for a run's record


def open_split(config: SplitConfig, *, seed: int) -> Split:
    """Open a source and split it; raise `DatasetError` where that cannot be done."""
    data = open_dataset(config.set, Path(config.folder))
    if config.train or config.validation or config.test:
        folds = read_folds(_folds_path(config))
        groups = {
            part: [u for u in data.users if folds.get(u) in getattr(config, part)]
            for part in ("train", "validation", "test")
        }
        _check_apart(config)
    elif config.folds is not None:
        raise DatasetError(
            f"data.folds = {config.folds!r}: name folds of it as data.train, validation and test"
        )
    else:
        groups = draw_users(data.users, seed=seed)
    parts = {part: data.select(users) for part, users in groups.items()}
    for part, chosen in parts.items():
        if not chosen.users and (config.train or part == "train"):
            raise DatasetError(
                f"data.{part} = {list(getattr(config, part))}: no user of {config.set} is in it"
            )
    splits = {p: {"users": len(d.users), "answers": len(d)} for p, d in parts.items()}
    description = {"source": _plain(config), "splits": splits}
    return Split(parts["train"], parts["validation"], parts["test"], description)


def draw_users(
    users: tuple[str, ...], *, seed: int, validation: float = 0.1, test: float = 0.2
) -> dict[str, list[str]]:
    """Return users drawn into train, validation and test; the same for the same seed."""
    order = np.random.default_rng(seed).permutation(len(users))
    n_test, n_validation = round(len(users) * test), round(len(users) * validation)
    cut = {"test": order[:n_test], "validation": order[n_test : n_test + n_validation]}
    cut["train"] = order[n_test + n_validation :]
    return {part: [users[i] for i in sorted(cut[part])] for part in ("train", "validation", "test")}


def read_folds(path: Path) -> dict[str, int]:
    """Read a file of `user_id,fold`."""
    if not path.is_file():
        raise DatasetError(f"{path} is not there; a file with columns user_id,fold is needed")
    frame = pl.read_csv(path, infer_schema=False)
    if not {"user_id", "fold"} <= set(frame.columns):
        raise DatasetError(f"{path} has columns {', '.join(frame.columns)}; needed: user_id, fold")
    fold = frame["fold"].cast(pl.Int64, strict=False)
    if fold.null_count():
        row = int(fold.is_null().arg_max() or 0)
        raise DatasetError(
            f"{path}: row {row + 2}, column 'fold': {frame['fold'][row]!r} stands there; "
            "needed: a whole number"
        )
    return dict(zip(frame["user_id"].to_list(), fold.to_list(), strict=True))


def _folds_path(config: SplitConfig) -> Path:
    if config.folds is not None:
        return Path(config.folds)
    if config.set in KNOWN:
        return Path(config.folder) / config.set / FOLDS_FILE
    raise DatasetError("data.folds is needed where data.train, validation or test name folds")


def _check_apart(config: SplitConfig) -> None:
    named = [*config.train, *config.validation, *config.test]
    if len(set(named)) < len(named):
        raise DatasetError("a fold stands in two of data.train, data.validation and data.test")


def _plain(config: SplitConfig) -> dict[str, Any]:
    return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(config).items()}
