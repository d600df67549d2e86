"""Nobody is scored who trained or chose, in any run of any protocol."""

from __future__ import annotations

import polars as pl
import pytest

from models.datasets.split import open_split
from models.evaluation.protocol import PROTOCOLS, one_test, protocol_named, rotating

NAMED = [(name, fold) for name, p in PROTOCOLS.items() for fold in p.folds if fold.test]


@pytest.mark.parametrize(("name", "fold"), NAMED, ids=lambda x: getattr(x, "number", x))
def test_the_parts_of_a_run_share_no_fold_and_leave_none_out(name, fold):
    parts = [*fold.train, *fold.validation, *fold.test]
    every = {n for f in PROTOCOLS[name].folds for n in (*f.train, *f.validation, *f.test)}

    assert len(set(parts)) == len(parts)
    assert set(parts) == every


def test_akt_s_runs_rotate_round_the_end():
    """Run k scores fold k and chooses on the next; the fifth chooses on the first."""
    runs = rotating((1, 2, 3, 4, 5))

    assert [run.test for run in runs] == [(1,), (2,), (3,), (4,), (5,)]
    assert [run.validation for run in runs] == [(2,), (3,), (4,), (5,), (1,)]
    assert runs[4].train == (2, 3, 4)
    assert runs[1].train == (1, 4, 5)


def test_pykt_s_runs_are_scored_on_the_same_users():
    runs = one_test((0, 1, 2, 3, 4), test=-1)

    assert {run.test for run in runs} == {(-1,)}
    assert [run.validation for run in runs] == [(0,), (1,), (2,), (3,), (4,)]
    assert runs[2].train == (0, 1, 3, 4)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_no_user_is_in_two_parts(name, tmp_path):
    """Of the split that is opened, whether folds are named or users drawn."""
    users = [f"u{i}" for i in range(60)]
    folder = tmp_path / name
    folder.mkdir()
    rows = {"question_id": "1", "skill_id": "a", "correct": "1"}
    rows |= {"is_repeat": "0", "task_container_id": "0"}
    text = pl.DataFrame({"user_id": users, **{k: [v] * 60 for k, v in rows.items()}})
    text.write_csv(folder / "interactions.csv.gz", compression="gzip")
    folds = [-1 if name == "assist2009" and i % 6 == 5 else i % 6 % 5 for i in range(60)]
    shift = 0 if name == "assist2009" else 1
    pl.DataFrame({"user_id": users, "fold": [f + shift for f in folds]}).write_csv(
        folder / "folds.csv"
    )
    protocol = PROTOCOLS[name]
    for fold in protocol.folds:
        split = open_split(protocol.split(fold, str(tmp_path)), seed=fold.seed or 0)
        parts = [set(part.users) for part in split[:3]]
        assert all(parts)
        assert sum(map(len, parts)) == len(set.union(*parts)) == 60


def test_what_is_not_there_is_said_with_what_is():
    with pytest.raises(ValueError, match="assist2009, assist2017"):
        protocol_named("assist2012")
    with pytest.raises(ValueError, match="no fold 0; its folds: 1, 2, 3, 4, 5"):
        PROTOCOLS["assist2017"].chosen([0])
