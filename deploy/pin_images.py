"""Put behind every image's name the digest that its registry gives for it today.

    make pin-images

A name can be given to another image at any time; a digest cannot. Needs docker and a registry that
can be reached. All are looked up before anything is written. Run again, it moves on to the newest.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

FILES = ("Dockerfile", "docker-compose.yml")
_OURS = "ktserve:"
_NAME = re.compile(
    r"^(?P<key>FROM|[ ]+image:)[ ]+(?P<name>[^\s@]+)(?:@sha256:[0-9a-f]{64})?(?P<rest>.*)$",
    re.MULTILINE,
)
_DIGEST = re.compile(r"@(sha256:[0-9a-f]{64})$", re.MULTILINE)


class ImageUnknown(Exception):
    """No registry told the digest of an image."""


def names(text: str) -> set[str]:
    """Return the images that a file is built on or starts, but our own."""
    found = {m["name"] for m in _NAME.finditer(text)}
    return {name for name in found if not name.startswith(_OURS)}


def pinned(text: str, digests: dict[str, str]) -> str:
    """Return the text with a digest behind every name that has one."""

    def put(match: re.Match[str]) -> str:
        digest = digests.get(match["name"])
        if digest is None:
            return match[0]
        return f"{match['key']} {match['name']}@{digest}{match['rest']}"

    return _NAME.sub(put, text)


def digest_of(name: str) -> str:
    """Return the digest of an image, which stands for all its platforms; raise `ImageUnknown`."""
    pull = subprocess.run(
        ["docker", "pull", "-q", name], capture_output=True, text=True, check=False
    )
    if pull.returncode:
        raise ImageUnknown(f"{name}: {pull.stderr.strip()}")
    told = subprocess.run(
        ["docker", "image", "inspect", "--format", '{{join .RepoDigests "\\n"}}', name],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    found = _DIGEST.search(told)
    if found is None:
        raise ImageUnknown(f"{name}: docker knows no digest of it")
    return found[1]


def main(root: Path) -> int:
    """Pin every image; return the exit code."""
    texts = {root / name: (root / name).read_text(encoding="utf-8") for name in FILES}
    try:
        digests = {
            name: digest_of(name) for name in sorted(set().union(*map(names, texts.values())))
        }
    except ImageUnknown as exc:
        print(f"pin-images: {exc}; nothing was changed", file=sys.stderr)
        return 1
    for path, text in texts.items():
        path.write_text(pinned(text, digests), encoding="utf-8")
    for name, digest in digests.items():
        print(f"{name}@{digest}")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(__file__).parents[1]))
