"""Probabilities and log odds go to and fro, at their ends too."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.contract.logit import LEAST_P, logit_of, p_of


@given(st.floats(-15, 15))
def test_a_logit_comes_back_from_its_probability(logit):
    assert logit_of(p_of(logit)) == pytest.approx(logit, abs=1e-8)


def test_certainty_has_a_finite_logit():
    assert p_of(logit_of(np.array([0.0, 1.0]))) == pytest.approx([LEAST_P, 1 - LEAST_P])


def test_no_logit_overflows():
    """Warnings are errors here: exp(1000) would be one."""
    np.testing.assert_array_equal(
        p_of(np.array([-1000.0, 0.0, 1000.0, np.nan])), [0, 0.5, 1, np.nan]
    )
