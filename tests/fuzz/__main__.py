"""Fuzz the API and the readers: no 500, no hang, no crash.

    make fuzz                                    # or: ARGS="--seconds 600"
    python -m tests.fuzz --seconds 120 --only api

Starts a server of its own with keys on, and lets schemathesis send it whatever its OpenAPI
document allows and forbids, with every check there is; then atheris each reader of bytes
(`readers.py`). Both live in an environment of their own (`.venv-fuzz`). Writes
bench-results/fuzz.json; exits with 1 where anything was found, which is printed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from app.keys import SCOPES, made
from benchmarks.server import ROOT, own_server
from tests.fuzz.readers import TARGETS

PACKAGES = ROOT / ".venv-fuzz"
CONFIG = Path(__file__).with_name("schemathesis.toml")

BY_DESIGN = {
    # What is wrong with one item of a batch stands at its place in a 200 and hurts no other.
    "/predict/batch": "negative_data_rejection",
}
"""Checks that do not hold of a path, and need not."""


def main(arguments: list[str] | None = None) -> int:
    """Fuzz what the command line names; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--only", choices=["api", *TARGETS], nargs="+")
    parser.add_argument("--out", type=Path, default=Path("bench-results/fuzz.json"))
    given = parser.parse_args(arguments)
    console = Console()
    rows = []
    for target in given.only or ["api", *TARGETS]:
        console.print(f"{target}: {given.seconds} s")
        began = time.monotonic()
        cases, found, said = (
            api(given.seconds) if target == "api" else reader(target, given.seconds)
        )
        spent_s = round(time.monotonic() - began, 1)
        rows.append({"target": target, "cases": cases, "seconds": spent_s, "found": found})
        if found:
            console.print(said, markup=False, highlight=False)
    table = Table("target", "cases", "seconds", "found")
    for row in rows:
        table.add_row(row["target"], f"{row['cases']:,}", str(row["seconds"]), str(row["found"]))
    console.print(table)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return 1 if any(row["found"] for row in rows) else 0


def api(seconds: int) -> tuple[int, int, str]:
    """Return how many requests were sent, how many kinds of failure found, and what was said."""
    with tempfile.TemporaryDirectory(prefix="ktserve-fuzz-") as temporary:
        folder = Path(temporary)
        secret, key = made("fuzz", SCOPES, "fuzzed", None, None)
        keys: Any = {"keys": [key.model_dump(exclude_none=True)]}
        (folder / "keys.json").write_text(json.dumps(keys))
        settings = {"KT_LOG_LEVEL": "warning", "KT_KEYS_FILE": str(folder / "keys.json")}
        with own_server(folder / "data", settings) as server:
            found, cases, said = 0, 0, ""
            for path in (None, *BY_DESIGN):
                share = seconds if path is None else max(5, seconds // 4)
                ran = _schemathesis(f"{server.url}/openapi.json", secret, path, share)
                cases += _number(r"([\d,]+) generated", ran)
                if " failures" in ran.splitlines()[-1] or " failure" in ran.splitlines()[-1]:
                    found += _number(r"found ([\d,]+) unique", ran)
                    said += ran
            if server.process.poll() is not None:
                found, said = found + 1, said + "the server has ended\n"
    return cases, found, said


def _schemathesis(url: str, secret: str, only: str | None, seconds: int) -> str:
    command = [
        *(str(PACKAGES / "bin/schemathesis"), "--config-file", str(CONFIG)),
        *("run", url, "--no-color", "--continue-on-failure"),
        *("-H", f"Authorization: Bearer {secret}", "--max-time", str(seconds)),
    ]
    if only is None:
        command += [part for path in BY_DESIGN for part in ("--exclude-path", path)]
    else:
        command += ["--include-path", only, "--exclude-checks", BY_DESIGN[only]]
    done = subprocess.run(
        command,
        cwd=tempfile.gettempdir(),
        env={**os.environ, "PYTHONPATH": str(ROOT), "SCHEMATHESIS_HOOKS": "tests.fuzz.hooks"},
        capture_output=True,
        text=True,
        timeout=seconds * 3 + 300,
    )
    return (done.stdout + done.stderr).rstrip()


def reader(target: str, seconds: int) -> tuple[int, int, str]:
    """Return how often a reader was called, whether anything was found, and what was said."""
    (packages,) = PACKAGES.glob("lib/python3*/site-packages")
    with tempfile.TemporaryDirectory(prefix="ktserve-fuzz-") as folder:
        command = [
            *(sys.executable, "-m", "tests.fuzz.readers", target, str(packages)),
            *(f"-max_total_time={seconds}", "-timeout=10", "-print_final_stats=1"),
            *("-rss_limit_mb=4096", f"-artifact_prefix={folder}/"),
        ]
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=seconds * 3 + 300
        )
        found = [path.read_bytes() for path in Path(folder).iterdir()]
    said = done.stderr[-4000:] + "".join(f"\nby {content!r}\n" for content in found)
    return (
        _number(r"number_of_executed_units:\s+(\d+)", done.stderr),
        int(done.returncode != 0),
        said,
    )


def _number(pattern: str, text: str) -> int:
    match = re.search(pattern, text)
    return int(match[1].replace(",", "")) if match else 0


if __name__ == "__main__":
    sys.exit(main())
