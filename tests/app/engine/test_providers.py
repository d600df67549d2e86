"""The provider that was asked for, or a word on why not."""

from __future__ import annotations

import pytest

from app.engine.providers import (
    choose_provider,
    open_session,
    require_provider,
    session_options,
)
from app.errors import ProviderUnavailable
from tests.app.conftest import SHIPPED

GRAPH = SHIPPED["dkt"] / "sequence.onnx"


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


def test_auto_that_falls_back_late_keeps_what_was_asked_for():
    """CUDA may be built in and still not load: that is known only with the first session."""
    chosen = choose_provider("auto", available=["CUDAExecutionProvider"])
    fallen = chosen.fallen_back("no device")

    assert (fallen.requested, fallen.effective) == ("auto", "cpu")
    assert fallen.fallback_reason == "no device"


def test_a_session_that_quietly_runs_elsewhere_is_refused():
    """ONNX Runtime without CUDA opens the graph on the CPU and says nothing."""
    session = open_session(GRAPH, "cpu", 1)

    require_provider(session, "cpu")
    with pytest.raises(ProviderUnavailable, match=r"only CPUExecutionProvider\. libcublas"):
        require_provider(session, "cuda", "libcublas.so is missing")


def test_a_broken_graph_is_not_blamed_on_the_provider(tmp_path):
    """Or `auto` would fall back, and `cuda` would name a package that is there."""
    broken = tmp_path / "sequence.onnx"
    broken.write_bytes(GRAPH.read_bytes()[:1000])

    with pytest.raises(Exception, match=r"sequence\.onnx") as caught:
        open_session(broken, "cuda", 1)
    assert not isinstance(caught.value, ProviderUnavailable)


def test_threads_are_told_and_never_spin():
    """Defaults would count the host's cores and burn them."""
    options = session_options("cpu", 3)

    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (3, 1)
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
