"""What measures the limits of a service works; what it measures is asserted nowhere."""

from __future__ import annotations

import json
import socket
import threading

import onnxruntime
import pytest

from benchmarks import footprint, gpu, overload, soak
from benchmarks.generator import AnswerRefused, open_loop, post


@pytest.mark.slow
def test_overload_tells_of_both_loads(tmp_path, capsys):
    """Who was let in, who was not, and the generator's own delay."""
    out = tmp_path / "overload.json"

    assert overload.main(["--rounds", "1", "--seconds", "0.5", "--out", str(out)]) == 0

    (row,) = json.loads(out.read_text())["rows"]
    assert row["carried_per_second"][0] > 0
    assert row["above"]["due_per_second"][0] > 3 * row["below"]["due_per_second"][0]
    for load in ("below", "above"):
        assert 0 < row[load]["p50_ms"][0] <= row[load]["p99_ms"][0]
        assert row[load]["generator_behind_p99_ms"][0] >= 0
    assert row["above"]["refused"][0] > 0 < row["above"]["refused_p50_ms"][0]
    assert "300%" in capsys.readouterr().out


@pytest.mark.slow
def test_footprint_tells_of_store_start_and_memory(tmp_path, capsys):
    """And draws the memory."""
    out, picture = tmp_path / "footprint.json", tmp_path / "memory.png"
    few = ["--minutes", "0.05", "--starts", "1"]

    assert footprint.main([*few, "--out", str(out), "--picture", str(picture)]) == 0

    found = json.loads(out.read_text())
    for history in found["store"]["histories"].values():
        assert 18 <= history["an_interaction"] < 20
    assert set(found["store"]["a_state"]) == {"dkt", "dkt_asked"}
    assert all(least > 0 for _, least, _ in found["starts"].values())
    assert found["memory"]["requests"] > 0 < found["memory"]["end_over_then"]
    assert picture.stat().st_size > 1000
    assert "seconds to ready" in capsys.readouterr().out


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 429 x\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 500 x\r\ncontent-length: 0\r\n\r\n",
    ],
)
def test_an_open_loop_takes_no_answer_for_granted(answer):
    """A hang-up, a refusal that does not say when to come again, an error: the run ends there."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve():
            connection, _ = listening.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"

        with pytest.raises(AnswerRefused):
            open_loop(url, [post(url, "/", {})], 50, 0.1, 1)
        thread.join()


@pytest.mark.slow
def test_a_gpu_s_benchmark_runs_by_the_cpu_and_says_where_there_is_no_gpu(tmp_path, capsys):
    """So that it is ready where there is one; nothing is measured of a device that is not there."""
    out, picture = tmp_path / "gpu.json", tmp_path / "gpu.png"
    few = ["--rounds", "1", "--seconds", "0.01", "--lengths", "20", "--batches", "1", "4"]
    by_cpu = [*few, "--device", "cpu", "--eager-alone", "--picture", str(picture)]

    assert gpu.main([*by_cpu, "--out", str(out)]) == 0
    found = json.loads(out.read_text())
    assert len(found["rows"]) == 2 * len(found["furthest_from_the_cpu"])
    for row in found["rows"]:
        assert all(rate[0] > 0 for rate in row["a_second"].values())
        assert row["over_eager"]["torch eager"] == [1, 1, 1]
    assert picture.stat().st_size > 1000
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        assert gpu.main([*few, "--out", str(tmp_path / "none.json")]) == 2
        assert "nothing is measured" in capsys.readouterr().out
        assert not (tmp_path / "none.json").exists()


@pytest.mark.slow
def test_a_soak_tells_of_its_first_and_its_last(tmp_path, capsys):
    """And draws what lies between."""
    out, picture = tmp_path / "soak.json", tmp_path / "soak.png"
    few = ["--minutes", "0.05", "--stretch-s", "1", "--share", "0.3"]

    assert soak.main([*few, "--out", str(out), "--picture", str(picture)]) in (0, 1)

    found = json.loads(out.read_text())
    assert len(found["stretches"]) == 3
    assert found["requests"] > 0
    assert 0 < found["rate_per_second"] < found["carried_per_second"]
    assert all(ratio > 0 for ratio in found["last_over_first"].values())
    assert picture.stat().st_size > 1000
    assert "last tenth" in capsys.readouterr().out
