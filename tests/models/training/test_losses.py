"""What is minimised, against the formulas by hand."""

import torch

from models.training.losses import answer_loss, reconstruction, waviness


def test_only_scored_places_count():
    logit = torch.tensor([[0.0, 5.0], [-5.0, 9.0]])
    right = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    scored = torch.tensor([[1.0, 0.0], [0.0, 0.0]])

    assert torch.isclose(answer_loss(logit, right, scored), torch.log(torch.tensor(2.0)))


def test_reconstruction_reads_the_state_after_the_answer():
    """The state at t + 1 is the one that has seen answer t; the last answer has no state after."""
    knowledge = torch.tensor([[[9.0, 9.0], [2.0, 9.0], [9.0, -1.0]]])  # (1, 3, 2): UNSEEN, skill 2
    skills = torch.tensor([[[1], [2], [1]]])
    right = torch.tensor([[1.0, 0.0, 1.0]])
    mask = torch.tensor([[True, True, True]])

    loss = reconstruction(knowledge, skills, right, mask)

    first = -torch.log(torch.sigmoid(torch.tensor(2.0)))
    second = -torch.log(1 - torch.sigmoid(torch.tensor(-1.0)))
    assert torch.isclose(loss, (first + second) / 2)


def test_waviness_counts_true_steps_alone():
    state = torch.tensor([[[0.5, 0.5], [0.7, 0.4], [0.9, 0.9]]])
    mask = torch.tensor([[True, True, False]])

    l1, l2 = waviness(torch.logit(state), mask)

    assert torch.isclose(l1, torch.tensor(0.15))
    assert torch.isclose(l2, torch.tensor((0.04 + 0.01) / 2))
