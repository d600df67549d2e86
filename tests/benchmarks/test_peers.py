"""ktserve and its peers answer alike, or nothing is measured."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from app.records import Answer, records_of
from benchmarks.load import answers_of
from benchmarks.peers import __main__ as command
from benchmarks.peers.graph import Graph
from benchmarks.peers.measuring import Contender, Question, Unlike, compare
from benchmarks.peers.network import Network
from benchmarks.peers.running import PEERS
from benchmarks.server import ROOT, empty_server
from models.contract.artifact import VOCABULARY
from models.contract.vocabulary import Vocabulary
from tests.app.conftest import SHIPPED

DKT = SHIPPED["dkt"]


@pytest.mark.slow
def test_peers_of_ktserve_stand_beside_it(tmp_path, capsys):
    """The plain one, here; it gave the same probabilities over HTTP before it was measured."""
    out, picture = tmp_path / "peers.json", tmp_path / "peers.png"
    few = ["--here", "--peers", "fastapi-onnx", "--histories", "30"]
    short = ["--rounds", "1", "--seconds", "0.1", "--callers", "3"]

    assert command.main([*few, *short, "--out", str(out), "--picture", str(picture)]) == 0
    found = json.loads(out.read_text())
    assert [(r["history"], r["server"]) for r in found["rows"]] == [
        (30, "ktserve"),
        (30, "fastapi-onnx"),
    ]
    assert all(r["per_second"][0] > 0 < r["p50_ms"][0] for r in found["rows"])
    assert found["peers"]["fastapi-onnx"]["furthest_from_ktserve"] <= 1e-5
    assert found["peers"]["fastapi-onnx"]["versions"]["onnxruntime"].startswith("1.32")
    assert picture.stat().st_size > 1000
    assert "fastapi-onnx" in capsys.readouterr().out


@pytest.mark.parametrize("lengths", [(0,), (40,), (1, 7, 200)])
def test_the_torch_peer_is_the_graph(lengths):
    """Its weights are read out of the graph: alone and padded in a batch, the same numbers."""
    vocabulary = Vocabulary.load(DKT / VOCABULARY)
    histories = [
        records_of([Answer(**a) for a in answers_of(vocabulary, n, seed=n)]).interactions.tobytes()
        for n in lengths
    ]
    asked = vocabulary.question_ids[: len(lengths)]

    graph, network = Graph(DKT).predict(histories, asked), Network(DKT).predict(histories, asked)

    assert len(graph) == len(lengths)
    np.testing.assert_allclose(network, graph, atol=1e-5, rtol=0)


def test_servers_that_answer_otherwise_are_not_measured():
    """Who is right does not matter: they would not do the same work."""
    asked = [Question("u", "1"), Question("u", "2")]
    with empty_server() as server:
        half = Contender(
            name="half", url=server.url, body=_body, p_correct=lambda content: content["p_correct"]
        )
        other = replace(half, name="other", p_correct=lambda content: content["p_correct"] + 2e-5)

        assert compare([half, half], asked) == {"half": 0.0}
        with pytest.raises(Unlike, match="other is 2e-05 from half"):
            compare([half, other], asked)


def test_a_peer_without_its_environment_is_told(tmp_path, capsys):
    """In one line, with exit code 1."""
    assert command.main(["--environments", str(tmp_path), "--peers", "bentoml"]) == 1
    assert "bentoml: there is no" in capsys.readouterr().err


@pytest.mark.parametrize("peer", [peer.name for peer in PEERS])
def test_environments_of_peers_are_pinned(peer):
    """Every line names one version, and none an address; `make` knows the peer."""
    lines = (ROOT / f"benchmarks/peers/requirements-{peer}.txt").read_text().splitlines()
    pins = [line for line in lines if not line.startswith("#")]

    assert pins
    assert all(line.count("==") == 1 and "/" not in line for line in pins)
    assert f" {peer}" in (ROOT / "Makefile").read_text().split("PEERS", 1)[1].splitlines()[0]


def _body(user_id: str, question_id: str) -> dict[str, str]:
    return {"user_id": user_id, "question_id": question_id}
