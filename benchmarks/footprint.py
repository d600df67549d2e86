"""What a service takes: bytes in the store, the time until it is ready, memory that stays.

    make footprint
    python -m benchmarks.footprint --minutes 10 --starts 5 --picture docs/memory.png

Bytes are what the store itself says of a key (MEMORY USAGE), for a user who was reported answer by
answer and for one reported a thousand at a time. Ready is when /readyz first says so, counted from
before the process was made. Memory is the server process's alone (the store is another), while four
callers send requests of random shapes. Writes bench-results/footprint.json.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
from matplotlib.figure import Figure
from redis import Redis
from rich.console import Console
from rich.table import Table

from app.engine.artifact import open_artifact
from app.engine.versions import newest_versions
from app.store.keys import HISTORY, STATES, user_key
from benchmarks.generator import drawn_loop, each_once, post
from benchmarks.report import machine
from benchmarks.server import ROOT, OwnServer, own_server
from benchmarks.shapes import random_shapes
from models.commands import at_least, picture_to_write

ANSWERS = 1728
RECORDED_AT_ONCE = 1000
CALLERS = 4
SAMPLE_S = 2.0
SETTLED_S = 60.0  # what memory is compared with: by then every model has run
AROUND_S = 30.0  # what a run has taken swings: a figure is the median of the minute around it
THREE = ("dkt", "dkt_asked", "saint_plus")


def main(arguments: list[str] | None = None) -> int:
    """Measure, print a table, write the figures and the picture."""
    given = _parser().parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 100)
    found = {
        "machine": machine(),
        "store": stored(),
        "starts": started(given.starts),
        "memory": held(60 * given.minutes) if given.minutes else None,
    }
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if given.picture is not None and found["memory"] is not None:
        picture(found["memory"]).savefig(given.picture, dpi=110)
    console.print(_table(found))
    console.print(f"written to {given.out}")
    return 0


# -- the store -----------------------------------------------------------------------------------


def stored() -> dict[str, Any]:
    """Return bytes of a history, an interaction and a state, as the embedded store counts them."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="ktserve-footprint-"))
        server = stack.enter_context(own_server(Path(folder), {"KT_LOG_LEVEL": "warning"}))
        store = stack.enter_context(Redis(unix_socket_path=_socket(server)))
        questions = _questions()
        histories = {}
        for way, at_once in (("one by one", 1), ("a thousand at a time", RECORDED_AT_ONCE)):
            user_id = f"footprint-{at_once}"
            answers = [
                {"question_id": questions[i % len(questions)], "correct": i % 3 > 0}
                for i in range(ANSWERS)
            ]
            path = f"/users/{user_id}/interactions"
            parts = [answers[i : i + at_once] for i in range(0, ANSWERS, at_once)]
            each_once(server.url, [post(server.url, path, {"interactions": p}) for p in parts])
            used = store.memory_usage(user_key(HISTORY, user_id), samples=0)
            histories[way] = {"bytes": used, "an_interaction": round(used / ANSWERS, 2)}
        states = {
            model: _state_bytes(server, store, user_id, model, questions[0])
            for model in sorted(f.parent.name for f in newest_versions(ROOT / "artifacts"))
        }
    return {
        "answers": ANSWERS,
        "histories": histories,
        "a_state": {model: used for model, used in states.items() if used is not None},
    }


def _state_bytes(
    server: OwnServer, store: Redis, user_id: str, model: str, question_id: str
) -> int | None:
    """Return what the state of one user and model takes; None where the model keeps none."""
    key = user_key(STATES, user_id)
    store.delete(key)
    ask = {"user_id": user_id, "question_id": question_id, "model": model}
    each_once(server.url, [post(server.url, "/predict", {**ask, "knowledge_state": False})])
    for _ in range(50):  # it is written when the answer is on its way
        used: int | None = store.memory_usage(key, samples=0)
        if used is not None:
            return used
        time.sleep(0.01)
    return None


def _socket(server: OwnServer) -> str:
    """Return where a server's own store listens, as its command line says."""
    (store,) = psutil.Process(server.pid).children()
    # It has renamed itself: where it listens stands in place of its arguments.
    words = " ".join(store.cmdline()).split()
    return next(w.removeprefix("unixsocket:") for w in words if w.startswith("unixsocket:"))


# -- the start -----------------------------------------------------------------------------------


def started(starts: int) -> dict[str, Any]:
    """Return seconds from a process's start to ready, with three artifacts and with all."""
    folders = newest_versions(ROOT / "artifacts")
    found = {}
    with tempfile.TemporaryDirectory(prefix="ktserve-footprint-") as temporary:
        three = Path(temporary) / "artifacts"
        for folder in folders:
            if folder.parent.name in THREE:
                (three / folder.parent.name).mkdir(parents=True)
                (three / folder.parent.name / folder.name).symlink_to(folder)
        for name, artifacts in ((", ".join(THREE), three), ("all shipped", ROOT / "artifacts")):
            times = [
                _start_s(Path(temporary) / f"data-{name}-{number}", artifacts)
                for number in range(starts)
            ]
            found[name] = _middle(times)
    return found


def _start_s(data_dir: Path, artifacts: Path) -> float:
    began = time.perf_counter()
    settings = {"KT_LOG_LEVEL": "warning", "KT_ARTIFACT_DIR": str(artifacts)}
    with own_server(data_dir, settings) as server:
        while httpx.get(f"{server.url}/readyz").status_code != 200:
            time.sleep(0.005)
        return time.perf_counter() - began


# -- memory --------------------------------------------------------------------------------------


def held(seconds: float) -> dict[str, Any]:
    """Return the resident memory of a server under requests of random shapes, and what it did."""
    models = [folder.parent.name for folder in newest_versions(ROOT / "artifacts")]
    samples: list[tuple[float, int]] = []
    over = threading.Event()
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="ktserve-footprint-"))
        server = stack.enter_context(own_server(Path(folder), {"KT_LOG_LEVEL": "warning"}))
        process = psutil.Process(server.pid)
        began = time.monotonic()

        def sample() -> None:
            while True:
                samples.append((time.monotonic() - began, process.memory_info().rss))
                if over.wait(SAMPLE_S):
                    return

        sampling = threading.Thread(target=sample)
        sampling.start()
        try:
            requests = random_shapes(server.url, models, _questions(), seed=0)
            load = drawn_loop(server.url, requests, CALLERS, seconds)
        finally:
            over.set()
            sampling.join()
    after_s = min(SETTLED_S, seconds / 2)
    first, last = _around(samples, after_s), _around(samples, seconds - min(AROUND_S, seconds / 2))
    return {
        "seconds": seconds,
        "requests": len(load.spent_s),
        "at_the_start_mb": round(samples[0][1] / 1e6, 1),
        "after_s": after_s,
        "then_mb": round(first / 1e6, 1),
        "at_the_end_mb": round(last / 1e6, 1),
        "most_mb": round(max(rss for _, rss in samples) / 1e6, 1),
        "end_over_then": round(last / first, 4),
        "samples": [(round(at_s, 1), rss) for at_s, rss in samples],
    }


def _around(samples: list[tuple[float, int]], at_s: float) -> float:
    near = [rss for when_s, rss in samples if abs(when_s - at_s) <= AROUND_S]
    return float(np.median(near))


def picture(memory: dict[str, Any]) -> Figure:
    """Return the figure: resident memory against the time."""
    figure = Figure(figsize=(7, 3.4), layout="constrained")
    axes = figure.subplots()
    at_s, rss = np.array(memory["samples"]).T
    axes.plot(at_s / 60, rss / 1e6)
    axes.axhline(memory["then_mb"], linestyle=":", color="grey")
    axes.set_ylim(0, 1.15 * rss.max() / 1e6)
    axes.set_xlabel("minutes of requests of random shapes")
    axes.set_ylabel("MB resident")
    axes.grid(alpha=0.3)
    return figure


# -- telling -------------------------------------------------------------------------------------


def _questions() -> tuple[str, ...]:
    folder = next(f for f in newest_versions(ROOT / "artifacts") if f.parent.name == "dkt")
    return tuple(open_artifact(folder, "cpu", 1).vocabulary.question_ids)


def _middle(values: list[float]) -> list[float]:
    """Return median, least and most."""
    return [round(float(f(values)), 3) for f in (np.median, np.min, np.max)]


def _table(found: dict[str, Any]) -> Table:
    table = Table("what", "is", title=found["machine"])
    store = found["store"]
    for way, history in store["histories"].items():
        table.add_row(
            f"bytes an interaction, {store['answers']:,} recorded {way}",
            f"{history['an_interaction']:.1f}",
        )
    for model, used in store["a_state"].items():
        table.add_row(f"bytes of a user's state, {model}", f"{used:,}")
    for artifacts, (middle, least, most) in found["starts"].items():
        table.add_row(f"seconds to ready: {artifacts}", f"{middle:.2f} ({least:.2f} to {most:.2f})")
    if (memory := found["memory"]) is not None:
        table.add_row(
            f"MB resident after {memory['after_s']:.0f} s, after {memory['seconds']:.0f} s",
            f"{memory['then_mb']:.0f}, {memory['at_the_end_mb']:.0f}",
        )
        table.add_row("the latter over the former", f"{memory['end_over_then']:.3f}")
        table.add_row("requests meanwhile", f"{memory['requests']:,}")
    return table


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.footprint", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="of random shapes; 0 for none")
    parser.add_argument("--starts", type=at_least(1), default=5)
    parser.add_argument("--picture", type=picture_to_write, help="PNG or SVG file")
    parser.add_argument("--out", type=Path, default=Path("bench-results/footprint.json"))
    return parser


if __name__ == "__main__":
    sys.exit(main())
