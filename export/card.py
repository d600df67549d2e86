"""The model card: a manifest, told to people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from models.contract.artifact import Manifest
from models.contract.calibration import Calibration

_COLUMNS = ("auc", "accuracy", "log_loss", "ece")


def card(manifest: Manifest) -> str:
    """Return `card.md` for an artifact."""
    training, window = manifest.training, manifest.window
    splits = training["splits"]
    lines = [
        f"# {manifest.name}, version {manifest.version}",
        "",
        f"Network `{manifest.network}` over {manifest.n_questions:,} questions "
        f"and {manifest.n_skills:,} skills.",
        "",
        "## What it answers",
        "",
        "The chance that a user answers a question right, from the answers before it"
        + (
            ", and that chance for every skill (the knowledge state)."
            if any(o.name == "knowledge_state" for o in manifest.graphs["sequence"].outputs)
            else "."
        ),
        f"It sees up to {window.length - 1:,} past answers"
        + (f", cut in blocks of {window.cut:,}." if window.cut > 1 else "."),
        "",
        "## Trained on",
        "",
        f"Data set `{training['source']['set']}`, split by user, seed {training['seed']}.",
        "",
        "| split | users | answers |",
        "|---|---|---|",
        *(f"| {name} | {s['users']:,} | {s['answers']:,} |" for name, s in splits.items()),
        "",
        "## Measured",
        "",
        f"On the {manifest.metrics['split']} split, {manifest.metrics['scored']}; "
        "in brackets the 95 % interval when users are drawn again.",
        "",
        "| history | answers | AUC | accuracy | log loss | ECE |",
        "|---|---|---|---|---|---|",
        _row("all", manifest.metrics["all"]),
        *(_row(n, part) for n, part in manifest.metrics["by_history_length"].items()),
        *_calibration(manifest.calibration),
        "",
        "## Proved",
        "",
        *(
            f"`{name}`: {report['cases']} batches against the trained network, "
            f"largest difference {report['largest_difference']:.1e} "
            f"(allowed {report['tolerance']})."
            for name, report in manifest.parity.items()
            if isinstance(report, Mapping)
        ),
        "",
        "## Limits",
        "",
        "Questions and skills that were not in the training data are answered from what is known "
        "of them (the skill, or the average) and named in `unseen`.",
        "The users of the training data were of one course and time; measure on your own learners "
        "before a decision rests on a number.",
        "",
    ]
    return "\n".join(lines)


def _calibration(calibration: Calibration) -> list[str]:
    if calibration.is_identity:
        return ["", "Not calibrated: the probabilities are the network's own."]
    on, ece = calibration.fitted_on, calibration.ece
    return [
        "",
        "These are calibrated probabilities: the logit is scaled and shifted by how many answers "
        f"the window shows, fitted on {on['answers']:,} answers of {on['users']:,} users of the "
        f"{on['split']} split.",
        "",
        "| history | ECE before calibration | after |",
        "|---|---|---|",
        *(
            f"| {name} | {ece['before'][name]:.4f} | {ece['after'][name]:.4f} |"
            for name in ece["after"]
        ),
    ]


def _row(name: str, part: Mapping[str, Any]) -> str:
    cells = [
        f"{part[m]['value']:.4f} [{part[m]['low']:.4f}, {part[m]['high']:.4f}]" if m in part else ""
        for m in _COLUMNS
    ]
    return f"| {name} | {part['answers']:,} | " + " | ".join(cells) + " |"
