"""How tests are shared by workers, and the workers by the cores."""

from __future__ import annotations

import os

from hypothesis import settings

# How long an example takes says more of the machine than of what is tried.
settings.register_profile("ktserve", deadline=None)
settings.load_profile("ktserve")

# Two workers that each start as many torch threads as there are cores wait for one another: the
# leak tests took thirty times as long. Here, because torch reads it once, when it is imported.
os.environ["OMP_NUM_THREADS"] = "1"
