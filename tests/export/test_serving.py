"""Every kind of network is served by the one service, and says there what it was trained to."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from app.settings import Settings
from models.contract.artifact import Manifest
from models.datasets.encoded import encode
from models.datasets.simulator import simulate
from models.evaluation.calibration import apply_to_users
from models.evaluation.subject import open_subject
from tests.app.conftest import SHIPPED, serving

ASKED_AT = (0, 1, 7, 39, 40, 55)  # answers before; windows of 40 places are cut from 40 on


def test_every_network_is_served_stored_or_inline_as_it_was_measured(exported, tmp_path):
    """`/predict` from the store, from a history in the body, and torch's own number: one."""
    run, artifact = exported
    network = Manifest.load(artifact).name
    has_vector = network in ("bkt", "dkt")
    # A service has a knowledge model: where the network is none, the shipped one.
    folders = [artifact] if has_vector else [artifact, SHIPPED["dkt"]]
    for folder in folders:
        shutil.copytree(folder, tmp_path / "artifacts" / folder.parent.name / folder.name)
    settings = Settings(
        artifact_dir=tmp_path / "artifacts",
        data_dir=tmp_path / "data",
        default_model=network,
        knowledge_model=network if has_vector else "dkt",
    )
    # Of the questions and skills that the networks were trained on, another learner.
    simulation = simulate(users=1, answers=60, questions=15, skills=4, seed=2)
    answers = [answer_of(row) for row in simulation.frame.iter_rows(named=True)]
    measured = measured_by(run, simulation.dataset)

    with serving(settings) as client:
        recorded = 0
        for at in ASKED_AT:
            if new := answers[recorded:at]:
                posted(client, "/users/u0/interactions", {"interactions": new})
            recorded = at
            ask = {k: answers[at][k] for k in ("question_id", "skill_ids", "asked_ms")}
            stored = posted(client, "/predict", {**ask, "user_id": "u0"})
            inline = posted(client, "/predict", {**ask, "history": answers[:at]})

            assert stored["model"]["name"] == network
            assert stored["history_length"] == at
            assert stored["p_correct"] == pytest.approx(inline["p_correct"], abs=1e-5)
            assert stored["p_correct"] == pytest.approx(measured[at], abs=2e-5)
            assert stored["knowledge_state"] == pytest.approx(inline["knowledge_state"], abs=1e-5)
        state = client.get("/users/u0/knowledge-state").json()

    assert state["model"]["name"] == settings.knowledge_model
    assert state["history_length"] == recorded
    assert len(state["skills"]) == Manifest.load(folders[-1]).n_skills
    assert all(0 < skill["probability"] < 1 for skill in state["skills"])


def answer_of(row: dict) -> dict:
    """Return a row of a log as the service is told of it."""
    return {
        "question_id": row["question_id"],
        "skill_ids": row["skill_id"].split(";"),
        "correct": bool(row["correct"]),
        "asked_ms": row["timestamp_ms"],
        "elapsed_ms": row["elapsed_ms"],
    }


def measured_by(run, dataset) -> np.ndarray:
    """Return what an evaluation of the run finds for each answer of the one user."""
    subject = open_subject(run)
    users = encode(dataset, subject.vocabulary)
    found = subject.predict(users)
    return apply_to_users(subject.run.calibration, users, found, subject.window)[0]


def posted(client, path: str, body: dict) -> dict:
    answer = client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()
