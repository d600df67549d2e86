"""What must hold of every network: padding, company, order and the future change nothing."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.contract.counts import counts_of
from models.contract.interaction import RIGHT, UNKNOWN, WRONG
from models.contract.window import MISSING_S, Window, collate
from models.evaluation.predictions import tensors
from models.nets import NETWORKS, build

QUESTIONS, SKILLS = 30, 9
OPTIONS = {
    "bkt": {"length": 40},
    "bkt, forgetting": {"length": 40, "forgets": True},
    "dkt": {"hidden": 16},
    "dkt, every input": {
        "hidden": 16,
        "layers": 2,
        "question": True,
        "lag": "continuous",
        "elapsed": "categorical",
        "forgetting": True,
    },
    "dkt_asked": {"width": 16, "hidden": 16, "lag": "categorical", "elapsed": "continuous"},
    "dkt_asked, skills alone": {"width": 16, "hidden": 16, "question": False, "counts": False},
    "ensemble": {
        "members": (
            {"network": "dkt_asked", "config": {"width": 16, "hidden": 16}},
            {"network": "last_query", "config": {"width": 16, "hidden": 16, "residual": "last"}},
        )
    },
    "last_query, counts alone": {"width": 16, "hidden": 16, "counts": True, "inputs": "skills"},
    "saint_plus, counts": {"width": 16, "hidden": 16, "length": 40, "counts": True},
    "last_query": {"width": 16, "hidden": 16, "elapsed": "continuous"},
    "last_query, residual last": {"width": 16, "hidden": 16, "residual": "last"},
    "saint": {"width": 16, "hidden": 16, "length": 40},
    "saint, skills and recency": {
        "width": 16,
        "hidden": 16,
        "length": 40,
        "inputs": "skills",
        "recency": True,
    },
    "saint_plus": {"width": 16, "hidden": 16, "length": 40, "elapsed": "categorical"},
    "saint_plus, continuous, as published": {
        "width": 16,
        "hidden": 16,
        "length": 40,
        "lag": "continuous",
        "elapsed": "continuous",
        "recency": False,
    },
    "saint_plus, without norms": {
        "width": 16,
        "hidden": 16,
        "length": 40,
        "layers": 3,
        "norm": "t_fixup",
    },
    "sakt": {"width": 16, "hidden": 16, "length": 40},
    "sakt, deep, both inputs and recency": {
        "width": 16,
        "hidden": 16,
        "length": 40,
        "layers": 2,
        "inputs": "both",
        "recency": True,
    },
    "sakt, questions": {"width": 16, "hidden": 16, "length": 40, "inputs": "questions"},
}


def network_of(case: str) -> torch.nn.Module:
    torch.manual_seed(3)
    sizes = {"n_questions": QUESTIONS, "n_skills": SKILLS}
    network = build(case.split(",")[0], {**sizes, **OPTIONS[case]})
    with torch.no_grad():
        for weight in network.parameters():  # a zero start state would hide what it breaks
            weight.add_(torch.randn_like(weight) * 0.1)
    return network.eval()


def window(size: int, seed: int) -> Window:
    rng = np.random.default_rng([size, seed])
    skills = rng.integers(1, SKILLS, (size, 3))
    skills[:, 1:] *= rng.random((size, 2)) < 0.5
    response = rng.integers(WRONG, RIGHT + 1, size)
    response[-1] = UNKNOWN
    times = (rng.random((2, size)) * 10_000).astype(np.float32)
    times[rng.random((2, size)) < 0.2] = MISSING_S
    times[1, -1] = MISSING_S
    question = rng.integers(1, QUESTIONS, size)
    difficulty = rng.integers(0, 50, (size, 2)).astype(np.float32)
    counts = counts_of(question, skills, response, difficulty)
    return Window(question, skills, response, times[0], times[1], counts)


def answers(network: torch.nn.Module, batch: dict[str, np.ndarray]) -> np.ndarray:
    with torch.inference_mode():
        return torch.sigmoid(network(*tensors(batch))).numpy()


@pytest.fixture(scope="module", params=OPTIONS)
def network(request):
    return network_of(request.param)


@pytest.fixture(scope="module", params=[c for c in OPTIONS if network_of(c).is_causal])
def causal_network(request):
    return network_of(request.param)


SIZES = st.lists(st.integers(1, 20), min_size=1, max_size=5)


SIDES = st.sampled_from(["right", "left"])


@settings(max_examples=20, deadline=None)
@given(sizes=SIZES, extra=st.integers(0, 9), side=SIDES, order=st.randoms(use_true_random=False))
def test_padding_company_and_order_change_nothing(network, sizes, extra, side, order):
    """A window alone, unpadded, says what it says in any batch with padding on either side."""
    windows = [window(n, i) for i, n in enumerate([*sizes, max(sizes) + extra])]
    order.shuffle(windows)

    together = answers(network, collate(windows, side))

    alone = [answers(network, collate([one]))[0] for one in windows]
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("side", ["right", "left"])
def test_what_stands_in_padding_is_not_read(network, side):
    batch = collate([window(4, 0), window(9, 1)], side)
    other = collate([window(9, 2), window(9, 3)])
    before = answers(network, batch)
    for name in set(batch) - {"mask"}:
        batch[name][~batch["mask"]] = other[name][~batch["mask"]]

    np.testing.assert_allclose(answers(network, batch), before, atol=1e-6)


@pytest.mark.parametrize("side", ["right", "left"])
def test_one_place_gives_a_probability(network, side):
    """A user never seen: only the question is there, alone or with padding all beside it."""
    p = np.concatenate(
        [
            answers(network, collate([window(1, 0), window(1, 5)])),
            answers(network, collate([window(1, 0), window(20, 1), window(1, 5)], side))[[0, 2]],
        ]
    )

    assert ((p > 0) & (p < 1)).all()
    np.testing.assert_allclose(p[2:], p[:2], atol=1e-5)


def test_a_row_that_is_all_padding_harms_no_other(network):
    """Neither an answer nor a gradient: nothing of it is NaN, which no mask would take back."""
    batch = collate([window(5, 0), window(1, 1), window(9, 2)])
    before = answers(network, batch)
    empty = {k: np.concatenate([np.zeros_like(v[:1]), v]) for k, v in batch.items()}

    np.testing.assert_allclose(answers(network, empty)[1:], before, atol=1e-5)
    logit = network(*tensors(empty))
    assert torch.isfinite(logit).all()
    network.zero_grad()
    logit[1:].sum().backward()
    assert all(torch.isfinite(w.grad).all() for w in network.parameters() if w.grad is not None)


def test_no_answer_moves_the_prediction_at_its_own_place_or_before(causal_network):
    """Every place's logit is the same for whatever was answered there or later."""
    batch = collate([window(12, 0), window(12, 1)])
    batch["response"][:, -1] = RIGHT
    with torch.inference_mode():
        before = causal_network.every_place(*tensors(batch)).logit
        batch["response"][:, 5:] = 1 - batch["response"][:, 5:]
        batch["elapsed_s"][:, 5:] = 1.0
        after = causal_network.every_place(*tensors(batch)).logit

    np.testing.assert_allclose(after[:, :6], before[:, :6], atol=1e-6)
    assert not np.allclose(after[:, 6:], before[:, 6:], atol=1e-6)


@settings(max_examples=10, deadline=None)
@given(place=st.integers(0, 11), seed=st.integers(0, 99))
def test_nothing_after_a_place_moves_its_prediction(causal_network, place, seed):
    """Neither who answers what later, nor when, nor how many places there are."""
    batch = collate([window(12, 0), window(12, 1)])
    later = collate([window(12, 100 + seed), window(12, 200 + seed)])
    with torch.inference_mode():
        before = causal_network.every_place(*tensors(batch)).logit
        cut = {k: v[:, : place + 1] for k, v in batch.items()}
        shorter = causal_network.every_place(*tensors(cut)).logit
        for name in set(batch) - {"mask"}:
            # What comes with the answer is later than the question, in one and the same place.
            first = place if name in ("response", "elapsed_s") else place + 1
            batch[name][:, first:] = later[name][:, first:]
        after = causal_network.every_place(*tensors(batch)).logit

    np.testing.assert_allclose(after[:, : place + 1], before[:, : place + 1], atol=1e-5)
    np.testing.assert_allclose(shorter, before[:, : place + 1], atol=1e-5)


def test_every_place_says_what_its_own_window_says(causal_network):
    """One pass over a stretch is only a faster way to the served numbers."""
    whole = window(15, 2)
    whole.response[-1] = WRONG
    with torch.inference_mode():
        logit = causal_network.every_place(*tensors(collate([whole]))).logit[0]

    for n in (1, 2, 9, 15):
        parts = {f: getattr(whole, f)[:n].copy() for f in Window.__slots__}
        parts["response"][-1], parts["elapsed_s"][-1] = UNKNOWN, MISSING_S
        p = answers(causal_network, collate([Window(**parts)]))[0]
        assert torch.sigmoid(logit[n - 1]).item() == pytest.approx(p, abs=1e-5)


def test_skills_are_a_set(network):
    """Their order within a question says nothing."""
    batch = collate([window(8, 4)])
    before = answers(network, batch)
    batch["skills"] = batch["skills"][:, :, ::-1].copy()

    np.testing.assert_allclose(answers(network, batch), before, atol=1e-6)


@pytest.mark.parametrize("side", ["right", "left"])
def test_no_gradient_flows_into_padding(network, side):
    """Neither into an input there, nor into what an embedding says of it."""
    batch = collate([window(3, 0), window(9, 1)], side)
    padding = ~torch.from_numpy(batch["mask"])
    aligned = ~torch.from_numpy(collate([window(3, 0), window(9, 1)])["mask"])
    for name in set(batch) - {"mask"}:
        batch[name][~batch["mask"]] = 1
    inputs = [x.requires_grad_(x.is_floating_point()) for x in tensors(batch)]
    embedded = []

    def keep(_module, _inputs, out):
        if out.shape[:2] == padding.shape:  # positions are of no row
            out.retain_grad()
            embedded.append(out)

    tables = [m for m in network.modules() if isinstance(m, torch.nn.Embedding)]
    hooks = [table.register_forward_hook(keep) for table in tables]
    network.zero_grad()
    network(*inputs).sum().backward()
    for hook in hooks:
        hook.remove()

    # BKT keeps chances in plain tables and embeds nothing.
    assert not tables or any(out.grad.abs().sum() > 0 for out in embedded)
    assert all(out.grad[aligned].abs().sum() == 0 for out in embedded)
    assert all(x.grad[padding].abs().sum() == 0 for x in inputs if x.grad is not None)
    assert all(torch.isfinite(w.grad).all() for w in network.parameters() if w.grad is not None)


def test_answers_repeat_in_eval_mode(network):
    """No dropout is left on."""
    batch = collate([window(9, 1)])

    np.testing.assert_array_equal(answers(network, batch), answers(network, batch))


def test_the_last_query_s_answer_reaches_every_place():
    """Broadcast: the LSTM's own input changes at the first place when the query changes."""
    for residual, reaches in (("broadcast", True), ("last", False)):
        network = network_of(
            "last_query" if residual == "broadcast" else "last_query, residual last"
        )
        seen = []
        handle = network.recurrence.register_forward_pre_hook(
            lambda _, x, seen=seen: seen.append(x[0])
        )
        batch = collate([window(6, 0)])
        answers(network, batch)
        batch["question"][:, -1] += 1
        answers(network, batch)
        handle.remove()

        changed = not torch.allclose(seen[0][:, 0], seen[1][:, 0])
        assert changed is reaches


def test_a_step_is_the_recurrence_one_place_further():
    network = network_of("dkt, every input")
    x = torch.randn(3, 6, 16)
    state = network.recurrence.start[None].expand(3, -1, -1, -1)

    with torch.inference_mode():
        after = network.recurrence(x)
        for place in range(6):
            state = network.recurrence.step(x[:, place], state)
            torch.testing.assert_close(state[:, 0, -1], after[:, place])


def test_the_knowledge_state_of_a_newcomer_is_the_learned_start():
    """It does not depend on the question asked."""
    network = network_of("dkt")
    with torch.inference_mode():
        _, first = network.with_knowledge(*tensors(collate([window(1, 0)])))
        _, second = network.with_knowledge(*tensors(collate([window(1, 1)])))

    torch.testing.assert_close(first, second)
    assert first.shape == (1, SKILLS - 1)


@pytest.mark.parametrize("name", ["saint", "saint_plus", "sakt"])
@pytest.mark.parametrize("inputs", ["questions", "skills", "both"])
def test_a_network_reads_the_inputs_it_is_configured_for(name, inputs):
    """What the asked question is, and what was asked before, is told by those alone."""
    torch.manual_seed(0)
    sizes = {"n_questions": QUESTIONS, "n_skills": SKILLS, "width": 16, "hidden": 16, "length": 40}
    network = build(name, {**sizes, "inputs": inputs}).eval()
    batch = collate([window(9, 4)])
    before = answers(network, batch)
    for field, read_by in (("question", "questions"), ("skills", "skills")):
        for place in (3, 8):
            changed = {k: v.copy() for k, v in batch.items()}
            changed[field][0, place] = np.where(batch[field][0, place] == 1, 2, 1)

            is_read = not np.allclose(answers(network, changed), before, atol=1e-6)
            assert is_read is (inputs in (read_by, "both"))


def test_inputs_that_no_network_has_are_refused():
    with pytest.raises(ValueError, match="inputs = 'lectures': must be one of both"):
        build("sakt", {"n_questions": 5, "n_skills": 5, "inputs": "lectures"})


def test_saint_plus_without_times_is_saint():
    """The times are all that is between them."""
    sizes = {"n_questions": QUESTIONS, "n_skills": SKILLS, "width": 16, "hidden": 16}
    torch.manual_seed(0)
    saint = build("saint", {**sizes, "recency": True}).eval()
    torch.manual_seed(0)
    plus = build("saint_plus", {**sizes, "lag": "none"}).eval()
    batch = collate([window(9, 4), window(3, 1)])

    np.testing.assert_array_equal(answers(plus, batch), answers(saint, batch))


def test_an_ensemble_says_the_mean_of_its_members():
    """Of their logits: two who are sure of opposite answers know nothing together."""
    network = network_of("ensemble")
    batch = tensors(collate([window(9, 1), window(4, 2)]))
    with torch.inference_mode():
        apart = [member(*batch) for member in network.members]
        together = network(*batch)

    torch.testing.assert_close(together, (apart[0] + apart[1]) / 2)
    with pytest.raises(ValueError, match="needs members"):
        build("ensemble", {"n_questions": 5, "n_skills": 5})


def test_a_state_fades_with_the_pause_before_the_question():
    """Where forgetting is on: never below a pause unknown, further the longer the pause."""
    network = network_of("dkt, every input")
    batch = collate([window(9, 1)])
    states = []
    for lag_s in (MISSING_S, 0.0, 3_600.0, 86_400.0):
        batch["lag_s"][:, -1] = lag_s
        with torch.inference_mode():
            states.append(network.with_knowledge(*tensors(batch))[1])
    bias = network.read_out.bias

    strength = [(knowledge - bias).norm().item() for knowledge in states]
    assert strength[0] == pytest.approx(strength[1])
    assert strength[1] > strength[2] > strength[3]


def test_unknown_names_are_refused_with_what_is_known():
    with pytest.raises(ValueError, match="known: " + ", ".join(NETWORKS)):
        build("perceptron", {})
    with pytest.raises(ValueError, match="dkt has no option width"):
        build("dkt", {"n_questions": 5, "n_skills": 5, "width": 3})


REMEMBERING = [c for c in OPTIONS if getattr(network_of(c), "remembers", False)]


@pytest.mark.parametrize("case", REMEMBERING)
@settings(max_examples=15)
@given(
    sizes=st.lists(st.integers(0, 12), min_size=1, max_size=3),
    parts=st.lists(st.integers(1, 9), max_size=3),
    seed=st.integers(0, 99),
)
def test_what_is_recalled_is_what_the_whole_window_says(case, sizes, parts, seed):
    """However the answers came, beside whom, and however many questions are put at once.

    Each row has `sizes` answers before those of `parts`, and noise behind its rows.
    """
    network = network_of(case)
    later = sum(parts)
    windows = [window(n + later + 1, seed + row) for row, n in enumerate(sizes)]
    wholes = [tensors(collate([w])) for w in windows]
    with torch.inference_mode():
        memory = torch.randn(len(sizes), sum(sizes) + later, network.row_width)
        carries = []
        for row, (n, whole) in enumerate(zip(sizes, wholes, strict=True)):
            carry = network.start_carry()[None]
            if n:
                nothing = torch.zeros(1, 0, network.row_width), torch.tensor([0]), carry
                first = [t[:, :n] for t in whole]
                rows, carry = network.remember(*nothing, *first)
                if hasattr(network, "begin"):
                    for one, other in zip(network.begin(*first), (rows, carry), strict=True):
                        np.testing.assert_allclose(one, other, atol=1e-5)
                memory[row, :n] = rows[0]
            carries.append(carry)
        kept, carry, begin = torch.tensor(sizes), torch.cat(carries), 0
        ends = list(zip(*wholes, strict=True))
        for new in parts:
            places = [
                torch.cat(
                    [t[:, n + begin : n + begin + new] for n, t in zip(sizes, ts, strict=True)]
                )
                for ts in ends
            ]
            rows, carry = network.remember(memory, kept, carry, *places)
            for row, end in enumerate(kept.tolist()):
                memory[row, end : end + new] = rows[row]
            kept, begin = kept + new, begin + new
        queries = [torch.cat([t[:, -1:] for t in ts]).repeat_interleave(2, dim=1) for ts in ends]
        found = torch.sigmoid(network.recall(memory, kept, carry, *queries)).numpy()
        expected = np.stack([torch.sigmoid(network(*whole)).numpy().repeat(2) for whole in wholes])

    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_networks_that_keep_places_are_tried():
    """SAINT, SAINT+, and LastQuery where its places know nothing of the query."""
    kinds = {case.split(",")[0] for case in REMEMBERING}

    assert kinds == {"saint", "saint_plus", "last_query"}
    assert "last_query, residual last" in REMEMBERING
    assert "last_query" not in REMEMBERING
