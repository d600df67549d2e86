"""Versions of models: the folders `<model>/<version>` of an artifact folder."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from app.errors import ArtifactInvalid
from models.contract.artifact import MANIFEST


def versions_of(artifact_dir: Path) -> dict[str, list[Path]]:
    """Return the folders of each model's versions, oldest first: 10 is newer than 9.

    Raises `ArtifactInvalid` where there is no folder or no model in it, or it cannot be read.
    """
    try:
        return _versions_of(artifact_dir)
    except OSError as exc:
        raise ArtifactInvalid(
            f"{exc.filename or artifact_dir} cannot be read: {exc.strerror}"
        ) from exc


def newest_versions(artifact_dir: Path) -> list[Path]:
    """Return each model's newest version; raise as `versions_of` does."""
    return [versions[-1] for versions in versions_of(artifact_dir).values()]


def chosen_versions(artifact_dir: Path, chosen: Mapping[str, str]) -> list[Path]:
    """Return each model's chosen version, its newest where none is.

    Raises `ArtifactInvalid` as `versions_of` does, and where one that is chosen is not there.
    """
    found = versions_of(artifact_dir)
    for model, version in chosen.items():
        there = [folder.name for folder in found.get(model, [])]
        if version not in there:
            raise ArtifactInvalid(
                f"KT_MODEL_VERSIONS wants {model}={version}; "
                f"{artifact_dir} has {', '.join(there) or 'no version'} of it"
            )
    return [artifact_dir / m / chosen.get(m, versions[-1].name) for m, versions in found.items()]


def is_newer(version: str, than: str) -> bool:
    """Say whether a version comes after another."""
    return _in_order(version) > _in_order(than)


def _versions_of(artifact_dir: Path) -> dict[str, list[Path]]:
    if not artifact_dir.is_dir():
        raise ArtifactInvalid(
            f"{artifact_dir} is no folder; KT_ARTIFACT_DIR names <model>/<version>/"
        )
    found = {
        model.name: sorted(versions, key=lambda folder: _in_order(folder.name))
        for model in sorted(_folders(artifact_dir))
        if (versions := [v for v in _folders(model) if _has_manifest(v)])
    }
    if not found:
        raise ArtifactInvalid(
            f"{artifact_dir} holds no model; "
            f"`python -m export RUN {artifact_dir}/<model>/<version>` puts one there"
        )
    return found


def _folders(parent: Path) -> list[Path]:
    try:
        found = [*parent.iterdir()]
    except FileNotFoundError:  # taken away since it was seen
        return []
    return [f for f in found if f.is_dir() and not f.name.startswith(".")]


def _has_manifest(folder: Path) -> bool:
    try:
        return (folder / MANIFEST).is_file()
    except PermissionError:  # whoever opens it will say so; the others are there all the same
        return True


def _in_order(version: str) -> list[tuple[bool, int, str]]:
    """Return what sorts versions as people read them: runs of digits as numbers."""
    parts = re.findall(r"\d+|\D+", version)
    return [(p.isdecimal(), int(p) if p.isdecimal() else 0, p) for p in parts]
