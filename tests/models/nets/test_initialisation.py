"""Weights start so that inputs neither grow nor vanish."""

import torch
from torch import nn

from models.nets import build
from models.nets.initialisation import initialise


def test_a_relu_layer_keeps_the_scale_of_its_input():
    torch.manual_seed(0)
    stack = nn.ModuleDict({"rise": nn.Linear(512, 512)})
    initialise(stack)

    out = torch.relu(stack["rise"](torch.randn(256, 512)))

    assert 0.8 < out.square().mean() < 1.2  # Kaiming keeps the second moment


def test_recurrences_start_orthogonal_with_open_forget_gates():
    network = build("dkt", {"n_questions": 5, "n_skills": 5, "hidden": 8})
    lstm = network.recurrence.lstm

    for gate in lstm.weight_hh_l0.chunk(4):
        torch.testing.assert_close(gate @ gate.T, torch.eye(8), atol=1e-5, rtol=0)
    assert lstm.bias_ih_l0[8:16].eq(1).all()
    assert lstm.bias_hh_l0.eq(0).all()


def test_padding_rows_of_embeddings_are_zero():
    network = build("saint_plus", {"n_questions": 5, "n_skills": 5, "width": 8})

    assert network.skills.table.weight[0].abs().sum() == 0
    assert 0.5 < network.skills.table.weight[1:].std() / 8**-0.5 < 1.5
