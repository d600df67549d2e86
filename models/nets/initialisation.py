"""How weights start: inputs must neither grow nor vanish on their way through a network."""

from __future__ import annotations

import torch
from torch import nn


def initialise(network: nn.Module) -> None:
    """Xavier for projections, Kaiming before a ReLU, orthogonal recurrences, small embeddings.

    Sources: Glorot and Bengio 2010; He et al. 2015; Saxe et al. 2014 (orthogonal); Jozefowicz et
    al. 2015 (a forget gate that starts open). Embeddings start at N(0, 1/D), padding rows at zero.
    """
    for name, module in network.named_modules():
        match module:
            case nn.Linear():
                if name.split(".")[-1] == "rise":  # the layer before a ReLU
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
    for name, weight in lstm.named_parameters():
        if name.startswith("weight_ih"):
            nn.init.xavier_uniform_(weight)
        elif name.startswith("weight_hh"):
            for gate in weight.chunk(4):  # each gate's matrix is square
                nn.init.orthogonal_(gate)
        else:
            nn.init.zeros_(weight)
            if name.startswith("bias_ih"):
                with torch.no_grad():
                    weight[lstm.hidden_size : 2 * lstm.hidden_size] = 1.0  # forget gate, open
