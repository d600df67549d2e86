"""The benchmark itself works; what it measures is asserted nowhere."""

from __future__ import annotations

import json

import pytest

from benchmarks import arrivals, bulk, load, memory, replay, serving
from tests.app.conftest import SHIPPED


@pytest.mark.slow
def test_every_prediction_stands_beside_its_floor(tmp_path, capsys):
    """A table for people, JSON for machines."""
    out = tmp_path / "serving.json"

    assert serving.main(["--rounds", "1", "--calls", "2", "--out", str(out)]) == 0
    found = json.loads(out.read_text())
    assert found["empty_route_ms"][0] > 0
    assert {(r["model"], r["history"]) for r in found["rows"]} == {
        (m, n) for m in SHIPPED for n in serving.HISTORIES
    }
    assert all(r["predict_ms"][0] > 0 and r["bare_ms"][0] > 0 for r in found["rows"])
    assert "last_query" in capsys.readouterr().out


@pytest.mark.slow
def test_many_callers_stand_beside_the_empty_route(tmp_path, capsys):
    """In a closed loop, and with requests that come when they like."""
    out, picture = tmp_path / "load.json", tmp_path / "load.png"
    few = ["--rounds", "1", "--seconds", "0.2", "--only", "dkt, history 100"]

    assert load.main([*few, "--callers", "3", "--out", str(out)]) == 0
    closed = json.loads(out.read_text())["rows"]
    assert arrivals.main([*few, "--out", str(out), "--picture", str(picture)]) == 0
    opened = json.loads(out.read_text())["rows"]

    cases = ["empty route", "dkt, history 100", "dkt, history 100, vector"]
    assert [row["case"] for row in closed] == cases
    assert all(row["per_second"][0] > 0 < row["p50_ms"][0] for row in closed)
    assert [row["case"] for row in opened[:3]] == cases
    assert all(0 < row["p50_ms"] <= row["p99_ms"] for row in opened)
    assert picture.stat().st_size > 1000
    assert "vector" in capsys.readouterr().out


@pytest.mark.slow
def test_calls_of_many_items_stand_beside_the_single_route(tmp_path, capsys):
    """And beside the bare run of each model."""
    out = tmp_path / "bulk.json"
    few = ["--rounds", "1", "--seconds", "0.1", "--users", "12"]

    assert bulk.main([*few, "--out", str(out)]) == 0

    found = json.loads(out.read_text())
    assert {row["case"].partition(",")[0] for row in found["rows"]} == set(bulk.MODELS)
    for row in found["rows"]:
        assert row["per_second"][0] > 0
        assert row["over_bare"][0] < 1
    assert [row["case"] for row in found["beside"]] == [f"{m}, 4 callers" for m in bulk.MODELS]
    assert "p99 ms beside" in capsys.readouterr().out


def test_a_replay_says_what_is_wrong_with_its_data(tmp_path, capsys):
    """In one line, with exit code 1; no traceback."""
    log = tmp_path / "log.csv"
    log.write_text("user_id,question_id,correct\nu,1,maybe\n")

    assert replay.main(["--data", str(tmp_path / "none.csv")]) == 1
    assert replay.main(["--data", str(log)]) == 1
    assert replay.main(["--data", str(log), "--fold", "1"]) == 1

    told = capsys.readouterr().err.strip().splitlines()
    assert "none.csv" in told[0]
    assert "row 2" in told[1]
    assert all(line.startswith("replay: ") for line in told)


def test_a_replay_of_a_service_that_is_not_there_says_so(tmp_path, capsys):
    """And leaves nothing running."""
    log = tmp_path / "log.csv"
    log.write_text("user_id,question_id,correct\nu,1,1\nu,1,0\n")

    assert replay.main(["--data", str(log), "--url", "http://127.0.0.1:1"]) == 1
    assert capsys.readouterr().err.strip().splitlines()[-1].startswith("replay: ")


@pytest.mark.slow
def test_memories_stand_beside_none_and_the_bare_run(tmp_path, capsys):
    """Of a model that attends."""
    out = tmp_path / "memory.json"
    few = ["--rounds", "1", "--seconds", "0.2", "--models", "last_query", "--callers", "3"]

    assert memory.main([*few, "--out", str(out)]) == 0
    (row,) = json.loads(out.read_text())["rows"]

    assert row["model"] == "last_query"
    assert row["held_over_not_held"][0] > 0 < row["not_held_over_bare"][0]
    assert "last_query" in capsys.readouterr().out
