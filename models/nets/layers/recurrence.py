"""An LSTM over a window, or one place further.

Letters: B batch, L places, D width of what it reads.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.nets.layers.places import shifted


class Recurrence(nn.Module):
    """An LSTM whose start state is learned: what is believed of a learner never seen."""

    def __init__(self, width: int, hidden: int, layers: int = 1, dropout: float = 0.0) -> None:
        super().__init__()
        self.lstm = nn.LSTM(width, hidden, layers, batch_first=True, dropout=dropout)
        self.start = nn.Parameter(torch.zeros(2, layers, hidden))  # h, c

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, D) -> (B, L, hidden): the state after each place."""
        start = self.start[:, :, None].expand(-1, -1, x.shape[0], -1).contiguous()
        return self.lstm(x, (start[0], start[1]))[0]  # type: ignore[no-any-return]

    def states_before(self, x: Tensor) -> Tensor:
        """(B, L, D) -> (B, L, hidden): the state before each place, the learned start first."""
        return shifted(self.forward(x), self.start[0, -1])

    def after(self, x: Tensor, state: Tensor) -> Tensor:
        """(B, N, D) and the states before (B, 2, layers, hidden) -> those after."""
        before = state.permute(1, 2, 0, 3).contiguous()  # (2, layers, B, hidden)
        h, c = self.lstm(x, (before[0], before[1]))[1]
        return torch.stack([h, c]).permute(2, 0, 1, 3)

    def before_each(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, L, D) -> h and c before each place, (B, L, hidden) each; of one layer.

        Torch's own LSTM is fast but tells only h. With h known at every place, all gates are one
        product, and what is left to do place by place for c is a single multiplication and sum.
        """
        h = self.states_before(x)
        w_input, w_hidden, b_input, b_hidden = self.lstm.all_weights[0]
        gates = F.linear(x, w_input, b_input) + F.linear(h, w_hidden, b_hidden)
        enter, forget, new, _ = gates.chunk(4, dim=-1)  # torch's order of gates
        added = (torch.sigmoid(enter) * torch.tanh(new)).unbind(dim=1)
        kept = torch.sigmoid(forget).unbind(dim=1)
        cells = [self.start[1, -1].expand_as(h[:, 0])]
        for place in range(x.shape[1] - 1):
            cells.append(torch.addcmul(added[place], kept[place], cells[-1]))
        return h, torch.stack(cells, dim=1)

    def step(self, x: Tensor, state: Tensor) -> Tensor:
        """One place for every row: (B, D) and (B, 2, layers, hidden) -> the next state.

        The formula of torch.nn.LSTM written out: a graph of it has no loop over places.
        """
        h_next, c_next = [], []
        for layer in range(self.lstm.num_layers):
            h, c = state[:, 0, layer], state[:, 1, layer]
            h, c = self._cell(layer, x, h, c)
            h_next.append(h)
            c_next.append(c)
            x = h
        return torch.stack([torch.stack(h_next, dim=1), torch.stack(c_next, dim=1)], dim=1)

    def _cell(self, layer: int, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        w_input, w_hidden, b_input, b_hidden = self.lstm.all_weights[layer]
        gates = F.linear(x, w_input, b_input) + F.linear(h, w_hidden, b_hidden)
        enter, forget, new, leave = gates.chunk(4, dim=-1)  # torch's order of gates
        c = torch.sigmoid(forget) * c + torch.sigmoid(enter) * torch.tanh(new)
        return torch.sigmoid(leave) * torch.tanh(c), c
