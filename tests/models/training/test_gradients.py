"""The picture of the first steps shows what was measured."""

import math

import numpy as np
import pytest

from models.datasets.simulator import simulate
from models.training.gradients import Trace, batches_of, main, network_for, picture, table, trace
from tests.refused import last_words

DATA = simulate(users=40, answers=20, questions=15, skills=4, seed=0).dataset


def traced(norm: str, *, layers: int, lr: float = 2e-3, steps: int = 6) -> Trace:
    network = network_for(DATA, norm, layers=layers, width=16, seed=0)
    return trace(network, batches_of(DATA, seed=0), lr=lr, steps=steps)


def test_every_layer_of_both_sides_is_measured_in_every_step():
    found = traced("layer", layers=3)

    assert found.layers == tuple(f"{s} {n}" for s in ("encoder", "decoder") for n in (1, 2, 3))
    assert np.shape(found.activation) == np.shape(found.gradient) == (6, 6)
    assert len(found.loss) == 6
    assert np.isfinite(found.gradient).all()


def test_all_three_see_the_same_batches_from_the_same_seed():
    first = traced("t_fixup", layers=2)

    assert traced("t_fixup", layers=2) == first
    assert [b.right.sum() for b, _ in zip(batches_of(DATA, seed=0), range(5), strict=False)] == [
        b.right.sum() for b, _ in zip(batches_of(DATA, seed=0), range(5), strict=False)
    ]


def test_gradients_of_a_deep_network_grow_unless_something_holds_them():
    """At the first step already, before anything was learned."""
    largest = {n: max(traced(n, layers=8, steps=1).gradient[0]) for n in ("t_fixup", "none")}

    assert largest["none"] > 100 * largest["t_fixup"]


def test_a_network_whose_loss_is_no_number_stops_there():
    found = traced("none", layers=8, lr=1.0, steps=50)

    assert len(found.loss) < 50
    assert not math.isfinite(found.loss[-1])
    assert all(math.isfinite(loss) for loss in found.loss[:-1])
    assert picture({"none": found}).axes[0].lines


def test_the_table_has_a_column_a_network_and_says_where_one_ended():
    traces = {
        "layer": Trace((), [0.5] * 20, [], []),
        "none": Trace((), [0.5, 9.0, math.nan], [], []),
    }

    steps, layer_norm, neither = (list(c.cells) for c in table(traces).columns)

    assert steps[:2] == ["1 to 2", "3 to 4"]
    assert layer_norm == ["0.500"] * 10
    assert neither == ["4.750", "nan", *["ended"] * 8]


def test_the_command_draws_and_prints(tmp_path, capsys):
    out = tmp_path / "gradients.png"

    assert main([str(out), "--layers", "2", "--width", "16", "--steps", "4"]) == 0

    assert out.read_bytes().startswith(b"\x89PNG")
    assert "T-Fixup" in capsys.readouterr().out


@pytest.mark.parametrize("unknown", ["nowhere", "nowhere.csv"])
def test_a_set_that_is_not_there_is_named(tmp_path, capsys, unknown):
    assert main([str(tmp_path / "x.png"), "--set", unknown]) == 1
    assert unknown in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["x.xyz"], "x.xyz: must end in .png or .svg"),
        (["nodir/x.png"], "there is no folder nodir"),
        (["x.png", "--steps", "0"], "--steps: 0: must be at least 1"),
        (["x.png", "--layers", "0"], "--layers: 0"),
        (["x.png", "--width", "0"], "--width: 0"),
        (["x.png", "--width", "15"], "width 15"),
        (["x.png", "--lr", "0"], "--lr: 0"),
        (["x.png", "--seed", "-1"], "--seed: -1"),
    ],
)
def test_a_picture_that_cannot_be_is_refused(tmp_path, monkeypatch, capsys, arguments, said):
    monkeypatch.chdir(tmp_path)

    assert said in last_words(main, arguments, capsys)
    assert list(tmp_path.iterdir()) == []
