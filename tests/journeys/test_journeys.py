"""The whole path, as a user walks it: files, commands, processes, HTTP."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest

from benchmarks.server import ROOT, ServerFailed, own_server, start, stop
from models.datasets.encoded import encode
from models.datasets.known import open_dataset
from models.datasets.split import read_folds
from models.evaluation.graph import open_graph
from models.evaluation.metrics import auc
from models.evaluation.predictions import predict_rows
from tests.app.conftest import SHIPPED

MODELS = list(SHIPPED)
STUDENTS = ROOT.parent / "shared" / "data" / "assist2017"

ENVIRON = {
    **{k: v for k, v in os.environ.items() if not k.startswith("KT_")},
    "OMP_NUM_THREADS": "2",
    "OMP_WAIT_POLICY": "passive",
}


def command(*words: object) -> str:
    """Run a module of the product and return what it printed; fail with its words."""
    done = subprocess.run(
        [sys.executable, "-m", *map(str, words)],
        cwd=ROOT,
        env=ENVIRON,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def last_json(text: str) -> dict:
    return json.loads(text.strip().splitlines()[-1])


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.timeout(300)
def test_a_log_of_answers_becomes_a_served_model(tmp_path):
    """Simulate, train, evaluate, export, serve, replay: each by its own command."""
    log, runs, artifact = tmp_path / "log.csv", tmp_path / "runs", tmp_path / "artifacts/dkt/1"
    command("models.datasets.simulator", log, "--users", 60, "--answers", 40, "--seed", 1)
    config = tmp_path / "dkt.toml"
    config.write_text(
        f"""
        name = "mine"
        network = "dkt"
        [data]
        set = "{log}"
        [window]
        length = 200
        cut = 100
        [model]
        hidden = 16
        question = true
        [fit]
        epochs = 2
        """
    )
    command("models.training", config, "--runs", runs)
    told = command("models.evaluation", runs / "mine", "--rounds", 20)
    command("export", runs / "mine", artifact)
    settings = {"KT_ARTIFACT_DIR": str(artifact.parents[1]), "KT_DEFAULT_MODEL": "dkt"}
    with own_server(tmp_path / "data", settings) as server:
        users = json.loads((runs / "mine" / "metrics.json").read_text())["users"]
        replayed = last_json(command("benchmarks.replay", "--data", log, "--url", server.url))

    assert "all *" in told
    assert users == 12
    assert replayed["users"] == 60
    assert replayed["answers"] == 60 * 39
    assert 0.5 < replayed["auc"] < 1


@pytest.mark.parametrize(
    "model", [m if m == "dkt_asked" else pytest.param(m, marks=pytest.mark.slow) for m in MODELS]
)
def test_what_is_served_is_what_was_measured(tmp_path, model):
    """One AUC over HTTP and offline, to 1e-4. Of real students where there are any."""
    if STUDENTS.is_dir():
        data, fold, users = STUDENTS / "interactions.csv.gz", 1, 1
        chosen = ["--folds", STUDENTS / "folds.csv", "--fold", fold]
    else:
        data, fold, users, chosen = tmp_path / "log.csv", None, 6, []
        command("models.datasets.simulator", data, "--users", users, "--answers", 150)
    replayed = last_json(
        command("benchmarks.replay", "--data", data, *chosen, "--users", users, "--model", model)
    )
    answers, measured = offline(data, fold, users, model)

    assert (replayed["users"], replayed["answers"]) == (users, answers)
    assert abs(replayed["auc"] - measured) < 1e-4


def offline(data: Path, fold: int | None, users: int, model: str) -> tuple[int, float]:
    """Return the answers scored and their AUC as `python -m models.evaluation` finds them."""
    students = open_dataset(str(data), data.parent)
    if fold is not None:
        of = read_folds(STUDENTS / "folds.csv")
        students = students.select([u for u in students.users if of[u] == fold])
    graph = open_graph(SHIPPED[model])
    encoded = encode(students.select(students.users[:users]), graph.vocabulary)
    rows = [(u, r) for u, user in enumerate(encoded) for r in range(1, len(user))]
    found = [np.full(len(u), np.nan) for u in encoded]
    predict_rows(graph.score, encoded, graph.window, rows, found)
    right = np.concatenate([u.history.response[1:] for u in encoded])
    return len(right), auc(right, np.concatenate([f[1:] for f in found]))


def test_nothing_acknowledged_is_lost_or_doubled_by_a_kill(tmp_path):
    """SIGKILL between two answers, start again, send the unanswered ones again."""
    server = start(tmp_path)
    store = int((tmp_path / "lock").read_text())
    acknowledged: dict[int, int] = {}
    lock = threading.Lock()

    def student(number: int) -> None:
        with httpx.Client(base_url=server.url) as client:
            for i in range(10_000):
                event = {"question_id": str(i), "correct": True, "event_id": str(i)}
                try:
                    answer = client.post(
                        f"/users/{number}/interactions", json={"interactions": [event]}
                    )
                except httpx.HTTPError:
                    return
                assert answer.status_code == 200
                with lock:
                    acknowledged[number] = i + 1

    with ThreadPoolExecutor(4) as pool:
        for number in range(4):
            pool.submit(student, number)
        while sum(acknowledged.values()) < 100:
            time.sleep(0.005)
        server.process.send_signal(signal.SIGKILL)
    server.process.wait()

    with own_server(tmp_path) as again, httpx.Client(base_url=again.url) as client:
        for number, count in acknowledged.items():
            path = f"/users/{number}/interactions"
            repeated = [
                {"question_id": str(i), "correct": True, "event_id": str(i)}
                for i in range(count - 1, count + 1)
            ]
            client.post(path, json={"interactions": repeated})
            listed = client.get(path, params={"limit": 1000}).json()["interactions"]
            assert [i["question_id"] for i in listed] == [str(i) for i in range(count + 1)]
    assert not is_alive(store)
    assert not is_alive(int((tmp_path / "lock").read_text()))


def test_a_server_told_to_stop_finishes_and_leaves_nobody_behind(tmp_path):
    """Exit code 0, and the store has gone with it."""
    server = start(tmp_path)
    store = int((tmp_path / "lock").read_text())
    assert httpx.get(f"{server.url}/readyz").status_code == 200

    assert stop(server) == 0
    assert not is_alive(store)


@pytest.mark.parametrize(
    ("settings", "code", "said"),
    [
        ({"KT_PORTT": "1"}, 2, "KT_PORTT is not a setting"),
        ({"KT_PROVIDER": "cuda"}, 3, "onnxruntime-gpu is not installed"),
        ({"KT_DEFAULT_MODEL": "gpt"}, 3, "model 'gpt' is not served here"),
        ({"KT_ARTIFACT_DIR": "nowhere"}, 3, "nowhere is no folder"),
        ({"KT_REDIS_URL": "http://x"}, 3, "KT_REDIS_URL is no address"),
    ],
)
def test_a_server_that_cannot_start_says_why_in_its_last_line(tmp_path, settings, code, said):
    """With an exit code of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "app"],
        cwd=ROOT,
        env={**ENVIRON, "KT_PORT": "0", "KT_DATA_DIR": str(tmp_path), **settings},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == code
    assert said in done.stderr.strip().splitlines()[-1]


def test_a_port_that_is_taken_is_said_to_be(tmp_path):
    """And the store of the one who could not listen is gone."""
    with own_server(tmp_path / "one") as server:
        port = server.url.rsplit(":", 1)[1]
        with pytest.raises(ServerFailed, match=f"cannot listen on 127.0.0.1:{port}"):
            start(tmp_path / "two", {"KT_PORT": port})

    assert not is_alive(int((tmp_path / "two" / "lock").read_text()))
