"""What hurts a service and counts works: nothing that is wrong escapes it."""

from __future__ import annotations

import asyncio
import json

import pytest

from app.settings import Settings
from benchmarks import chaos
from benchmarks.callers import QUESTIONS, Caller, Seen, wrong_of
from benchmarks.faults import Fault
from tests.app.conftest import ARTIFACTS, serving


@pytest.mark.slow
def test_a_fault_is_struck_under_load_and_told_of(tmp_path, capsys):
    """The store dies while callers record; all that was acknowledged is there."""
    out = tmp_path / "chaos.json"

    code = chaos.main(["--only", "embedded: its store", "--callers", "3", "--out", str(out)])

    (row,) = json.loads(out.read_text())["rows"]
    assert row["wrong"] == []
    assert code == 0
    assert row["failed"] > 0 < row["acknowledged"]
    assert (row["lost"], row["doubled"], row["forgotten"]) == (0, 0, 0)
    assert "its store killed" in capsys.readouterr().out


def test_what_is_lost_or_doubled_or_overlooked_is_found(tmp_path):
    """By callers whose answers somebody else takes away, or sends twice."""
    seen = Seen()

    async def harmed(client):
        callers = [Caller(lambda: [str(client.base_url)], seen) for _ in range(3)]
        forgotten, doubled, _ = callers
        for caller in callers:
            await caller.meet()
        client.delete(f"/users/{forgotten.user_id}").raise_for_status()
        again = {"question_id": "1", "correct": True, "asked_ms": 1_700_000_000_003}
        path = f"/users/{doubled.user_id}/interactions"
        client.post(path, json={"interactions": [again]}).raise_for_status()
        await forgotten.ask()
        return [await wrong_of([caller]) for caller in callers]

    with serving(Settings(artifact_dir=ARTIFACTS, data_dir=tmp_path)) as client:
        lost, twice, none = asyncio.run(harmed(client))

    assert (lost.lost, lost.doubled) == (QUESTIONS, 0)
    assert (twice.lost, twice.doubled, twice.disordered) == (0, 1, 1)
    assert (none.lost, none.doubled, none.disordered) == (0, 0, 0)
    assert (seen.forgotten, sum(seen.failed.values())) == (1, 0)


@pytest.mark.parametrize(
    ("told", "wrong"),
    [
        ({}, []),
        ({"lost": 1}, ["lost"]),
        ({"failed_of_others": 1}, ["failed_of_others"]),
        ({"recovered_s": 2.1}, ["recovered_s"]),
        ({"failed": 1}, ["failed"]),
        ({"exit_code": 1}, ["exit_code"]),
        ({"failures": {"internal": 1}}, ["internal"]),
    ],
)
def test_what_must_not_come_of_a_fault_is_named(told, wrong):
    """And the command ends with 1."""
    well = {
        **dict.fromkeys(("lost", "doubled", "forgotten", "failed", "failed_of_others"), 0),
        "failures": {},
        "recovered_s": 0.1,
        "exit_code": 0,
    }
    fault = Fault(name="x", strike=lambda world: None, may_fail=False)

    assert chaos.wrong_with({**well, **told}, fault) == wrong
