"""Digests behind the names of images."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from deploy import pin_images

ROOT = Path(__file__).parents[2]
IMAGES = {
    *("python:3.11-slim-bookworm", "redis:7-bookworm"),
    *("prom/prometheus:v3.5.0", "grafana/grafana:12.1.0"),
}
DOCKER = """#!/bin/sh
case "$1 $2" in
  "pull -q") test "$3" != "$MISSING" ;;
  *) echo "$5@sha256:$(printf %s "$5" | sha256sum | cut -d ' ' -f 1)" ;;
esac
"""


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files that name images, and a docker that knows all of them."""
    for name in pin_images.FILES:
        shutil.copy(ROOT / name, tmp_path / name)
    docker = tmp_path / "bin/docker"
    docker.parent.mkdir()
    docker.write_text(DOCKER)
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{docker.parent}:/usr/bin:/bin")
    return tmp_path


def texts(folder: Path) -> list[str]:
    return [(folder / name).read_text() for name in pin_images.FILES]


def test_every_image_is_pinned(repository):
    """Those that are built on and those that are started, but our own; nothing else is touched."""
    before = texts(repository)

    assert pin_images.main(repository) == 0

    after = texts(repository)
    assert set().union(*map(pin_images.names, after)) == IMAGES
    assert "".join(after).count("@sha256:") == 6
    assert "image: ktserve:latest\n" in after[1]
    assert [pin_images.pinned(text, {}) for text in after] == after
    digests = {name: pin_images.digest_of(name) for name in IMAGES}
    for text, was in zip(after, before, strict=True):
        unpinned = text
        for digest in digests.values():
            unpinned = unpinned.replace(f"@{digest}", "")
        assert unpinned == was


def test_pinning_again_moves_to_the_digest_of_the_day(repository):
    """One digest a name, never two."""
    pin_images.main(repository)
    once = texts(repository)

    pin_images.main(repository)

    assert texts(repository) == once


def test_where_one_is_not_to_be_had_nothing_is_written(repository, monkeypatch, capsys):
    """Half of the images pinned would look like all of them."""
    monkeypatch.setenv("MISSING", "redis:7-bookworm")
    before = texts(repository)

    assert pin_images.main(repository) == 1

    assert texts(repository) == before
    assert "redis:7-bookworm" in capsys.readouterr().err
