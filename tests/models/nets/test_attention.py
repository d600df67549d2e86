"""Masks in use: our attention and torch's own say the same by every shape of mask that we make."""

import numpy as np
import pytest
import torch
from torch import nn

from models.contract.masks import causal, causal_in_rows, key_padding, last_query, per_head
from models.nets.layers.attention import Attention

HEADS, WIDTH, LENGTHS = 4, 16, np.array([5, 2, 3])
SHAPES = {
    "last query": (last_query, 1),
    "causal in rows": (lambda mask: causal_in_rows(mask, np.arange(5)), 5),
}


def attentions() -> tuple[Attention, nn.MultiheadAttention]:
    """Ours and torch's, of the same weights."""
    torch.manual_seed(0)
    ours, theirs = Attention(WIDTH, HEADS, 0.0), nn.MultiheadAttention(WIDTH, HEADS)
    packed = [ours.query, ours.key, ours.value]
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([p.weight for p in packed]))
        theirs.in_proj_bias.copy_(torch.cat([p.bias for p in packed]))
        theirs.out_proj.load_state_dict(ours.out.state_dict())
    theirs.batch_first = True
    return ours.eval(), theirs.eval()


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_mask_per_row_and_head_is_batch_major_as_torch_reads_it(shape, side):
    """Row b*H + h belongs to window b; by the head-major order windows get each other's masks."""
    ours, theirs = attentions()
    make, queries = SHAPES[shape]
    x = torch.randn(3, 5, WIDTH)
    mask = make(key_padding(LENGTHS, 5, side))  # (B, Q, L)
    batch_major = torch.from_numpy(per_head(mask, HEADS))  # (B*H, Q, L)
    head_major = torch.from_numpy(np.tile(mask, (HEADS, 1, 1)))
    query = x[:, :queries]

    with torch.inference_mode():
        expected = ours(query, x, torch.from_numpy(mask)[:, None])
        found, _ = theirs(query, x, x, attn_mask=~batch_major)  # torch: True is hidden
        crossed, _ = theirs(query, x, x, attn_mask=~head_major)

    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert not torch.allclose(crossed, expected, atol=1e-2, equal_nan=True)


def test_a_mask_shared_by_all_rows_has_two_axes():
    """Padded on the right, windows need no more: what is later than all that is real is unseen."""
    ours, theirs = attentions()
    x = torch.randn(3, 5, WIDTH)
    shared = causal(torch.arange(5))  # (L, L)
    mask = torch.from_numpy(key_padding(LENGTHS, 5))

    with torch.inference_mode():
        found = ours(x, x, shared[None, None])
        expected, _ = theirs(x, x, x, attn_mask=~shared, key_padding_mask=~mask)

    torch.testing.assert_close(found[mask], expected[mask], atol=1e-5, rtol=0)


@pytest.mark.parametrize("side", ["right", "left"])
def test_a_window_padded_on_either_side_attends_as_it_does_alone(side):
    """Places of padding attend to themselves: no row of the softmax is empty, so none is NaN."""
    ours, _ = attentions()
    mask = key_padding(LENGTHS, 5, side)
    x = torch.randn(3, 5, WIDTH, requires_grad=True)
    rows = torch.from_numpy(causal_in_rows(mask, np.arange(5)))[:, None]

    together = ours(x, x, rows)
    together.sum().backward()

    assert torch.isfinite(together).all()
    assert torch.isfinite(x.grad).all()
    for row, n in enumerate(LENGTHS):
        window = x[row, mask[row]][None]
        alone = ours(window, window, causal(torch.arange(int(n)))[None, None])
        torch.testing.assert_close(together[row, mask[row]], alone[0], atol=1e-5, rtol=0)
