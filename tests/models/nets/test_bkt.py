"""BKT says what the paper's formulas say, and never what no chance could be."""

import numpy as np
import pytest
import torch

from models.contract.counts import N_COUNTS
from models.contract.interaction import RIGHT, UNKNOWN, WRONG
from models.contract.window import Window, collate
from models.evaluation.predictions import tensors
from models.nets import build
from models.nets.bkt import SkillParameters

UNSEEN, ADD, TIMES = 1, 2, 3


def network_of(forget: float = 0.0, **options) -> torch.nn.Module:
    """Every skill: prior 0.4, learn 0.2, guess 0.25, slip 0.1."""
    sizes = {"n_questions": 9, "n_skills": 4, "max_slip": 0.2, "forgets": forget > 0}
    network = build("bkt", {**sizes, **options}).eval()
    chances = (0.4, 0.2, forget, 0.25, 0.1)
    network.take(SkillParameters(*(torch.full((3,), c, dtype=torch.float64) for c in chances)))
    return network


def window(skills: list[list[int]], responses: list[int]) -> Window:
    """Answers, and one query more: `skills` has a row for it, `responses` has none."""
    n = len(skills)
    named = np.zeros((n, 3), np.int64)
    for row, members in zip(named, skills, strict=True):
        row[: len(members)] = members
    response = np.array([*responses, UNKNOWN])
    missing = np.full(n, -1, np.float32)
    uncounted = np.zeros((n, N_COUNTS), np.float32)
    return Window(np.full(n, 2), named, response, missing, missing, uncounted)


def p_correct(network: torch.nn.Module, *windows: Window) -> np.ndarray:
    with torch.inference_mode():
        return torch.sigmoid(network(*tensors(collate(windows)))).numpy()


@pytest.mark.parametrize(
    ("forget", "by_hand"),
    [
        # 0.4 * 0.9 + 0.6 * 0.25 = 0.51; a right answer: 0.36 / 0.51 = 0.705882 known, with
        # learning 0.764706, so 0.688235 + 0.058824; a wrong one: 0.076471 / 0.252941 = 0.302326
        # known, with learning 0.441860, so 0.397674 + 0.139535.
        (0.0, [0.510000, 0.747059, 0.537209]),
        # 0.705882 * 0.95 + 0.294118 * 0.2 = 0.729412; 0.072941 / 0.275882 = 0.264392, and
        # 0.264392 * 0.95 + 0.735608 * 0.2 = 0.398294.
        (0.05, [0.510000, 0.724118, 0.508891]),
    ],
)
def test_chances_are_those_computed_by_hand(forget, by_hand):
    """Before any answer, after a right one, and after a wrong one behind it."""
    network = network_of(forget)
    answered = [RIGHT, WRONG]

    found = [p_correct(network, window([[ADD]] * (n + 1), answered[:n]))[0] for n in range(3)]

    assert found == pytest.approx(by_hand, abs=1e-6)


def test_an_answer_moves_every_skill_of_its_set_and_no_other():
    """Each as if the question had asked for it alone; the asked set's chance is their mean."""
    network = network_of()
    asked_both = window([[ADD, UNSEEN], [ADD, TIMES]], [RIGHT])
    with torch.inference_mode():
        logit, knowledge = network.with_knowledge(*tensors(collate([asked_both])))

    found = torch.sigmoid(knowledge)[0].tolist()
    assert found == pytest.approx([0.747059, 0.747059, 0.51], abs=1e-6)  # UNSEEN, ADD, TIMES
    assert torch.sigmoid(logit).item() == pytest.approx((0.747059 + 0.51) / 2, abs=1e-6)


def test_a_skill_named_twice_in_a_set_is_touched_once():
    network = network_of()
    once, twice = (
        window([[ADD], [ADD, TIMES]], [RIGHT]),
        window([[ADD] * 3, [ADD, ADD, TIMES]], [1]),
    )

    found = p_correct(network, once, twice)

    assert found[0] == pytest.approx(found[1], abs=1e-7)


def test_a_hundred_right_answers_are_outweighed_by_as_many_wrong_ones():
    """The weight of not knowing falls below the smallest float on the way, and is not lost."""
    network = network_of()
    answered = [RIGHT] * 100 + [WRONG] * 150
    before, after = (
        p_correct(network, window([[ADD]] * (n + 1), answered[:n])) for n in (150, 250)
    )

    assert before == pytest.approx(0.9, abs=0.01)  # still known: only slips
    # Not known, but for the 0.2 learned since: p = L / 10, again and again, ends at L near 0.23.
    assert after == pytest.approx(0.25 + 0.65 * 0.2297, abs=0.01)


@pytest.mark.parametrize("forgets", [False, True])
def test_steps_over_a_history_give_the_sequence(forgets):
    """To 1e-5, over a thousand answers of a few skills, alone and in a batch."""
    torch.manual_seed(1)
    network = build("bkt", {"n_questions": 9, "n_skills": 5, "forgets": forgets}).eval()
    rng = np.random.default_rng(0)
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(torch.randn_like(weight))
    named = rng.integers(1, 5, (2, 1001, 2))
    named[:, :, 1] *= rng.random((2, 1001)) < 0.3
    windows = []
    for skills in named:
        response = np.append(rng.integers(WRONG, RIGHT + 1, 1000), UNKNOWN)
        missing = np.full(1001, -1, np.float32)
        uncounted = np.zeros((1001, N_COUNTS), np.float32)
        windows.append(Window(np.full(1001, 2), skills, response, missing, missing, uncounted))
    batch = tensors(collate(windows))
    state = network.start_state().expand(2, -1)

    with torch.inference_mode():
        for place in range(1000):
            one = [t[:, place : place + 1] for t in batch]
            state = network.step(state, *one)
            if place in (0, 1, 30, 500, 999):
                seen = [t[:, : place + 2] for t in batch]
                _, expected = network.with_knowledge(*seen)
                _, knowledge = network.ask(state, *(t[:, place + 1 : place + 2] for t in batch))
                gap = torch.sigmoid(knowledge) - torch.sigmoid(expected)
                assert gap.abs().max() < 1e-5


def test_any_weights_are_chances_within_their_bounds():
    network = network_of(forget=0.05, max_guess=0.3)
    with torch.no_grad():
        for weight in network.parameters():
            weight.copy_(torch.tensor([-30.0, 0.0, 30.0]))

    skills = network.parameters_of_skills()

    assert all(((c >= 0) & (c <= 1)).all() for c in skills)
    assert (skills.guess <= 0.3).all()
    assert (skills.slip <= 0.2).all()


def test_what_no_weights_could_say_is_refused():
    network = network_of()
    skills = network.parameters_of_skills()

    with pytest.raises(ValueError, match="outside its bounds"):
        network.take(skills._replace(guess=torch.full((3,), 0.5)))
    with pytest.raises(ValueError, match="at most 1 together"):
        network_of(max_guess=0.9)
    with pytest.raises(ValueError, match="a window of 9 places"):
        p_correct(network_of(length=8), window([[ADD]] * 9, [RIGHT] * 8))
