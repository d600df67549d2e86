"""What a /predict costs beside its floors: the bare `session.run`, and the empty route.

    make bench
    python -m benchmarks.serving --rounds 5 --calls 200

One caller, on the machine that serves, over one connection. Everything that is compared is measured
in turns within one run; compare ratios, not milliseconds. Writes bench-results/serving.json.
"""

from __future__ import annotations

import argparse
import http.client
import json
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import onnxruntime
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from app.engine.artifact import Artifact, open_artifact
from app.engine.versions import newest_versions
from app.records import Answer, records_of
from benchmarks.report import machine, middle
from benchmarks.server import ROOT, empty_server, own_server
from models.commands import picture_to_write
from models.contract.window import collate, window_of

Call = Callable[[], object]

HISTORIES = (0, 20, 100, 200, 800, 1728)


def main(arguments: list[str] | None = None) -> int:
    """Measure, print a table, write the figures."""
    given = _parser().parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 180)
    found = measure(given.rounds, given.calls, console)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    console.print(_table(found))
    if given.picture is not None:
        picture(found["rows"]).savefig(given.picture, dpi=110)
    console.print(f"written to {given.out}")
    return 0


def measure(rounds: int, calls: int, console: Console) -> dict[str, Any]:
    """Return medians, in milliseconds, of every call over the rounds, and their ratios."""
    artifacts = [open_artifact(f, "cpu", 1) for f in newest_versions(ROOT / "artifacts")]
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="ktserve-bench-"))
        server = stack.enter_context(own_server(Path(folder), {"KT_LOG_LEVEL": "warning"}))
        floor = stack.enter_context(empty_server()).url
        ours, empty = _connection(server.url), _connection(floor)
        stack.callback(ours.close)
        stack.callback(empty.close)
        todo: dict[str, Call] = {"empty route": _post(empty, {"user_id": "u", "question_id": "1"})}
        for n in HISTORIES:
            answers = _answers(artifacts[0], n)
            for first in range(0, n, 1000):
                part = {"interactions": answers[first : first + 1000]}
                _post(ours, part, f"/users/bench-{n}/interactions")()
            for artifact in artifacts:
                name = artifact.manifest.name
                question = {"question_id": _question(artifact), "model": name}
                ask = {"user_id": f"bench-{n}", **question}
                inline = {"history": answers, **question, "knowledge_state": False}
                todo[f"{name} {n} inline"] = _post(ours, inline)
                todo[f"{name} {n} bare"] = _bare(artifact, answers)
                todo[f"{name} {n} predict"] = _post(ours, {**ask, "knowledge_state": False})
                todo[f"{name} {n} with vector"] = _post(ours, ask)
        spent: dict[str, list[float]] = {name: [] for name in todo}
        for _ in track(range(rounds), "rounds", console=console, transient=True):
            for name, call in todo.items():
                spent[name].append(_median_ms(call, calls))
    return _report(spent, artifacts, rounds, calls)


def _report(
    spent: dict[str, list[float]], artifacts: list[Artifact], rounds: int, calls: int
) -> dict[str, Any]:
    rows = []
    for artifact in artifacts:
        name = artifact.manifest.name
        for n in HISTORIES:
            bare, inline, alone, vector = (
                spent[f"{name} {n} {what}"] for what in ("bare", "inline", "predict", "with vector")
            )
            rows.append(
                {
                    "model": name,
                    "history": n,
                    "bare_ms": middle(bare),
                    "predict_ms": middle(alone),
                    "with_vector_ms": middle(vector),
                    "predict_over_bare": _ratios(alone, bare),
                    "with_vector_over_bare": _ratios(vector, bare),
                    "inline_ms": middle(inline),
                    "inline_minus_bare_ms": _differences(inline, bare),
                    "predict_minus_bare_ms": _differences(alone, bare),
                }
            )
    return {
        "what": "median time of one call, one caller",
        "machine": machine(),
        "rounds": rounds,
        "calls_a_round": calls,
        "empty_route_ms": middle(spent["empty route"]),
        "rows": rows,
    }


def _ratios(above: list[float], below: list[float]) -> list[float]:
    return middle([a / b for a, b in zip(above, below, strict=True)])


def _differences(above: list[float], below: list[float]) -> list[float]:
    return middle([a - b for a, b in zip(above, below, strict=True)])


def _median_ms(call: Call, times: int) -> float:
    call()
    spent = np.empty(times)
    for i in range(times):
        began = perf_counter()
        call()
        spent[i] = perf_counter() - began
    return float(np.median(spent)) * 1000


def _answers(artifact: Artifact, n: int) -> list[dict[str, Any]]:
    """Return answers to questions that the model knows, half a minute apart."""
    ids = artifact.vocabulary.question_ids
    rng = np.random.default_rng(n)
    return [
        {
            "question_id": ids[int(rng.integers(len(ids)))],
            "correct": bool(rng.random() < 0.6),
            "asked_ms": 1_600_000_000_000 + 30_000 * i,
        }
        for i in range(n)
    ]


def _question(artifact: Artifact) -> str:
    return artifact.vocabulary.question_ids[7]


def _bare(artifact: Artifact, answers: list[dict[str, Any]]) -> Call:
    """Return the very run that a /predict needs, its window made beforehand."""
    records = records_of([Answer(**a) for a in answers])
    rule, vocabulary = artifact.manifest.window, artifact.vocabulary
    history = vocabulary.read(records.interactions)
    window = window_of(
        history, vocabulary.query(_question(artifact)), length=rule.length, cut=rule.cut
    )
    batch: dict[str, NDArray[Any]] = collate([window], artifact.scorer.side)
    session: onnxruntime.InferenceSession = artifact.scorer.session
    inputs = {node.name: batch[node.name] for node in session.get_inputs()}
    return lambda: session.run(None, inputs)


def _connection(url: str) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)


def _post(connection: http.client.HTTPConnection, body: Any, path: str = "/predict") -> Call:
    content, headers = json.dumps(body).encode(), {"content-type": "application/json"}

    def call() -> bytes:
        try:
            connection.request("POST", path, content, headers)
            answer = connection.getresponse()
        except (BrokenPipeError, ConnectionResetError, http.client.RemoteDisconnected):
            connection.close()  # idle for too long while others were measured: it opens again
            connection.request("POST", path, content, headers)
            answer = connection.getresponse()
        text = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{path} answered {answer.status}: {text.decode()}")
        return text

    return call


def picture(rows: list[dict[str, Any]]) -> Figure:
    """Return the figure: the time of a call against the history it stands on, by model."""
    models = sorted({row["model"] for row in rows})
    figure = Figure(figsize=(3 * len(models), 3.2), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, len(models), sharey=True))
    for axes, model in zip(panels, models, strict=True):
        of_model = [row for row in rows if row["model"] == model]
        for what, label in (("inline", "inline"), ("bare", "bare run"), ("predict", "stored")):
            middles = [row[f"{what}_ms"][0] for row in of_model]
            axes.plot([row["history"] for row in of_model], middles, marker=".", label=label)
        axes.set_yscale("log")
        axes.set_title(model, fontsize="medium")
        axes.set_xlabel("answers")
        axes.grid(alpha=0.3, which="both")
    panels[0].set_ylabel("p50 ms, one caller")
    panels[0].legend(fontsize="small")
    return figure


def _table(found: dict[str, Any]) -> Table:
    title = (
        escape(f"median ms [least, most of {found['rounds']} rounds]; {found['machine']}; ")
        + f"empty route {_shown(found['empty_route_ms'])}"
    )
    columns = (
        *("model", "history", "bare run", "inline", "minus bare"),
        *("stored", "minus bare", "with vector", "over bare"),
    )
    table = Table(*columns, title=title)
    for row in found["rows"]:
        table.add_row(
            row["model"],
            str(row["history"]),
            *(
                _shown(row[k])
                for k in (
                    "bare_ms",
                    "inline_ms",
                    "inline_minus_bare_ms",
                    "predict_ms",
                    "predict_minus_bare_ms",
                    "with_vector_ms",
                    "with_vector_over_bare",
                )
            ),
        )
    return table


def _shown(middle: list[float]) -> str:
    return escape(f"{middle[0]:.2f} [{middle[1]:.2f}, {middle[2]:.2f}]")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.serving",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=200, help="calls of each kind in a round")
    parser.add_argument("--picture", type=picture_to_write, help="PNG or SVG: cost by history")
    parser.add_argument("--out", type=Path, default=Path("bench-results/serving.json"))
    return parser


if __name__ == "__main__":
    sys.exit(main())
