"""Several networks that answer as one: the mean of their logits.

Members are trained apart, from other seeds or as other networks, and err apart; their mean errs
less than any of them. One graph, one artifact: whoever serves it does not see that they are many.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from models.nets.layers.places import Places


@dataclass(frozen=True, kw_only=True)
class EnsembleConfig:
    """The members; all of them read the same vocabulary and the same windows."""

    n_questions: int  # tables count PAD and UNSEEN
    n_skills: int
    members: tuple[Mapping[str, Any], ...] = ()  # network: its name; config: its own options


class Ensemble(nn.Module):
    """Members side by side."""

    fitted_by = "members"
    features = dict.fromkeys(
        ("question", "skills", "counts", "lag_s", "elapsed_s"), "as each member in config reads it"
    )

    def __init__(self, config: EnsembleConfig) -> None:
        """Raise `ValueError` where there is no member, or one that cannot be built."""
        from models.nets import build  # the registry names this file: no import at the top

        super().__init__()
        if not config.members:
            raise ValueError("an ensemble needs members")
        self.config = config
        sizes = {"n_questions": config.n_questions, "n_skills": config.n_skills}
        self.members = nn.ModuleList(
            build(member["network"], {**sizes, **member["config"]}) for member in config.members
        )

    @property
    def is_causal(self) -> bool:
        """One pass answers at every place if it does in every member."""
        return all(member.is_causal for member in self.members)

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the logit that the last question is answered right, (B,)."""
        return torch.stack([member(*inputs) for member in self.members]).mean(dim=0)

    def every_place(self, *inputs: Tensor) -> Places:
        """Return the logits at every place, each from the answers before it alone."""
        logits = [member.every_place(*inputs).logit for member in self.members]  # type: ignore[operator]
        return Places(torch.stack(logits).mean(dim=0))
