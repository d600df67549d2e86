"""The provider that was asked for, or a word on why not."""

from __future__ import annotations

import pytest

from app.engine.providers import choose_provider, open_session, session_options
from app.errors import ProviderUnavailable
from tests.app.conftest import ARTIFACTS

GRAPH = ARTIFACTS / "dkt" / "1" / "sequence.onnx"


def test_cuda_that_cannot_be_had_is_refused_with_what_is_missing():
    """By name of the package, and with the way out."""
    with pytest.raises(ProviderUnavailable, match=r"onnxruntime-gpu.*KT_PROVIDER=cpu"):
        choose_provider("cuda", available=["CPUExecutionProvider"])


def test_auto_falls_back_and_says_why():
    """And takes CUDA where it is built in."""
    fallen = choose_provider("auto", available=["CPUExecutionProvider"])
    had = choose_provider("auto", available=["CUDAExecutionProvider", "CPUExecutionProvider"])

    assert (fallen.effective, "onnxruntime-gpu" in fallen.fallback_reason) == ("cpu", True)
    assert (had.effective, had.fallback_reason) == ("cuda", None)


def test_cpu_asks_for_nothing_more():
    """No fallback is noted where none was made."""
    chosen = choose_provider("cpu", available=["CUDAExecutionProvider"])

    assert (chosen.effective, chosen.fallback_reason) == ("cpu", None)


def test_a_session_that_would_quietly_run_elsewhere_is_refused():
    """ONNX Runtime without CUDA opens the graph on the CPU and says nothing."""
    with pytest.raises(ProviderUnavailable):
        open_session(GRAPH, "cuda", 1)


def test_threads_are_told_and_never_spin():
    """Defaults would count the host's cores and burn them."""
    options = session_options("cpu", 3)

    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (3, 1)
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
