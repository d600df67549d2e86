"""Weights start so that inputs neither grow nor vanish: on the way forward, and back."""

import math
import re

import numpy as np
import pytest
import torch
from torch import nn

from models.datasets.encoded import encode
from models.datasets.simulator import simulate
from models.nets import build
from models.nets.initialisation import decoder_factor, encoder_factor, fixup, initialise, t_fixup
from models.nets.layers.attention import Attention
from models.nets.layers.feed_forward import FeedForward, FixupBranch
from models.training.batches import stretches
from models.training.config import FitConfig
from models.training.losses import answer_loss

SIZES = {"n_questions": 40, "n_skills": 12, "width": 32, "heads": 4, "hidden": 64, "dropout": 0.0}


def scale(x: torch.Tensor) -> float:
    return x.square().mean().sqrt().item()


def through(stack: nn.Module, x: torch.Tensor) -> tuple[float, float]:
    """How much a stack changes the scale of an input, and that of a gradient on its way back."""
    x = x.requires_grad_()
    out = stack(x)
    gradient = torch.randn_like(out)
    out.backward(gradient)
    return scale(out) / scale(x), scale(x.grad) / scale(gradient)


class Rise(nn.Module):
    """A map before a ReLU, as in a feed-forward layer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.rise = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.rise(x))


@pytest.mark.parametrize(("norm", "keeps"), [("layer", True), ("t_fixup", False), ("none", False)])
def test_kaiming_keeps_the_scale_through_relus(norm, keeps):
    """Thirty of them; Xavier, made for what is even around zero, loses half a variance in each."""
    torch.manual_seed(0)
    stack = nn.Sequential(*(Rise(256) for _ in range(30)))
    initialise(stack, norm=norm)

    forward, back = through(stack, torch.randn(128, 256))

    assert (0.3 < forward < 3) is keeps
    assert (0.3 < back < 3) is keeps
    assert keeps or forward < 1e-3


def test_xavier_keeps_the_scale_through_projections():
    torch.manual_seed(0)
    stack = nn.Sequential(*(nn.Linear(256, 256) for _ in range(30)))
    initialise(stack)

    forward, back = through(stack, torch.randn(128, 256))

    assert 0.5 < forward < 2
    assert 0.5 < back < 2


class NewGate(nn.Module):
    """The one gate of an LSTM that a tanh squashes, reading the input alone."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(x @ self.lstm.weight_ih_l0.chunk(4)[2].T)


def test_xavier_with_the_gain_of_tanh_keeps_the_scale_through_tanhs():
    """From the first, which squashes, to the thirtieth; without the gain it goes on shrinking.

    The gradient is not kept as well: it grows by a tenth in each.
    """
    torch.manual_seed(0)
    stack = nn.Sequential(*(NewGate(256) for _ in range(30)))
    initialise(stack)
    x = torch.randn(128, 256)
    first = scale(stack[0](x))

    forward, back = through(stack, x.clone())
    for gate in stack:
        gate.lstm.weight_ih_l0.data /= nn.init.calculate_gain("tanh")
    without, _ = through(stack, x.clone())

    assert 0.8 < forward / first < 1.25
    assert 0.3 < back < 1.1**30
    assert without < 0.25


def test_each_gate_of_a_recurrence_starts_as_a_matrix_of_its_own():
    """Inputs by Xavier, five thirds as wide before the tanh; states orthogonal; memory kept."""
    network = build("dkt", {"n_questions": 5, "n_skills": 5, "hidden": 64})
    lstm = network.recurrence.lstm
    bounds = [gate.abs().max().item() for gate in lstm.weight_ih_l0.chunk(4)]
    xavier = math.sqrt(6 / 128)

    assert bounds == pytest.approx([xavier, xavier, xavier * 5 / 3, xavier], rel=0.01)
    for gate in lstm.weight_hh_l0.chunk(4):
        torch.testing.assert_close(gate @ gate.T, torch.eye(64), atol=1e-5, rtol=0)
    assert lstm.bias_ih_l0[64:128].eq(1).all()
    assert lstm.bias_hh_l0.eq(0).all()


def test_orthogonal_recurrences_neither_grow_nor_shrink_a_state():
    """Over two hundred places, forward and back."""
    torch.manual_seed(0)
    lstm = nn.LSTM(32, 32)
    initialise(nn.ModuleList([lstm]))
    gate = lstm.weight_hh_l0.chunk(4)[2].detach()
    stack = nn.Sequential(*(nn.Linear(32, 32, bias=False) for _ in range(200)))
    for layer in stack:
        layer.weight.data.copy_(gate)

    forward, back = through(stack, torch.randn(16, 32))

    assert forward == pytest.approx(1, abs=1e-3)
    assert back == pytest.approx(1, abs=1e-3)


def test_padding_rows_of_embeddings_are_zero():
    network = build("saint_plus", {"n_questions": 5, "n_skills": 5, "width": 8})

    assert network.skills.table.weight[0].abs().sum() == 0
    assert 0.5 < network.skills.table.weight[1:].std() / 8**-0.5 < 1.5


def residual_stack(depth: int, *, fixed: bool) -> nn.Sequential:
    torch.manual_seed(0)
    stack = nn.Sequential(*(FixupBranch(64, 64) for _ in range(depth)))
    initialise(stack)
    if fixed:
        fixup([[branch.rise, branch.fall] for branch in stack])
    return stack


def test_fixup_starts_a_residual_stack_as_the_identity():
    """Whatever its depth: forward and back; without it, sixty-four branches multiply the scale."""
    stack, plain = residual_stack(64, fixed=True), residual_stack(64, fixed=False)

    assert through(stack, torch.randn(128, 64)) == (1.0, 1.0)
    assert min(through(plain, torch.randn(128, 64))) > 1e3


def test_fixup_scales_by_the_number_of_branches_and_zeroes_what_ends_them():
    stack, plain = residual_stack(16, fixed=True), residual_stack(16, fixed=False)

    for branch, without in zip(stack, plain, strict=True):
        torch.testing.assert_close(branch.rise.weight, without.rise.weight / 4)  # 16^(-1/2)
        assert branch.fall.weight.eq(0).all()
    with pytest.raises(ValueError, match="a branch of 1 matrices"):
        fixup([[stack[0].rise]])


def test_a_step_under_fixup_moves_a_deep_stack_as_far_as_a_shallow_one():
    """Steps of the matrices: the factors are for them. Nothing of it holds without the factors."""
    moved = {}
    for depth in (4, 64):
        for fixed in (True, False):
            stack = residual_stack(depth, fixed=fixed)
            x, target = torch.randn(2, 128, 64, generator=torch.Generator().manual_seed(1))
            before = stack(x)
            matrices = [w for w in stack.parameters() if w.ndim == 2]
            optimizer = torch.optim.SGD(matrices, lr=0.1)
            for _ in range(2):  # at the first, a zero matrix lets no gradient past it
                optimizer.zero_grad()
                (stack(x) - target).square().mean().backward()
                optimizer.step()
            moved[depth, fixed] = scale((stack(x) - before).detach())

    assert moved[64, True] < 3 * moved[4, True]
    assert not moved[64, False] < 100 * moved[4, False]


ATTENTION = {
    "saint": {"layers": 3, "length": 30},
    "saint_plus": {"layers": 3, "length": 30, "elapsed": "continuous", "counts": True},
    "last_query": {"elapsed": "categorical", "counts": True},
    "sakt": {"layers": 3, "length": 30, "inputs": "both"},
}
ENCODER, DECODER = r"(encoder|layers)\.\d\.", r"decoder\.\d\."
SHRINKS = r"((attend\w*\.)?(attention\.)?(value|out)|feed_forward\.(rise|fall))\.weight"
EMBEDDINGS = {
    "saint": r"question|skills|position|response|start",
    "saint_plus": r"question|skills|counts|position|response|start|elapsed|lag",
    "last_query": r"question|skills|counts|response|elapsed|lag",
    "sakt": r"(question|skills)(_answered)?|position|start",
}
TENSORS = {
    "saint": 3 * 4 + 3 * 6 + 5,  # four a layer of the encoder, six of the decoder, embeddings
    "saint_plus": 3 * 4 + 3 * 6 + 5 + 3,  # counts, a direction of elapsed times, a table of lags
    "last_query": 4 + 6,
    "sakt": 3 * 4 + 6,
}


def expected_factor(network: str, tensor: str) -> float:
    layers = 1 if network == "last_query" else 3
    if re.fullmatch(rf"({EMBEDDINGS[network]})(\..*)?", tensor):
        return (9 * layers) ** -0.25
    if re.fullmatch(DECODER + SHRINKS, tensor):
        return (9 * layers) ** -0.25
    inside = SHRINKS if network == "last_query" else ENCODER + SHRINKS
    return 0.67 * layers**-0.25 if re.fullmatch(inside, tensor) else 1.0


@pytest.mark.parametrize("name", ATTENTION)
def test_t_fixup_shrinks_the_tensors_it_should_and_no_other(name):
    """By their names, and by exact ratios to the same seed without it: it cannot do nothing."""
    torch.manual_seed(0)
    plain = build(name, {**SIZES, **ATTENTION[name], "norm": "none"})
    torch.manual_seed(0)
    fixed = build(name, {**SIZES, **ATTENTION[name], "norm": "t_fixup"})
    before = dict(plain.named_parameters())
    shrunk = []
    for tensor, weight in fixed.named_parameters():
        factor = expected_factor(name, tensor)
        torch.testing.assert_close(weight, before[tensor] * factor, rtol=1e-6, atol=1e-9)
        if factor != 1 and before[tensor].abs().sum() > 0:
            shrunk.append(tensor)

    assert len(shrunk) == TENSORS[name], shrunk
    assert not any("query" in t or "key" in t or "bias" in t for t in shrunk)


@pytest.mark.parametrize("name", ATTENTION)
def test_no_layer_norm_exists_but_where_it_is_asked_for(name):
    def norms(norm: str) -> list[nn.LayerNorm]:
        network = build(name, {**SIZES, **ATTENTION[name], "norm": norm})
        return [m for m in network.modules() if isinstance(m, nn.LayerNorm)]

    assert len(norms("layer")) >= 2
    assert norms("t_fixup") == norms("none") == []
    with pytest.raises(ValueError, match="norm = 'batch': must be one of layer, t_fixup, none"):
        norms("batch")


@pytest.mark.parametrize(
    ("layers", "encoder", "decoder"),
    [(1, 0.67, 0.5774), (2, 0.5634, 0.4855), (4, 0.4738, 0.4082), (6, 0.4281, 0.3689)],
)
def test_t_fixup_s_factors_are_the_paper_s(layers, encoder, decoder):
    assert encoder_factor(layers) == pytest.approx(encoder, abs=5e-5)
    assert decoder_factor(layers) == pytest.approx(decoder, abs=5e-5)


def test_a_packed_projection_ends_with_the_values_of_a_separate_one():
    """Torch draws q, k and v as one matrix: narrower, by the root of two. Queries, keys stay."""
    torch.manual_seed(0)
    packed = nn.MultiheadAttention(256, 4)
    before = packed.in_proj_weight.detach().clone()
    separate = Attention(256, 4, 0.0)
    initialise(separate)
    t_fixup(encoder=[packed], embeddings=[])
    t_fixup(encoder=[separate], embeddings=[])

    query, key, value = (packed.in_proj_weight / before).chunk(3)
    assert query.eq(1).all()
    assert key.eq(1).all()
    torch.testing.assert_close(value, torch.full_like(value, 0.67 * math.sqrt(2)))
    spread = packed.in_proj_weight.chunk(3)[2].std() / separate.value.weight.std()
    assert spread.item() == pytest.approx(1, abs=0.02)


def test_t_fixup_refuses_a_layer_in_which_it_would_do_nothing():
    with pytest.raises(ValueError, match="Linear has neither attention nor feed-forward"):
        t_fixup(encoder=[FeedForward(8, 8, 0.0), nn.Linear(8, 8)], embeddings=[])


def batches(epoch: int = 0):
    data = simulate(users=80, answers=30, questions=30, skills=6, seed=0).dataset
    users = encode(data, data.vocabulary())
    fit = FitConfig(batch_places=600, stretch=30, unseen=0.0, untimed=0.0)
    return list(stretches(users, fit, np.random.default_rng(epoch)))


def answer_loss_of(network: nn.Module, batch) -> torch.Tensor:
    return answer_loss(network.every_place(*batch.inputs).logit, batch.right, batch.scored)


def deep(norm: str, layers: int) -> nn.Module:
    torch.manual_seed(0)
    options = {"layers": layers, "length": 30, "recency": False, "norm": norm}
    return build("saint_plus", {**SIZES, **options})


def layer_scales(network: nn.Module) -> tuple[float, float]:
    """The ratio of the last decoder layer's activations, and gradients, to the first one's."""
    seen: list[torch.Tensor] = []

    def keep(_module, _inputs, out):
        out.retain_grad()
        seen.append(out)

    for layer in network.decoder:
        layer.register_forward_hook(keep)
    answer_loss_of(network, batches()[0]).backward()
    return scale(seen[-1]) / scale(seen[0]), scale(seen[0].grad) / scale(seen[-1].grad)


def test_t_fixup_keeps_activations_and_gradients_in_scale_through_a_deep_transformer():
    """Ten layers a side; with neither norms nor factors both grow by orders of magnitude."""
    forward, back = layer_scales(deep("t_fixup", 10))
    unfixed_forward, unfixed_back = layer_scales(deep("none", 10))

    assert 0.5 < forward < 2
    assert 0.5 < back < 2
    assert unfixed_forward > 20
    assert unfixed_back > 1000


def losses(network: nn.Module, *, lr: float, epochs: int) -> list[float]:
    """Train with neither warm-up nor clipping; return the loss of every step."""
    optimizer = torch.optim.Adam(network.parameters(), lr=lr)
    found = []
    for epoch in range(epochs):
        for batch in batches(epoch):
            loss = answer_loss_of(network, batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            found.append(loss.item())
    return found


@pytest.mark.parametrize("name", ["saint_plus", "last_query"])
def test_a_network_trains_under_t_fixup_without_norms_and_warm_up(name):
    options = {"residual": "last"} if name == "last_query" else {"layers": 6, "length": 30}
    torch.manual_seed(0)
    network = build(name, {**SIZES, **options, "norm": "t_fixup"})

    found = losses(network, lr=2e-3, epochs=8)

    assert np.isfinite(found).all()
    assert max(found) < 1.0
    assert np.mean(found[-5:]) < np.mean(found[:5]) - 0.02


def test_the_same_network_without_t_fixup_does_not_train():
    """The factors are what the test above measures."""
    found = losses(deep("none", 8), lr=2e-3, epochs=2)

    assert not max(found) < 10
