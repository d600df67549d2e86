"""Promises about the repository itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from app.main import create_app
from app.settings import Settings

ROOT = Path(__file__).parents[2]


def test_the_service_starts_without_what_trains():
    """Nothing that serving imports brings in torch, a data frame, an exporter, or what traces."""
    code = (
        "import sys, app.__main__, app.main, models.contract.artifact\n"
        "heavy = {'torch', 'pandas', 'polars', 'onnx', 'onnxscript', 'sklearn', 'matplotlib'}\n"
        "heavy |= {'opentelemetry.sdk.trace', 'opentelemetry.exporter', 'requests'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "module", ["app.engine.providers", "export.parity", "models.evaluation.graph"]
)
def test_nobody_is_told_that_models_are_run(module, tmp_path):
    """ONNX Runtime would begin when it is loaded, and number the machine in these folders."""
    code = f"import sys, {module}; print('onnxruntime' in sys.modules)"
    environ = {"HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-B", "-c", code],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.strip() == "True"
    assert list(tmp_path.rglob("*")) == []


def test_the_serving_lock_holds_no_torch():
    """Every line of it is pinned and hashed."""
    text = (ROOT / "requirements.lock").read_text()
    pins = [line for line in text.splitlines() if line[:1].isalnum()]

    assert pins
    assert all("==" in line and line.endswith("\\") for line in pins)
    assert not any(line.startswith(("torch", "nvidia", "onnx=", "polars")) for line in pins)
    assert "://" not in text


def test_openapi_in_the_repository_is_the_applications():
    """`make docs` writes it anew."""
    assert json.loads((ROOT / "openapi.json").read_text()) == create_app(Settings()).openapi()


def test_openapi_is_whole():
    """Every reference leads somewhere, every route has a summary, every body an example."""
    document = json.loads((ROOT / "openapi.json").read_text())
    text = json.dumps(document)
    schemas = document["components"]["schemas"]
    for part in text.split('"$ref": "#/components/schemas/')[1:]:
        assert part.split('"')[0] in schemas
    for methods in document["paths"].values():
        for operation in methods.values():
            assert operation["summary"]
            assert operation["description"]
            if "requestBody" in operation:
                assert operation["requestBody"]["content"]["application/json"]["examples"]
    assert "HTTPValidationError" not in text


def test_every_setting_and_metric_is_in_the_operations_manual():
    """What an operator can turn or read is told there, in words."""
    from app.telemetry import Metrics

    manual = (ROOT / "docs" / "operations.md").read_text()
    missing = [
        f"KT_{n.upper()}" for n in Settings.model_fields if f"`KT_{n.upper()}`" not in manual
    ]
    names = [f.name for f in Metrics().registry.collect() if f.name.startswith("kt_")]
    missing += [name for name in names if f"`{name}" not in manual]

    assert missing == []


_NO_TEXT = {".onnx", ".bin", ".npz", ".npy", ".png"}


def test_the_repository_names_no_place_of_its_making():
    """No machine's path and no package registry stands in a tracked file."""
    files = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.split("\0")
    own = Path(__file__).relative_to(ROOT).as_posix()
    for name in filter(None, files):
        path = ROOT / name
        if name == own or path.suffix in _NO_TEXT or not path.is_file():
            continue
        text = path.read_text(encoding="utf-8")
        for word in ("/work/", "/root/", "pypi.org", "files.pythonhosted", "/opt/wheels"):
            assert word not in text, (name, word)


def test_no_artifact_names_a_place_of_its_making():
    """Nor do its graphs: an exporter would note there which lines of code they came from."""
    for path in sorted((ROOT / "artifacts").rglob("*.*")):
        content = path.read_bytes() if path.is_file() else b""
        for word in ("/home/", "/work/", "/root/", "site-packages", f"{ROOT}/"):
            assert word.encode() not in content, (path.name, word)
