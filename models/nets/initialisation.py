"""How weights start: inputs must neither grow nor vanish on their way through a network.

N layers of an encoder or a decoder, D width.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from models.nets.layers.attention import Attention
from models.nets.layers.feed_forward import FeedForward
from models.nets.layers.norm import Norm

PACKED = math.sqrt(2.0)
"""What makes up for Xavier over q, k and v packed into one (3D, D) matrix, as torch has them.

Its fans are D and 3D: a deviation of sqrt(2 / 4D), where one (D, D) matrix has sqrt(2 / 2D).
"""


def initialise(network: nn.Module, *, norm: Norm = "layer") -> None:
    """Xavier for projections, Kaiming before a ReLU, orthogonal recurrences, small embeddings.

    Sources: Glorot and Bengio 2010; He et al. 2015; Saxe et al. 2014 (orthogonal); Jozefowicz et
    al. 2015 (a forget gate that starts open). Embeddings start at N(0, 1/D), padding rows at zero.
    Without LayerNorm it is Xavier before a ReLU too: T-Fixup's factors count from there.
    """
    for name, module in network.named_modules():
        match module:
            case nn.Linear():
                if name.split(".")[-1] == "rise" and norm == "layer":
                    nn.init.kaiming_uniform_(module.weight, nonlinearity="relu")
                else:
                    nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            case nn.Embedding():
                nn.init.normal_(module.weight, std=module.embedding_dim**-0.5)
                if module.padding_idx is not None:
                    with torch.no_grad():
                        module.weight[module.padding_idx].zero_()
            case nn.LSTM():
                _initialise_lstm(module)


def _initialise_lstm(lstm: nn.LSTM) -> None:
    # Torch's order of gates: enter, forget, new, leave; all but the new are sigmoids.
    gains = (1.0, 1.0, nn.init.calculate_gain("tanh"), 1.0)
    for name, weight in lstm.named_parameters():
        if name.startswith("weight_ih"):
            # Each gate is a matrix of its own: the four stacked have a fan that none of them has.
            for gate, gain in zip(weight.chunk(4), gains, strict=True):
                nn.init.xavier_uniform_(gate, gain=gain)
        elif name.startswith("weight_hh"):
            for gate in weight.chunk(4):  # each gate's matrix is square
                nn.init.orthogonal_(gate)
        else:
            nn.init.zeros_(weight)
            if name.startswith("bias_ih"):
                with torch.no_grad():
                    weight[lstm.hidden_size : 2 * lstm.hidden_size] = 1.0  # forget gate, open


@torch.no_grad()
def fixup(branches: Sequence[Sequence[nn.Linear]]) -> None:
    """Make a stack of residual branches start as the identity and move alike at any depth.

    Zhang et al. 2019 (arXiv 1901.09321), rules 1 and 2: of L branches with m matrices each, the
    last matrix of each becomes zero, the others shrink by L^(-1/(2m - 2)). Rule 3, the scalars, is
    `layers.feed_forward.FixupBranch`. Raises `ValueError` for a branch of one matrix: it could only
    be zero.
    """
    for branch in branches:
        if len(branch) < 2:
            raise ValueError(f"a branch of {len(branch)} matrices: Fixup needs two or more")
        *inner, last = branch
        for layer in inner:
            layer.weight.mul_(len(branches) ** (-1 / (2 * len(branch) - 2)))
        last.weight.zero_()


@torch.no_grad()
def t_fixup(
    *,
    encoder: Sequence[nn.Module],
    decoder: Sequence[nn.Module] = (),
    embeddings: Sequence[nn.Module | nn.Parameter | None],
) -> None:
    """Shrink what T-Fixup shrinks, so that a transformer trains without LayerNorm and warm-up.

    Huang et al. 2020, "Improving Transformer Optimization Through Better Initialization" (ICML),
    section 3.2: values, output projections and feed-forward weights by 0.67 N^(-1/4) in an encoder
    of N layers and by (9N)^(-1/4) in a decoder; input embeddings of both streams by the decoder's
    factor. Queries, keys and biases stay. Without a decoder, which the paper does not treat, N of
    the embeddings is the encoder's. Weights must come from `initialise(..., norm="t_fixup")`.

    Tensors are found by their modules, not by names: a layer that holds none of them, which would
    leave the network as it was, raises `ValueError`.
    """
    for layers, factor in ((encoder, encoder_factor), (decoder, decoder_factor)):
        for layer in layers:
            weights = list(_shrinking(layer))
            if not weights:
                raise ValueError(f"{type(layer).__name__} has neither attention nor feed-forward")
            for weight, packed in weights:
                weight.mul_(packed * factor(len(layers)))
    for embedding in embeddings:
        match embedding:
            case nn.Parameter():
                embedding.mul_(decoder_factor(len(decoder or encoder)))
            case nn.Module():
                for weight in embedding.parameters():
                    weight.mul_(decoder_factor(len(decoder or encoder)))
            case None:
                pass  # an input that the network does not read


def encoder_factor(layers: int) -> float:
    """Return 0.67 N^(-1/4)."""
    return 0.67 * math.pow(layers, -0.25)


def decoder_factor(layers: int) -> float:
    """Return (9N)^(-1/4)."""
    return math.pow(9 * layers, -0.25)


def _shrinking(layer: nn.Module) -> Iterator[tuple[Tensor, float]]:
    """Yield the weights of a layer that T-Fixup shrinks, and what packing has to be made up."""
    for module in layer.modules():
        match module:
            case Attention():
                yield module.value.weight, 1.0
                yield module.out.weight, 1.0
            case nn.MultiheadAttention():
                yield module.in_proj_weight.chunk(3)[2], PACKED  # the values' third
                yield module.out_proj.weight, 1.0
            case FeedForward():
                yield module.rise.weight, 1.0
                yield module.fall.weight, 1.0
