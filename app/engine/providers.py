"""Which execution provider runs the models, and sessions that really have it."""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import onnxruntime

from app.errors import ProviderUnavailable

Provider = Literal["cpu", "cuda"]
Requested = Literal["auto", "cpu", "cuda"]

_ORT_NAMES: dict[Provider, str] = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}

_CUDA_OPTIONS = {"use_tf32": "0"}  # its ten-bit mantissas would miss the tolerance of the proof

_SILENT_BELOW_ERROR = 3


@dataclass(frozen=True, slots=True)
class ProviderChoice:
    """The provider asked for and the one had; the reason where `auto` had to fall back."""

    requested: Requested
    effective: Provider
    fallback_reason: str | None = None

    def fallen_back(self, reason: str) -> ProviderChoice:
        """Return the choice of the CPU instead, for this reason."""
        return ProviderChoice(self.requested, "cpu", reason)


def choose_provider(requested: Requested, available: Sequence[str] | None = None) -> ProviderChoice:
    """Choose by what this ONNX Runtime was built with (`available`; asked of it when None).

    Raises `ProviderUnavailable` where `cuda` is required and was not built in. That its libraries
    load is known only when `open_session` has opened one.
    """
    if requested == "cpu":
        return ProviderChoice("cpu", "cpu")
    available = onnxruntime.get_available_providers() if available is None else available
    if _ORT_NAMES["cuda"] in available:
        return ProviderChoice(requested, "cuda")
    missing = _what_is_missing(_is_installed("onnxruntime-gpu"))
    if requested == "cuda":
        raise ProviderUnavailable(f"KT_PROVIDER=cuda: {missing}; or set KT_PROVIDER=cpu")
    return ProviderChoice(requested, "cpu", missing)


def open_session(path: Path, provider: Provider, threads: int) -> onnxruntime.InferenceSession:
    """Open a graph on exactly this provider, with `threads` inside one run.

    Raises `ProviderUnavailable` where ONNX Runtime would quietly take the CPU instead, and ONNX
    Runtime's own errors where the file is not a graph it can run.
    """
    if provider == "cpu":
        return _open(path, provider, threads)
    said = _load_cuda_libraries()
    try:
        session = _open(path, provider, threads)
    except Exception as exc:
        # A graph that the CPU cannot open either is the graph's fault, and raises as such here.
        _open(path, "cpu", threads)
        raise _not_loaded(f"{exc} {said}") from exc
    require_provider(session, provider, said)
    return session


def require_provider(
    session: onnxruntime.InferenceSession, provider: Provider, said: str = ""
) -> None:
    """Raise `ProviderUnavailable` unless the session has the provider; `said` joins the message."""
    if _ORT_NAMES[provider] not in session.get_providers():
        raise _not_loaded(f"the session has only {', '.join(session.get_providers())}. {said}")


def session_options(provider: Provider, threads: int) -> onnxruntime.SessionOptions:
    """Return the options of every session, none left to a default that counts the host's cores."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    # The cores are shared with the event loop and, often, the store: no thread may spin on them.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Shapes differ from run to run: no pattern is met again, and the CPU's arena only grows.
    options.enable_mem_pattern = False
    options.enable_cpu_mem_arena = provider != "cpu"
    options.log_severity_level = _SILENT_BELOW_ERROR
    return options


def _open(path: Path, provider: Provider, threads: int) -> onnxruntime.InferenceSession:
    chosen: list[Any] = [_ORT_NAMES["cpu"]]
    if provider == "cuda":
        chosen.insert(0, (_ORT_NAMES["cuda"], _CUDA_OPTIONS))
    return onnxruntime.InferenceSession(
        str(path),
        sess_options=session_options(provider, threads),
        providers=chosen,
        enable_fallback=0,
    )


def _load_cuda_libraries() -> str:
    """Load CUDA and cuDNN from their packages, and return what was said about it."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        onnxruntime.preload_dlls()
    return " ".join(said.getvalue().split())


def _what_is_missing(is_gpu_build_installed: bool) -> str:
    if is_gpu_build_installed:
        return (
            "onnxruntime-gpu is installed, but the package onnxruntime beside it hides it; "
            "uninstall both and install the extra `gpu` alone"
        )
    return "the package onnxruntime-gpu is not installed; install the extra `gpu`"


def _is_installed(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _not_loaded(detail: str) -> ProviderUnavailable:
    return ProviderUnavailable(
        "onnxruntime-gpu is installed, but CUDA could not be had: its libraries (CUDA, cuDNN) "
        "could not be loaded or no device is visible; set KT_PROVIDER=cpu to do without. "
        + detail.strip()
    )
