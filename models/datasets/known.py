"""The sets of `shared/data`, each brought into the form of anybody's table.

Where they come from, and their traps, is told in the README that lies beside them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import polars as pl

from models.datasets.dataset import Dataset, DatasetError
from models.datasets.table import SKILLS_APART, dataset_of, read_table, read_text

DATA_FILE, FOLDS_FILE, SKILLS_FILE = "interactions.csv.gz", "folds.csv", "skills.csv"


def _assist2009(frame: pl.DataFrame) -> pl.DataFrame:
    """Make one row of an attempt's rows: the first would tell the answer of the rest."""
    attempt = (pl.col("is_repeat") != "1").cum_sum()
    others = [c for c in frame.columns if c != "skill_id"]
    return frame.group_by(attempt.alias("attempt"), maintain_order=True).agg(
        pl.col("skill_id").str.join(SKILLS_APART), *(pl.col(c).first() for c in others)
    )


def _as_it_is(frame: pl.DataFrame) -> pl.DataFrame:
    """assist2017: every row names its skill, and borrowed times are times; statics2011: no more."""
    return frame


def _riiid_sample(frame: pl.DataFrame) -> pl.DataFrame:
    """Questions of a container are served together: none sees another's answer."""
    return frame.with_columns(bundle_id="task_container_id")


KNOWN: dict[str, Callable[[pl.DataFrame], pl.DataFrame]] = {
    "assist2009": _assist2009,
    "assist2017": _as_it_is,
    "statics2011": _as_it_is,
    "riiid_sample": _riiid_sample,
}


def open_dataset(source: str, folder: Path) -> Dataset:
    """Open a known set by its name, from `folder`, or any CSV or Parquet file by its path."""
    if source in KNOWN:
        path = folder / source / DATA_FILE
        if not path.is_file():
            raise DatasetError(f"{path} is not there; data.folder must be where {source} lies")
        data = dataset_of(KNOWN[source](read_text(path)), path, _skill_names(folder / source))
        return replace(data, name=source)
    if not Path(source).suffix:
        raise DatasetError(
            f"data set {source!r} is not known; known: {', '.join(KNOWN)}, or the path of a file"
        )
    return read_table(Path(source), _skill_names(Path(source).parent))


def _skill_names(folder: Path) -> dict[str, str]:
    path = folder / SKILLS_FILE
    if not path.is_file():
        return {}
    frame = pl.read_csv(path, infer_schema=False)
    if not {"skill_id", "skill_name"} <= set(frame.columns):
        return {}
    return dict(frame.select("skill_id", "skill_name").drop_nulls().iter_rows())
