"""Masks: True where something real stands, on either side, batch-major."""

import numpy as np
import pytest
import torch

from models.contract.masks import causal, causal_in_rows, key_padding, last_query, per_head


def test_padding_stands_on_the_side_asked_for():
    lengths = np.array([3, 1])

    assert key_padding(lengths, 3).tolist() == [[True, True, True], [True, False, False]]
    assert key_padding(lengths, 3, "left").tolist() == [[True, True, True], [False, False, True]]


@pytest.mark.parametrize("places", [np.arange(4), torch.arange(4)], ids=["numpy", "torch"])
def test_causal_shows_no_later_place(places):
    mask = causal(places)

    assert [[bool(x) for x in row] for row in mask] == [
        [j <= i for j in range(4)] for i in range(4)
    ]


@pytest.mark.parametrize("side", ["right", "left"])
def test_no_row_of_a_causal_mask_is_empty_and_no_padding_is_seen(side):
    mask = key_padding(np.array([4, 1, 2]), 4, side)

    rows = causal_in_rows(mask, np.arange(4))

    assert rows.any(axis=-1).all()
    for b, i, j in np.argwhere(rows):
        assert j <= i
        assert mask[b, j] or i == j


def test_a_last_query_sees_every_real_place():
    mask = key_padding(np.array([2, 3]), 3, "left")

    assert last_query(mask).shape == (2, 1, 3)
    np.testing.assert_array_equal(last_query(mask)[:, 0], mask)


def test_heads_of_one_window_stand_together():
    """Row b*H + h belongs to window b: the order that torch's 3D masks are read in."""
    mask = last_query(key_padding(np.array([1, 3]), 3))

    heads = per_head(mask, 2)

    assert heads.shape == (4, 1, 3)
    assert heads.sum(axis=(1, 2)).tolist() == [1, 1, 3, 3]
