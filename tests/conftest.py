"""How tests are shared by workers, and the workers by the cores."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# How long an example takes says more of the machine than of what is tried.
settings.register_profile("ktserve", deadline=None)
settings.load_profile("ktserve")

# Two workers that each start as many torch threads as there are cores wait for one another: the
# leak tests took thirty times as long. Here, because torch reads it once, when it is imported.
os.environ["OMP_NUM_THREADS"] = "1"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep together what shares something dear: a module's fixtures, or one exported network."""
    for item in items:
        params = getattr(getattr(item, "callspec", None), "params", {})
        group = params.get("exported", Path(item.fspath).stem)
        item.add_marker(pytest.mark.xdist_group(str(group)))
