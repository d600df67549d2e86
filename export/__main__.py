"""Publish a trained run as an artifact.

python -m export runs/last-query-assist2017 artifacts/last_query/1
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from export.publish import publish


def main(arguments: list[str] | None = None) -> int:
    """Export by the command line; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m export",
        description="Export a run, prove it against its network, and publish it.",
    )
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument("out", type=Path, help="artifact folder to make: <model>/<version>")
    given = parser.parse_args(arguments)
    if given.out.parent.name in ("", "..") or given.out.name == "..":
        parser.error(f"{given.out}: must end in <model>/<version>, as artifacts/dkt/1 does")
    try:
        manifest = publish(given.run, given.out, lambda line: print(line, file=sys.stderr))
    except (ValueError, OSError, RuntimeError) as exc:
        print(f"export: {exc}", file=sys.stderr)
        return 1
    print(f"{manifest.name} {manifest.version} is in {given.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
