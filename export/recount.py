"""Publish an artifact of before once more, with what its training split was like.

Graphs, vocabulary and golden windows are the same files: nothing is exported or proved anew.
"""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

from export.card import card
from export.inputs import inputs_of
from export.publish import Say, reads_lag, staged
from models.contract.artifact import CARD, MANIFEST, VOCABULARY, Manifest, ManifestError, sha256_of
from models.contract.vocabulary import Vocabulary


def recount(folder: Path, out: Path, say: Say = print) -> Manifest:
    """Publish the artifact in `folder` at `out` (`<model>/<version>`), with its inputs counted.

    Raises `ManifestError` where the folder is no artifact, or its training split cannot be read.
    """
    if out.exists():
        raise FileExistsError(f"{out} is there already; a version is never written over")
    before = Manifest.load(folder)
    before.check_files(folder)
    inputs = inputs_of(
        before.training,
        before.training["seed"],
        Vocabulary.load(folder / VOCABULARY),
        say,
        reads_lag=reads_lag(before.graphs),
    )
    if not inputs.is_known:
        raise ManifestError(f"{folder}: there is nothing to add")
    with staged(out) as stage:
        for name in before.files:
            shutil.copyfile(folder / name, stage / name)
        manifest = dataclasses.replace(
            before, name=out.parent.name, version=out.name, inputs=inputs
        )
        (stage / CARD).write_text(card(manifest), encoding="utf-8")
        files = {p.name: sha256_of(p) for p in sorted(stage.iterdir()) if p.name != MANIFEST}
        manifest = dataclasses.replace(manifest, files=files)
        manifest.save(stage)
        Manifest.load(stage).check_files(stage)
    return manifest
