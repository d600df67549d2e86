"""Any user's log of answers, as CSV or Parquet, into a `Dataset`; a bad file is refused by place.

Columns: `user_id`, `correct`, at least one of `question_id` and `skill_id`; optional
`timestamp_ms`, `elapsed_ms`, `order`, `bundle_id`. Ids are text. Several skills stand in one cell,
apart by `;`. Without question ids, the skill is the question. Other columns are not read.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from models.contract.interaction import (
    INTERACTION,
    NO_KEY,
    UNKNOWN_MS,
    key_of,
    skill_set_text,
    skills_key_of,
)
from models.datasets.dataset import Dataset, DatasetError

SKILLS_APART = ";"
LONGEST_ID = 256
_COLUMNS = (
    "user_id",
    "question_id",
    "skill_id",
    "correct",
    "timestamp_ms",
    "elapsed_ms",
    "order",
    "bundle_id",
)
_RIGHT = {"1": 1, "0": 0, "1.0": 1, "0.0": 0, "true": 1, "false": 0}
_LATEST_MS = {"timestamp_ms": 2**53, "elapsed_ms": 2**31 - 1, "order": 2**53}


def read_table(path: Path, skill_names: Mapping[str, str] | None = None) -> Dataset:
    """Read a CSV (gzipped too) or Parquet file; raise `DatasetError` where a place is wrong."""
    return dataset_of(read_text(path), path, skill_names or {})


def read_text(path: Path) -> pl.DataFrame:
    """Return every cell of a file as text, an empty one as null."""
    if not path.is_file():
        raise DatasetError(f"{path} is not there")
    try:
        if path.suffix == ".parquet":
            frame = pl.read_parquet(path)
        else:
            frame = pl.read_csv(path, infer_schema=False, encoding="utf8")
    except pl.exceptions.NoDataError:
        raise DatasetError(f"{path} is empty; a header and rows are needed") from None
    except (pl.exceptions.PolarsError, OSError) as exc:
        raise DatasetError(f"{path} cannot be read as {path.suffix or 'CSV'}: {exc}") from exc
    names = {column: column.strip().lstrip("\ufeff") for column in frame.columns}
    for column in _COLUMNS:
        if [*names.values()].count(column) > 1:
            raise DatasetError(f"{path}: column {column!r} is there twice")
    frame = frame.rename({c: name for c, name in names.items() if name in _COLUMNS})
    found = [c for c in _COLUMNS if c in frame.columns]
    for needed in ("user_id", "correct"):
        if needed not in found:
            hint = "; is the file apart by commas?" if len(frame.columns) == 1 else ""
            raise DatasetError(
                f"{path}: column {needed!r} is missing; found {', '.join(frame.columns)}{hint}"
            )
    if not {"question_id", "skill_id"} & set(found):
        raise DatasetError(f"{path}: one of the columns 'question_id' and 'skill_id' is needed")
    for column in ("user_id", "question_id", "skill_id"):
        if column in found and frame[column].dtype.is_float():
            raise DatasetError(
                f"{path}: column {column!r} holds decimal numbers; ids are text: save it as text"
            )
    return frame.with_columns(
        pl.col(c).cast(pl.String).str.strip_chars().replace("", None) for c in found
    )


def dataset_of(frame: pl.DataFrame, path: Path, skill_names: Mapping[str, str]) -> Dataset:
    """Turn cells of text into a data set; `path` is named in errors."""
    if frame.is_empty():
        raise DatasetError(f"{path} has a header but no rows")
    where = _Place(path)
    for column in _COLUMNS:
        if column not in frame.columns:
            frame = frame.with_columns(pl.lit(None, pl.String).alias(column))
    frame = frame.select(_COLUMNS).with_row_index("line")
    if frame["question_id"].null_count() == len(frame):
        if frame["skill_id"].null_count() == len(frame):
            raise DatasetError(f"{path}: 'question_id' and 'skill_id' are both empty in every row")
        where.refuse(
            frame, pl.col("skill_id").is_null(), "skill_id", "an id: there are no questions"
        )
        frame = frame.with_columns(question_id="skill_id")
    for column in ("user_id", "question_id"):
        where.refuse(frame, pl.col(column).is_null(), column, "an id")
    for column in ("user_id", "question_id", "skill_id"):
        bad = (pl.col(column).str.len_chars() > LONGEST_ID) | pl.col(column).str.contains(r"\p{Cc}")
        where.refuse(
            frame, bad, column, f"at most {LONGEST_ID} characters, none of them a control character"
        )
    correct = pl.col("correct").str.to_lowercase()
    where.refuse(
        frame,
        correct.is_null() | ~correct.is_in(list(_RIGHT)),
        "correct",
        "0 or 1 (or true, false)",
    )
    for column, latest in _LATEST_MS.items():
        number = pl.col(column).cast(pl.Float64, strict=False)
        bad = pl.col(column).is_not_null() & ~number.is_between(0, latest).fill_null(False)
        where.refuse(frame, bad, column, f"a number from 0 to {latest}, or nothing")
    frame = frame.with_columns(
        correct.replace_strict(_RIGHT, return_dtype=pl.UInt8).alias("correct"),
        *(pl.col(c).cast(pl.Float64).floor().cast(pl.Int64).alias(c) for c in _LATEST_MS),
    )
    return _assemble(_in_order(frame, where), path, skill_names)


class _Place:
    """Where in a file something is wrong."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.first = 1 if path.suffix == ".parquet" else 2  # a CSV's first line is its header

    def refuse(self, frame: pl.DataFrame, bad: pl.Expr, column: str, wanted: str) -> None:
        """Raise `DatasetError` for the first row where `bad` holds."""
        rows = frame.filter(bad)
        if not rows.is_empty():
            value = rows[column][0]
            more = f" ({len(rows):,} rows like it)" if len(rows) > 1 else ""
            raise DatasetError(
                f"{self.path}: row {rows['line'][0] + self.first}, column {column!r}: "
                f"{'nothing' if value is None else repr(value)} stands there{more}; "
                f"needed: {wanted}"
            )


def _in_order(frame: pl.DataFrame, where: _Place) -> pl.DataFrame:
    """Sort by user, as they first appear, and in each by order, else time, else as in the file."""
    frame = frame.with_columns(first=pl.col("line").min().over("user_id"))
    by: list[str] = []
    if frame["order"].null_count() < len(frame):
        where.refuse(frame, pl.col("order").is_null(), "order", "a number: other rows have one")
        where.refuse(
            frame,
            pl.struct("user_id", "order").is_duplicated(),
            "order",
            "a number that this user has only once",
        )
        by = ["order"]
    elif frame["timestamp_ms"].null_count() == 0:
        by = ["timestamp_ms"]
    return frame.sort("first", *by, "line")


def _assemble(frame: pl.DataFrame, path: Path, skill_names: Mapping[str, str]) -> Dataset:
    interactions = np.zeros(len(frame), INTERACTION)
    texts: dict[int, str] = {}
    interactions["question_key"] = _keys(frame["question_id"], texts)
    interactions["skills_key"] = _skill_keys(frame["skill_id"], texts)
    interactions["response"] = frame["correct"].to_numpy()
    interactions["asked_ms"] = frame["timestamp_ms"].fill_null(UNKNOWN_MS).to_numpy()
    interactions["elapsed_ms"] = frame["elapsed_ms"].fill_null(UNKNOWN_MS).to_numpy()
    user = frame["first"].to_numpy()
    starts = np.flatnonzero(np.r_[True, np.diff(user) != 0])
    offsets = np.r_[starts, len(frame)].astype(np.int64)
    return Dataset(
        name=path.name,
        users=tuple(frame["user_id"].gather(starts).to_list()),
        interactions=interactions,
        offsets=offsets,
        visible=_visible(frame, offsets),
        texts=texts,
        skill_names=dict(skill_names),
    )


def _keys(column: pl.Series, texts: dict[int, str]) -> NDArray[np.uint64]:
    """Return the key of every id, hashing each distinct one once, and note its text."""
    distinct = column.unique().to_list()
    keys = {text: key_of(text) for text in distinct}
    texts.update({key: text for text, key in keys.items()})
    return column.replace_strict(keys, return_dtype=pl.UInt64).to_numpy()


def _skill_keys(column: pl.Series, texts: dict[int, str]) -> NDArray[np.uint64]:
    keys: dict[str, int] = {"": NO_KEY}
    for cell in column.drop_nulls().unique().to_list():
        members = [m for m in (part.strip() for part in cell.split(SKILLS_APART)) if m]
        keys[cell] = skills_key_of(members)
        texts.update({key_of(m): m for m in members})
        if members:
            texts[keys[cell]] = skill_set_text(members)
    return column.fill_null("").replace_strict(keys, return_dtype=pl.UInt64).to_numpy()


def _visible(frame: pl.DataFrame, offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return for each row how many earlier rows of its user it may see: those before its bundle."""
    lengths = np.diff(offsets)
    place = np.arange(len(frame)) - np.repeat(offsets[:-1], lengths)
    if frame["bundle_id"].null_count() == len(frame):
        return place
    bundle = frame["bundle_id"].rle_id().to_numpy()
    user = np.repeat(np.arange(len(lengths)), lengths)
    new = np.r_[True, (np.diff(bundle) != 0) | (np.diff(user) != 0)]
    new |= frame["bundle_id"].is_null().to_numpy()  # no bundle: a bundle of its own
    return place[np.maximum.accumulate(np.where(new, np.arange(len(frame)), 0))]
