"""The calibration as a part of a graph: whoever runs the graph gets calibrated numbers."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from models.contract.calibration import Calibration


class Calibrated(nn.Module):
    """logit' = scale(n) * logit + shift(n); see `models.contract.calibration`."""

    def __init__(self, calibration: Calibration) -> None:
        super().__init__()
        self.is_identity = calibration.is_identity
        if self.is_identity:
            return
        at = np.log1p(np.array(calibration.knots, np.float64))
        values = np.array([calibration.scales, calibration.shifts])  # (2, knots)
        self.begin: Tensor
        self.width: Tensor
        self.slope: Tensor
        self.first: Tensor
        for name, array in (
            ("begin", at[:-1]),
            ("width", np.diff(at)),
            ("slope", np.diff(values) / np.diff(at)),
            ("first", values[:, 0]),
        ):
            self.register_buffer(name, torch.tensor(array, dtype=torch.float32))

    def forward(self, logit: Tensor, answers: Tensor) -> Tensor:
        """Logits (B,) or (B, S), answers shown (B,) -> calibrated logits of the same shape."""
        if self.is_identity:
            return logit
        where = torch.log1p(answers.to(torch.float32))[:, None]  # (B, 1)
        # How far into each piece between two knots a row has come: linear interpolation in sums.
        passed = torch.minimum((where - self.begin).clamp(min=0.0), self.width)  # (B, knots - 1)
        scale = self.first[0] + (passed * self.slope[0]).sum(dim=1)  # (B,)
        shift = self.first[1] + (passed * self.slope[1]).sum(dim=1)
        if logit.ndim == 2:
            scale, shift = scale[:, None], shift[:, None]
        return scale * logit + shift
