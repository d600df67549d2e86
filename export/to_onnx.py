"""One network -> one ONNX file with dynamic batch, sequence and skills axes.

    python -m export.to_onnx runs/dkt-assist2017 sequence=/tmp/sequence.onnx
    python -m export.to_onnx runs/dkt-assist2017 step=/tmp/step.onnx ask=/tmp/ask.onnx
    python -m export.to_onnx runs/saint-plus-assist2017 remember=/tmp/remember.onnx

A process of its own for every graph with a sequence axis: in torch 2.13 a second LSTM export in one
process freezes that axis, and may do so silently. `export.publish` starts them and checks the axes
after.
"""

from __future__ import annotations

import argparse
import logging
import sys
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from export.calibrated import Calibrated
from export.notes import drop_notes
from models.contract.artifact import (
    ASK,
    BEGIN,
    RECALL,
    REMEMBER,
    SEQUENCE,
    STEP,
    Graph,
    Port,
)
from models.contract.calibration import Calibration
from models.contract.window import INPUTS
from models.evaluation.run import Run, open_run

OPSET = 23  # has Attention as one operator, which ONNX Runtime runs on CPU and CUDA

# Sizes of the traced example: none is 1 (a 1 would be frozen) and none is a size of the network.
_EXAMPLE = {"batch": 2, "sequence": 7, "skills": 3, "places": 5, "new": 4, "questions": 6}


class SequenceGraph(nn.Module):
    """Windows -> p_correct (B,), and the knowledge state (B, S) of a network that has one.

    Both are calibrated by the answers that each window shows.
    """

    def __init__(self, network: Any, calibration: Calibration) -> None:
        super().__init__()
        self.network = network
        self.calibrated = Calibrated(calibration)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Take the tensors of `INPUTS`, in their order."""
        mask = inputs[list(INPUTS).index("mask")]
        shown = mask.to(torch.int64).sum(dim=1) - 1  # the query is no answer
        if hasattr(self.network, "with_knowledge"):
            logits = self.network.with_knowledge(*inputs)
        else:
            logits = (self.network(*inputs),)
        return tuple(torch.sigmoid(self.calibrated(logit, shown)) for logit in logits)


class StepGraph(nn.Module):
    """A state and one answered place -> the state after it."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, *inputs: Tensor) -> Tensor:
        """Take the state, then the tensors of `INPUTS` without sequence axis or `mask`."""
        state, *one = inputs
        return self.network.step(state, *_as_one_place(one))  # type: ignore[no-any-return]


class AskGraph(nn.Module):
    """A state and a query -> what a `SequenceGraph` gives, from all that the state has seen."""

    def __init__(self, network: Any, calibration: Calibration) -> None:
        super().__init__()
        self.network = network
        self.calibrated = Calibrated(calibration)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Take the state, the query's tensors as a step's, and the number of answers in it."""
        state, *one, answers = inputs
        logits = self.network.ask(state, *_as_one_place(one))
        return tuple(torch.sigmoid(self.calibrated(logit, answers)) for logit in logits)


class RememberGraph(nn.Module):
    """What is kept of users, and new answered places -> their rows, and the next carry."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Take memory, kept and carry, then the tensors of `INPUTS` but for `mask`."""
        memory, kept, carry, *new = inputs
        return self.network.remember(memory, kept, carry, *_as_real(new))  # type: ignore[no-any-return]


class BeginGraph(nn.Module):
    """The first answered places of users -> their rows, and the carry after them."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Take the tensors of `INPUTS` but for `mask`."""
        return self.network.begin(*_as_real(inputs))  # type: ignore[no-any-return]


class RecallGraph(nn.Module):
    """What is kept of users, and questions to each -> what a `SequenceGraph` gives for each."""

    def __init__(self, network: Any, calibration: Calibration) -> None:
        super().__init__()
        self.network = network
        self.calibrated = Calibrated(calibration)

    def forward(self, *inputs: Tensor) -> Tensor:
        """Take memory, kept and carry, then the queries' tensors."""
        memory, kept, carry, *queries = inputs
        logit = self.network.recall(memory, kept, carry, *_as_real(queries))  # (B, N)
        shown = kept[:, None].expand_as(logit).reshape(-1)
        calibrated: Tensor = self.calibrated(logit.reshape(-1), shown)
        return torch.sigmoid(calibrated).view(logit.shape)


def graph_of(run: Run, name: str) -> tuple[nn.Module, Graph, tuple[Tensor, ...]]:
    """Return the module to trace, the ports its file may have, and example inputs.

    `name` is "sequence", "step", "ask", "remember", "recall" or "begin"; raises `ValueError` where
    the network has no such graph.
    """
    inputs = [Port(name=n, dtype=d.__name__.rstrip("_"), axes=a) for n, (d, a) in INPUTS.items()]
    outputs = [Port(name="p_correct", dtype="float32", axes=("batch",))]
    if hasattr(run.network, "with_knowledge"):
        states = run.vocabulary.n_skills - 1  # PAD has no column
        outputs.append(Port(name="knowledge_state", dtype="float32", axes=("batch", states)))
    if name == "sequence":
        ports = Graph(file=SEQUENCE, inputs=tuple(inputs), outputs=tuple(outputs))
        return SequenceGraph(run.network, run.calibration), ports, _example(ports)
    keeps = {"remember", "recall"} | ({"begin"} if hasattr(run.network, "begin") else set())
    if name in keeps and getattr(run.network, "remembers", False):
        return _around_memory(run, name, inputs, outputs)
    if name not in ("step", "ask") or not hasattr(run.network, "start_state"):
        raise ValueError(f"{run.kind} has no graph {name!r}")
    start = run.network.start_state()
    dtype = str(start.dtype).removeprefix("torch.")
    state = Port(name="state", dtype=dtype, axes=("batch", *start.shape))
    one = [
        Port(name=p.name, dtype=p.dtype, axes=tuple(a for a in p.axes if a != "sequence"))
        for p in inputs
        if p.name in _of_one_place()
    ]
    if name == "step":
        next_state = Port(name="next_state", dtype=dtype, axes=state.axes)
        ports = Graph(file=STEP, inputs=(state, *one), outputs=(next_state,))
        return StepGraph(run.network), ports, _example(ports)
    answers = Port(name="answers", dtype="int64", axes=("batch",))
    ports = Graph(file=ASK, inputs=(state, *one, answers), outputs=tuple(outputs))
    return AskGraph(run.network, run.calibration), ports, _example(ports)


def _around_memory(
    run: Run, name: str, inputs: list[Port], outputs: list[Port]
) -> tuple[nn.Module, Graph, tuple[Tensor, ...]]:
    """Return what `graph_of` does, of a network that remembers places."""
    start = run.network.start_carry()
    carry = Port(name="carry", dtype="float32", axes=("batch", *start.shape))
    memory = Port(name="memory", dtype="float32", axes=("batch", "places", run.network.row_width))
    count = Port(name="kept", dtype="int64", axes=("batch",))
    along = "questions" if name == "recall" else "new"
    places = [
        replace(p, axes=tuple(along if a == "sequence" else a for a in p.axes))
        for p in inputs
        if p.name in _of_one_place()
    ]
    kept = (memory, count, carry, *places)
    if name == "recall":
        asked = tuple(replace(p, axes=("batch", along)) for p in outputs)
        ports = Graph(file=RECALL, inputs=kept, outputs=asked)
        return RecallGraph(run.network, run.calibration), ports, _example(ports)
    rows = Port(name="rows", dtype="float32", axes=("batch", along, run.network.row_width))
    outputs = [rows, replace(carry, name="next_carry")]
    if name == "begin":
        ports = Graph(file=BEGIN, inputs=tuple(places), outputs=tuple(outputs))
        return BeginGraph(run.network), ports, _example(ports)
    ports = Graph(file=REMEMBER, inputs=kept, outputs=tuple(outputs))
    return RememberGraph(run.network), ports, _example(ports)


def ports_of(path: Path, ports: Graph) -> Graph:
    """Return those ports that the file at `path` has: an input that nobody reads is left out."""
    names = {v.name for v in onnx.load(str(path), load_external_data=False).graph.input}
    return replace(ports, inputs=tuple(p for p in ports.inputs if p.name in names))


def export(run: Run, name: str, path: Path) -> None:
    """Write the graph `name` of a run to `path`, its axes named as its ports say."""
    module, ports, example = graph_of(run, name)
    axes = [
        {i: torch.export.Dim.DYNAMIC for i, axis in enumerate(p.axes) if isinstance(axis, str)}
        for p in ports.inputs
    ]
    torch.backends.mha.set_fastpath_enabled(False)
    with torch.no_grad():
        program = torch.onnx.export(
            module.eval(),
            example,
            dynamo=True,
            opset_version=OPSET,
            input_names=[p.name for p in ports.inputs],
            output_names=[p.name for p in ports.outputs],
            dynamic_shapes=(tuple(axes),),  # nested: *inputs is one argument, a tuple
            optimize=True,
            verbose=False,
        )
    if program is None:
        raise RuntimeError(f"torch gave no graph for {name}")
    model = program.model_proto
    _name_axes(model, ports)
    _drop_unread(model)
    drop_notes(model)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(path))


def _as_one_place(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return the tensors of one place each as a network reads them: with a sequence axis of 1."""
    return _as_real([t[:, None] for t in tensors])


def _as_real(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return the tensors of places that are all real as a network reads them: with a mask."""
    places = dict(zip(_of_one_place(), tensors, strict=True))
    places["mask"] = torch.ones_like(places["question"], dtype=torch.bool)
    return [places[name] for name in INPUTS]


def _of_one_place() -> list[str]:
    """Return the inputs of a step: a single place needs no mask."""
    return [name for name in INPUTS if name != "mask"]


def _example(ports: Graph) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    example = []
    for port in ports.inputs:
        shape = [_EXAMPLE[a] if isinstance(a, str) else a for a in port.axes]
        if port.dtype == "int64":
            example.append(torch.ones(shape, dtype=torch.int64))
        elif port.dtype == "bool":
            example.append(torch.ones(shape, dtype=torch.bool))
        else:
            values = torch.rand(shape, generator=generator)
            example.append(values.double() if port.dtype == "float64" else values)
    return tuple(example)


def _name_axes(model: onnx.ModelProto, ports: Graph) -> None:
    """Write the ports' axes into the file: the exporter declares some outputs with traced sizes."""
    model.graph.ClearField("value_info")  # holds traced sizes too; it is inferred again below
    for values, declared in (
        (model.graph.input, ports.inputs),
        (model.graph.output, ports.outputs),
    ):
        if [v.name for v in values] != [p.name for p in declared]:
            raise RuntimeError(
                f"the graph has {[v.name for v in values]}, not {[p.name for p in declared]}"
            )
        for value, port in zip(values, declared, strict=True):
            shape = value.type.tensor_type.shape
            shape.ClearField("dim")
            for axis in port.axes:
                if isinstance(axis, str):
                    shape.dim.add(dim_param=axis)
                else:
                    shape.dim.add(dim_value=axis)
    model.CopyFrom(onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True))


def _drop_unread(model: onnx.ModelProto) -> None:
    """Take out the inputs that no node reads: a server need not make them."""
    read = {name for node in model.graph.node for name in node.input}
    kept = [v for v in model.graph.input if v.name in read]
    model.graph.ClearField("input")
    model.graph.input.extend(kept)


def main(arguments: list[str] | None = None) -> int:
    """Export graphs by the command line."""
    parser = argparse.ArgumentParser(prog="python -m export.to_onnx", description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("graphs", nargs="+", metavar="GRAPH=FILE", help="sequence, or step and ask")
    given = parser.parse_args(arguments)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")  # torch's own deprecations; the parity check judges the result
    run = open_run(given.run)
    for graph in given.graphs:
        name, _, path = graph.partition("=")
        export(run, name, Path(path))
    return 0


if __name__ == "__main__":
    sys.exit(main())
