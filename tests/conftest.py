"""How tests are shared by workers."""

from __future__ import annotations

from pathlib import Path

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep together what shares something dear: a module's fixtures, or one exported network."""
    for item in items:
        params = getattr(getattr(item, "callspec", None), "params", {})
        group = params.get("exported", Path(item.fspath).stem)
        item.add_marker(pytest.mark.xdist_group(str(group)))
