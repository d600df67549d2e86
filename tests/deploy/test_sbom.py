"""The bill of materials: what the image is made of, neither more nor less."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOL = ROOT / ".venv-deploy/bin/cyclonedx-py"
_PIN = re.compile(
    r"^([a-z0-9._-]+)==(\S+?) \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", re.MULTILINE
)


def locked(text: str) -> dict[str, tuple[str, set[str]]]:
    """Every package of a lock, with its version and its files' hashes."""
    return {
        name: (version, set(re.findall(r"sha256:([0-9a-f]{64})", hashes)))
        for name, version, hashes in _PIN.findall(text)
    }


@pytest.mark.skipif(not TOOL.exists(), reason="make sbom has not installed its tool")
def test_the_sbom_names_every_locked_package_and_only_those(tmp_path):
    """With version and hashes, in the form that `make sbom` asks for; the same every time."""
    target = next(
        line.strip()
        for line in (ROOT / "Makefile").read_text().splitlines()
        if "bin/cyclonedx-py" in line
    )
    out = tmp_path / "sbom.json"
    command = [str(out) if word == "build/sbom.json" else word for word in target.split()]

    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)

    sbom = json.loads(out.read_text())
    named = {
        c["name"]: (
            c["version"],
            {h["content"] for r in c["externalReferences"] for h in r.get("hashes", [])},
        )
        for c in sbom["components"]
    }
    text = (ROOT / "requirements.lock").read_text()
    assert named == locked(text)
    assert len(named) == text.count("==")
    assert all(c["purl"] == f"pkg:pypi/{c['name']}@{c['version']}" for c in sbom["components"])
    assert sbom["metadata"]["component"]["name"] == "ktserve"
    assert "timestamp" not in sbom["metadata"]


def test_every_package_of_the_lock_has_its_hashes():
    """What the bill is compared with is read whole."""
    text = (ROOT / "requirements.lock").read_text()

    assert len(locked(text)) == text.count("==")
    assert all(hashes for _, hashes in locked(text).values())
