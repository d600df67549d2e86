"""Is the exported graph the trained network, calibrated? Asked over shapes the trace never saw.

Every check raises `ParityFailed`; what fails here is never published.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray

from models.contract.artifact import Graph
from models.contract.counts import counts_of
from models.contract.interaction import RIGHT, UNKNOWN, UNSEEN, WRONG
from models.contract.logit import p_of
from models.contract.window import MISSING_S, Side, Window, collate
from models.evaluation.predictions import tensors
from models.evaluation.run import Run

BATCHES = (1, 2, 3, 7, 32)
LENGTHS = (1, 2, 7, 50, 200, 1728)
SIDES: tuple[Side, ...] = ("right", "left")
STEPS = 50
TOLERANCE = 1e-5  # on probabilities

Arrays = dict[str, NDArray[Any]]


class ParityFailed(RuntimeError):
    """The graph is not the network: it must not be published."""


class Case(NamedTuple):
    """One batch, and what the trained network says of it."""

    batch: Arrays
    expected: Arrays


def check_sequence(run: Run, path: Path, ports: Graph) -> dict[str, Any]:
    """Compare a sequence graph with its network over the whole grid; return what was run."""
    check_axes(path, ports)
    session = session_of(path)
    largest, cases = 0.0, 0
    for case in grid(run):
        found = dict(
            zip(
                [p.name for p in ports.outputs],
                session.run(None, read_by(session, case.batch)),
                strict=True,
            )
        )
        largest = max(largest, _difference(case, found, case.batch["mask"].shape))
        cases += 1
    return {
        "cases": cases,
        "batch_sizes": list(BATCHES),
        "lengths": list(lengths(run)),
        "sides": list(SIDES),
        "largest_difference": largest,
        "tolerance": TOLERANCE,
    }


def check_state(run: Run, step: Path, ask: Path, graphs: Mapping[str, Graph]) -> dict[str, Any]:
    """Fold a step graph over histories, ask at every place, and compare with whole windows."""
    check_axes(step, graphs["step"])
    check_axes(ask, graphs["ask"])
    stepping, asking = session_of(step), session_of(ask)
    outputs = [p.name for p in graphs["ask"].outputs]
    rng = np.random.default_rng(1)
    largest, asked = 0.0, 0
    for rows in (1, 3):
        batch = collate(drawn_windows(run, rng, [STEPS + 1] * rows))
        state = np.repeat(start_state(run)[None], rows, axis=0)
        for place in range(STEPS + 1):
            one = {n: batch[n][:, place] for n in batch if n != "mask"}
            one |= {"state": state, "answers": np.full(rows, place)}
            if place in (0, 1, 2, STEPS // 2, STEPS):
                window = _upto(batch, place)
                query = one | {n: window[n][:, place] for n in ("response", "elapsed_s")}
                found = asking.run(outputs, read_by(asking, query))
                case = Case(window, answer(run, window))
                found_by_name = dict(zip(outputs, found, strict=True))
                largest = max(largest, _difference(case, found_by_name, (rows, place + 1)))
                asked += 1
            state = stepping.run(["next_state"], read_by(stepping, one))[0]
    return {"cases": asked, "steps": STEPS, "largest_difference": largest, "tolerance": TOLERANCE}


def check_memory(run: Run, folder: Path, graphs: Mapping[str, Graph]) -> dict[str, Any]:
    """Remember histories in parts, recall between them, and compare with whole windows.

    Behind the rows stands what must not be seen. Where there is a graph to begin with, each first
    part is remembered both ways.
    """
    for graph in graphs.values():
        check_axes(folder / graph.file, graph)
    sessions = {name: session_of(folder / graph.file) for name, graph in graphs.items()}
    rng = np.random.default_rng(3)
    largest, asked = 0.0, 0
    longest = min(200, run.window.length)
    for parts in ([1] * 9, [longest - 2, 1], [longest // 2, 3, longest - longest // 2 - 4]):
        users = 1 + len(parts) % 3
        batch = collate(drawn_windows(run, rng, [longest] * users))
        for first in sorted({"remember", "begin"} & graphs.keys()):
            start = run.network.start_carry().detach().numpy()
            rows = np.zeros((users, 0, run.network.row_width), np.float32)
            carry, place, name = np.repeat(start[None], users, axis=0), 0, first
            for new in [*parts, 0]:
                noise = rng.normal(size=(users, len(parts), rows.shape[2])).astype(np.float32)
                memory = np.concatenate([rows, noise], axis=1)
                kept = {"memory": memory, "kept": np.full(users, place), "carry": carry}
                window = _upto(batch, place)
                expected = answer(run, window)["p_correct"]
                for questions in (1, 3):
                    query = {n: np.repeat(window[n][:, place:], questions, axis=1) for n in window}
                    found = sessions["recall"].run(None, read_by(sessions["recall"], kept | query))
                    case = Case(window, {"p_correct": expected[:, None].repeat(questions, axis=1)})
                    gap = _difference(case, {"p_correct": found[0]}, (questions, place + 1))
                    largest = max(largest, gap)
                    asked += 1
                if new:
                    answered = {n: a[:, place : place + new] for n, a in batch.items()}
                    more, carry = sessions[name].run(None, read_by(sessions[name], kept | answered))
                    rows, name = np.concatenate([rows, more], axis=1), "remember"
                place += new
    return {
        "cases": asked,
        "places": longest,
        "largest_difference": largest,
        "tolerance": TOLERANCE,
    }


def check_axes(path: Path, ports: Graph) -> None:
    """Raise unless the file declares every axis as its ports do: dynamic ones by name."""
    graph = onnx.load(str(path), load_external_data=False).graph
    for values, declared in ((graph.input, ports.inputs), (graph.output, ports.outputs)):
        for value, port in zip(values, declared, strict=True):
            axes = tuple(d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim)
            if axes != port.axes:
                raise ParityFailed(f"{path.name}: {value.name} has axes {axes}, not {port.axes}")


def grid(run: Run) -> Iterator[Case]:
    """Yield every batch size, length and side; rows differ in length, some have no history."""
    rng = np.random.default_rng(0)
    for length in lengths(run):
        for rows in BATCHES:
            shorter = rng.integers(1, length + 1, rows - 1).tolist()
            windows = drawn_windows(run, rng, [length, *shorter])
            by_side = [collate(windows, side) for side in SIDES]
            expected = answer(run, by_side[0])
            yield from (Case(batch, expected) for batch in by_side)


def golden(run: Run) -> list[Case]:
    """Return the few cases that travel with an artifact: cold start, both sides, mixed lengths."""
    rng = np.random.default_rng(2)
    longest = min(50, run.window.length)
    shapes: list[tuple[list[int], Side]] = [
        ([1], "right"),
        ([2, 1], "left"),
        ([min(9, longest), 3, 1], "left"),
        ([longest, min(20, longest), 1, 2], "right"),
    ]
    batches = [collate(drawn_windows(run, rng, sizes), side) for sizes, side in shapes]
    return [Case(batch, answer(run, batch)) for batch in batches]


def lengths(run: Run) -> tuple[int, ...]:
    """Return the lengths of the grid that this model's windows can have."""
    return tuple(n for n in LENGTHS if n <= run.window.length)


def answer(run: Run, batch: Arrays) -> Arrays:
    """Return what the trained network, calibrated, says of a batch, as its graph should."""
    with torch.inference_mode():
        inputs = tensors(batch)
        if hasattr(run.network, "with_knowledge"):
            logit, knowledge = run.network.with_knowledge(*inputs)
            logits = {"p_correct": logit, "knowledge_state": knowledge}
        else:
            logits = {"p_correct": run.network(*inputs)}
    shown = batch["mask"].sum(axis=1) - 1
    calibrated = {n: run.calibration.apply(z.numpy(), shown) for n, z in logits.items()}
    return {n: p_of(logit).astype(np.float32) for n, logit in calibrated.items()}


def start_state(run: Run) -> NDArray[np.floating[Any]]:
    """Return a network's state before any answer, without a batch axis."""
    return run.network.start_state().detach().numpy()  # type: ignore[no-any-return]


def drawn_windows(run: Run, rng: np.random.Generator, sizes: list[int]) -> list[Window]:
    """Return random windows of these lengths: unseen ids, missing and extreme times among them."""
    questions, skills = run.vocabulary.n_questions, run.vocabulary.n_skills
    windows = []
    for size in sizes:
        named = rng.integers(UNSEEN, skills, (size, 3))
        named[:, 1:] *= rng.random((size, 2)) < 0.3  # mostly one skill, sometimes two or three
        response = rng.integers(WRONG, RIGHT + 1, size)
        response[-1] = UNKNOWN
        times = np.exp(rng.uniform(-2, 18, (2, size))).astype(np.float32)  # to two years
        times[rng.random((2, size)) < 0.2] = MISSING_S
        question = rng.integers(UNSEEN, questions, size)
        windows.append(
            Window(
                question=question,
                skills=named,
                response=response,
                lag_s=times[0],
                elapsed_s=np.append(times[1, :-1], np.float32(MISSING_S)),
                counts=counts_of(question, named, response, run.vocabulary.difficulty[question]),
            )
        )
    return windows


def _difference(case: Case, found: Arrays, shape: tuple[int, ...]) -> float:
    largest = 0.0
    for name, expected in case.expected.items():
        if found[name].shape != expected.shape:
            raise ParityFailed(
                f"{name} has shape {found[name].shape}, not {expected.shape}, for windows {shape}"
            )
        gap = float(np.abs(found[name] - expected).max())
        if not gap <= TOLERANCE:  # NaN is not either
            raise ParityFailed(f"{name} is {gap:.2e} off for windows {shape}; allowed {TOLERANCE}")
        largest = max(largest, gap)
    return largest


def _upto(batch: Arrays, place: int) -> Arrays:
    """Return whole windows cut after a place, which becomes their query."""
    window = {n: a[:, : place + 1].copy() for n, a in batch.items()}
    window["response"][:, place] = UNKNOWN
    window["elapsed_s"][:, place] = MISSING_S
    return window


def read_by(session: onnxruntime.InferenceSession, arrays: Arrays) -> Arrays:
    """Return of `arrays` what a graph reads."""
    return {port.name: arrays[port.name] for port in session.get_inputs()}


def session_of(path: Path) -> onnxruntime.InferenceSession:
    """Open a graph on the processor."""
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
