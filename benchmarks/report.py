"""What every report says in the same words."""

from __future__ import annotations

import platform
from collections.abc import Sequence

import numpy as np
import onnxruntime

from app.engine.cores import usable_cores


def machine() -> str:
    """Return what the figures were taken on."""
    return (
        f"{usable_cores()} cores, {platform.machine()}, Python {platform.python_version()}, "
        f"ONNX Runtime {onnxruntime.__version__}"
    )


def middle(values: Sequence[float], decimals: int = 3) -> list[float]:
    """Return median, least and most over the rounds."""
    return [round(float(f(values)), decimals) for f in (np.median, np.min, np.max)]
