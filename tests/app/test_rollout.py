"""Versions change while requests run: nobody is refused, and nobody gets a mixture of two."""

from __future__ import annotations

import json
import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from app.candidates import Candidate
from app.engine.versions import chosen_versions
from app.errors import ArtifactInvalid
from app.settings import Settings, SettingsInvalid
from tests.app.api.test_operations import samples
from tests.app.api.test_overload import until
from tests.app.conftest import SHIPPED, serving

NAME = "dkt_asked"
OTHER = "last_query"
"""Another network under the model's name: no two versions could answer more differently."""

ANSWERS = [{"question_id": str(n), "correct": n % 3 > 0} for n in range(30)]


def put_version(artifacts: Path, version: str, of: str = NAME, name: str = NAME) -> Path:
    """Put a shipped artifact into the folder as a version of a model, at once as an export does."""
    beside = artifacts / ".beside"
    shutil.copytree(SHIPPED[of], beside)
    manifest = json.loads((beside / "manifest.json").read_text())
    (beside / "manifest.json").write_text(
        json.dumps({**manifest, "name": name, "version": version})
    )
    folder = artifacts / name / version
    folder.parent.mkdir(parents=True, exist_ok=True)
    os.replace(beside, folder)
    return folder


@pytest.fixture
def artifacts(tmp_path) -> Path:
    """Two versions of one model, of which 1 is the first to be served, and the knowledge model."""
    folder = tmp_path / "artifacts"
    folder.mkdir()
    put_version(folder, "1")
    put_version(folder, "2", of=OTHER)
    shutil.copytree(SHIPPED["dkt"], folder / "dkt" / SHIPPED["dkt"].name)
    return folder


@pytest.fixture
def client(serve, artifacts):
    """A server of version 1, whose requests end within two seconds."""
    return serve(artifact_dir=artifacts, model_versions={NAME: "1"}, deadline_ms=2000)


def ask(client, user_id="u", **more) -> dict:
    body = {"user_id": user_id, "question_id": "17", "knowledge_state": False, **more}
    answer = client.post("/predict", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def change(client, method: str, what: str, **body):
    return client.request(method, f"/models/{NAME}/{what}", json=body or None)


def test_a_version_is_served_and_rolled_back(client):
    """What answers says so; the other one is there to go back to."""
    first = ask(client)
    served = change(client, "PUT", "current", version="2").json()
    second = ask(client)
    back = change(client, "POST", "rollback").json()
    third = ask(client)

    assert served == {"current": "2", "before": "1", "candidate": None, "there": ["1", "2"]}
    assert back == {"current": "1", "before": "2", "candidate": None, "there": ["1", "2"]}
    assert [p["model"]["version"] for p in (first, second, third)] == ["1", "2", "1"]
    assert first["p_correct"] == third["p_correct"] != second["p_correct"]


def test_nobody_is_refused_while_versions_change(client):
    """And every answer is wholly of the version that it names, from states of that version."""
    users = [f"u{n}" for n in range(8)]
    for n, user_id in enumerate(users):
        answers = {"interactions": ANSWERS[: 3 * n]}
        if n:
            client.post(f"/users/{user_id}/interactions", json=answers).raise_for_status()
    expected = {}
    for version in ("2", "1"):
        change(client, "PUT", "current", version=version).raise_for_status()
        expected[version] = {u: ask(client, u)["p_correct"] for u in users}
    over, found = threading.Event(), []

    def caller(number: int) -> None:
        while not over.is_set():
            for user_id in users:
                items = [{"user_id": u, "question_id": "17"} for u in users]
                if number:
                    found.append((user_id, ask(client, user_id)))
                else:
                    batch = client.post("/predict/batch", json={"items": items}).json()["items"]
                    found.extend(zip(users, batch, strict=True))

    with ThreadPoolExecutor(4) as callers:
        running = [callers.submit(caller, number) for number in range(4)]
        try:
            for turn in range(6):
                change(client, "PUT", "current", version="21"[turn % 2]).raise_for_status()
        finally:
            over.set()
        for one in running:
            one.result()

    assert {answer["model"]["version"] for _, answer in found} == {"1", "2"}
    for user_id, answer in found:
        right = expected[answer["model"]["version"]][user_id]
        assert answer["p_correct"] == pytest.approx(right, abs=1e-5)
    requests = samples(client)["kt_requests_total"]
    codes = {dict(labels)["code"] for labels, times in requests.items() if times}
    assert codes == {"200"}


def test_what_cannot_be_served_is_refused_and_the_old_one_stays(client, artifacts):
    """By file and reason: of a hash, of a graph that says something else, of a vocabulary."""
    before = ask(client)
    broken = {
        "3": ("sequence.onnx", lambda f: f.write_bytes(f.read_bytes()[:-100]), "SHA-256"),
        "4": ("vocabulary.json", lambda f: f.unlink(), "vocabulary.json"),
        "5": ("manifest.json", lambda f: f.write_text("{"), "manifest.json"),
        "6": ("manifest.json", another_vocabulary, "fingerprint"),
        "7": ("manifest.json", lambda f: f.write_text("[" * 100_000), "RecursionError"),
        "8": ("manifest.json", endless_windows, "MemoryError"),
    }
    for version, (file, spoil, said) in broken.items():
        spoil(put_version(artifacts, version) / file)
        refusal = change(client, "PUT", "current", version=version)
        offered = change(client, "PUT", "candidate", version=version, compare=True)

        assert refusal.status_code == offered.status_code == 422, refusal.text
        assert refusal.json()["code"] == "version_refused"
        assert said in refusal.json()["detail"]
    after = ask(client)
    lineup = client.get(f"/models/{NAME}/versions").json()

    assert after == before
    assert (lineup["current"], lineup["before"], lineup["candidate"]) == ("1", None, None)
    assert client.get("/readyz").json()["ready"] is True


def endless_windows(path: Path) -> None:
    manifest = json.loads(path.read_text())
    window = {**manifest["window"], "length": 10**15}
    path.write_text(json.dumps({**manifest, "window": window}))


def another_vocabulary(path: Path) -> None:
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps({**manifest, "vocabulary": "0" * 16}))


@pytest.mark.parametrize("version", ["9", "../2", "..", "2/", "."])
def test_a_version_that_is_not_there_is_not_found(client, version):
    """Nor is any other folder."""
    refusal = change(client, "PUT", "current", version=version)

    assert refusal.status_code == 404
    assert refusal.json()["code"] == "version_unknown"
    assert "1, 2" in refusal.json()["detail"]


@pytest.mark.parametrize("what", ["current", "candidate"])
def test_where_the_artifact_folder_has_gone_no_version_is_found(client, artifacts, what):
    """Nor where a file has taken its place; what is open answers on."""
    offer = {"share": 0.5} if what == "candidate" else {}
    shutil.rmtree(artifacts / NAME)
    without_model = change(client, "PUT", what, version="2", **offer)
    shutil.rmtree(artifacts)
    gone = change(client, "PUT", what, version="2", **offer)
    artifacts.write_bytes(b"no folder")
    replaced = change(client, "PUT", what, version="2", **offer)

    for refusal in (without_model, gone, replaced):
        assert (refusal.status_code, refusal.json()["code"]) == (404, "version_unknown")
        assert "version '2' of 'dkt_asked'" in refusal.json()["detail"]
    assert "it has none" in without_model.json()["detail"]
    assert f"{artifacts} is no folder" in replaced.json()["detail"]
    assert client.get(f"/models/{NAME}/versions").json()["there"] == []
    assert ask(client)["model"]["version"] == "1"


def test_a_version_that_goes_while_it_is_opened_is_refused(client, artifacts):
    """Whatever of it is gone by then; a file that is called as one is none."""
    (artifacts / NAME / "3").write_bytes(b"no folder")
    for kept in ("vocabulary.json", "manifest.json"):
        for file in (artifacts / NAME / "2").iterdir():
            if file.name not in ("manifest.json", kept):
                file.unlink()
        refusal = change(client, "PUT", "current", version="2")
        assert (refusal.status_code, refusal.json()["code"]) == (422, "version_refused")

    missing = change(client, "PUT", "current", version="3")
    assert missing.status_code == 404
    assert "it has 1, 2" in missing.json()["detail"]


def test_there_is_nothing_to_roll_back_to_at_first(client):
    """And no such model is no such model."""
    assert change(client, "POST", "rollback").json()["code"] == "version_unknown"
    assert client.post("/models/none/rollback").json()["code"] == "model_unknown"
    assert client.get("/models/none/versions").status_code == 404


def test_a_candidate_answers_its_share_of_the_users(client):
    """The same ones every time; then it may take over, or go."""
    users = [f"u{n}" for n in range(200)]
    offered = change(client, "PUT", "candidate", version="2", share=0.3).json()
    versions = {u: ask(client, u)["model"]["version"] for u in users}
    items = [{"user_id": u, "question_id": "17", "knowledge_state": False} for u in users]
    batch = client.post("/predict/batch", json={"items": items}).json()["items"]

    assert offered["candidate"] == {"version": "2", "share": 0.3, "compare": False}
    assert 30 < sum(v == "2" for v in versions.values()) < 90
    assert [item["model"]["version"] for item in batch] == list(versions.values())
    assert ask(client, user_id=None, history=[])["model"]["version"] == "1"
    answered = samples(client)["kt_candidate_asked_total"][("model", NAME), ("result", "answered")]
    assert answered == 2 * sum(v == "2" for v in versions.values())

    promoted = change(client, "PUT", "current", version="2").json()
    assert (promoted["current"], promoted["candidate"]) == ("2", None)
    change(client, "PUT", "candidate", version="1", share=1).raise_for_status()
    assert ask(client)["model"]["version"] == "1"
    assert change(client, "DELETE", "candidate").json()["candidate"] is None
    assert ask(client)["model"]["version"] == "2"


def test_shares_grow_by_users_and_differ_by_model(serve):
    """Who had the candidate keeps it as its share grows."""
    users = [f"u{n}" for n in range(1000)]

    class Named:
        name = NAME

    few, many = ({u for u in users if Candidate(Named, s, False).answers(u)} for s in (0.1, 0.4))
    assert few < many
    assert 60 < len(few) < 140
    assert {u for u in users if Candidate(Named, 1.0, False).answers(u)} == set(users)
    assert not Candidate(Named, 0.0, True).answers("u")


def test_a_candidate_that_is_compared_answers_nobody(client):
    """How far it is from the one served is in the metrics."""
    alone = ask(client)
    change(client, "PUT", "candidate", version="2", compare=True).raise_for_status()
    beside = ask(client)

    def compared() -> float:
        labels = ("model", NAME), ("result", "compared")
        return samples(client).get("kt_candidate_asked_total", {}).get(labels, 0)

    until(lambda: compared() == 1)
    change(client, "PUT", "current", version="2").raise_for_status()
    difference = samples(client)["kt_candidate_difference_sum"][("model", NAME),]
    assert beside == alone
    assert difference == pytest.approx(abs(ask(client)["p_correct"] - alone["p_correct"]), abs=1e-6)


def test_the_metrics_tell_a_candidate_from_what_is_served(client):
    """For as long as it is one, whether it answers or is compared."""

    def roles() -> set[tuple[str, str]]:
        series = samples(client)["kt_model_info"].items()
        found = [(dict(labels), value) for labels, value in series]
        return {(d["version"], d["role"]) for d, value in found if d["model"] == NAME and value}

    assert roles() == {("1", "current")}
    change(client, "PUT", "candidate", version="2", compare=True).raise_for_status()
    assert roles() == {("1", "current"), ("2", "candidate")}
    change(client, "PUT", "current", version="2").raise_for_status()
    assert roles() - {("1", "current")} == {("2", "current")}  # the old one ends in a while
    change(client, "PUT", "candidate", version="1", share=0.5).raise_for_status()
    assert roles() >= {("2", "current"), ("1", "candidate")}
    change(client, "DELETE", "candidate").raise_for_status()
    assert ("1", "candidate") not in roles()


def test_a_candidate_that_answered_once_is_told_to_answer_no_more(client):
    """It is open still when the version that it was is closed."""

    def answers(version: str) -> float:
        labels = {"model": NAME, "version": version, "role": "current"}
        series = samples(client)["kt_model_info"].items()
        return next(v for k, v in series if labels.items() <= dict(k).items())

    change(client, "PUT", "current", version="2").raise_for_status()
    change(client, "PUT", "candidate", version="1", share=0.5).raise_for_status()

    until(lambda: answers("1") == 0)
    assert answers("2") == 1


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"version": "2"},
        {"version": "2", "share": 2},
        {"version": "2", "share": True},
        {"version": "2", "share": "0.5"},
        {"version": 2, "compare": True},
    ],
)
def test_an_offer_that_cannot_be_meant_is_refused(client, body):
    """By its field."""
    assert client.put(f"/models/{NAME}/candidate", json=body).status_code == 422


def test_the_version_that_is_served_is_no_candidate(client):
    """Nothing could be compared."""
    refusal = change(client, "PUT", "candidate", version="1", compare=True)

    assert (refusal.status_code, refusal.json()["code"]) == (409, "candidate_served")


def test_newer_versions_are_followed(serve, artifacts):
    """As they come; one that is refused is left, and a roll back is not undone."""
    client = serve(artifact_dir=artifacts, follow_artifacts_s=0.05)
    versions = f"/models/{NAME}/versions"
    assert client.get(versions).json()["current"] == "2"

    put_version(artifacts, "10")
    until(lambda: client.get(versions).json()["current"] == "10")
    change(client, "POST", "rollback").raise_for_status()
    broken = put_version(artifacts, "11")
    until(lambda: client.get(versions).json()["there"][-1] == "11")
    (broken / "sequence.onnx").write_bytes(b"")
    put_version(artifacts, "12", of=OTHER)
    until(lambda: client.get(versions).json()["current"] == "12")

    assert ask(client)["model"]["version"] == "12"


def test_what_was_left_is_not_followed_back_to(serve, artifacts):
    """After two steps back, and where the newest folder has gone; nor does one that cannot be
    served end the following.
    """
    client = serve(artifact_dir=artifacts, deadline_ms=1000, follow_artifacts_s=0.05)
    versions = f"/models/{NAME}/versions"

    def follows(version: str, of: str = NAME) -> None:
        put_version(artifacts, version, of=of)
        until(lambda: client.get(versions).json()["current"] == version)

    follows("10")
    change(client, "POST", "rollback").raise_for_status()
    change(client, "PUT", "current", version="1").raise_for_status()
    put_version(artifacts, "1", name="another")
    until(lambda: client.get("/models/another").status_code == 200)
    assert client.get(versions).json()["current"] == "1"

    follows("11", of=OTHER)
    shutil.rmtree(artifacts / NAME / "11")
    beside = put_version(artifacts, "2", name="another")
    until(lambda: client.get("/models/another").json()["version"] == "2")
    assert client.get(versions).json()["current"] == "11"

    (beside.parent / "3").mkdir()
    (beside.parent / "3" / "manifest.json").write_text("[" * 100_000)
    until(lambda: client.get("/models/another/versions").json()["there"][-1] == "3")
    follows("12")


def test_a_version_that_is_gone_back_to_in_time_is_in_use(client):
    """It is opened anew before it was closed; the metrics say of it that it answers."""
    change(client, "PUT", "current", version="2").raise_for_status()
    change(client, "POST", "rollback").raise_for_status()

    def info() -> dict:
        return {dict(k)["version"]: v for k, v in samples(client)["kt_model_info"].items()}

    until(lambda: info()["2"] == 0)
    assert info()["1"] == 1
    assert ask(client)["model"]["version"] == "1"


def test_a_forgotten_user_is_forgotten_by_versions_that_are_still_open(client):
    """They answer whoever began with them, but hold nothing of him."""
    client.post("/users/u/interactions", json={"interactions": ANSWERS}).raise_for_status()
    ask(client)
    assert samples(client)["kt_memory_bytes"][()] > 0

    change(client, "PUT", "current", version="2").raise_for_status()
    client.delete("/users/u").raise_for_status()

    assert samples(client)["kt_memory_bytes"][()] == 0


def test_a_version_that_answers_no_more_is_closed(client, lines):
    """When nobody can have it any more; until then it stays open for who has."""
    change(client, "PUT", "current", version="2").raise_for_status()

    def info() -> dict:
        return {dict(k)["version"]: v for k, v in samples(client)["kt_model_info"].items()}

    assert info()["1"] == 1
    until(lambda: info()["1"] == 0)
    until(lambda: "model_closed" in [line["event"] for line in lines()])
    [closed] = [line for line in lines() if line["event"] == "model_closed"]
    assert "request_id" not in closed  # who asked for the change was answered long before
    assert info()["2"] == 1
    assert ask(client)["model"]["version"] == "2"
    back = change(client, "PUT", "current", version="1")  # opened anew
    assert back.json()["current"] == "1"


def test_a_process_begins_with_the_versions_it_is_told(artifacts, tmp_path):
    """The newest of others; one that is not there is said at the start."""
    settings = Settings.from_env(
        {"KT_MODEL_VERSIONS": f"{NAME}=1", "KT_ARTIFACT_DIR": str(artifacts)}
    )
    with serving(settings.model_copy(update={"data_dir": tmp_path / "d"})) as client:
        found = {m["name"]: m["version"] for m in client.get("/models").json()["models"]}
    assert found == {NAME: "1", "dkt": SHIPPED["dkt"].name}

    with pytest.raises(ArtifactInvalid, match=r"dkt_asked=7.* has 1, 2 of it"):
        chosen_versions(artifacts, {NAME: "7"})
    with pytest.raises(ArtifactInvalid, match="no version of it"):
        chosen_versions(artifacts, {"none": "1"})


@pytest.mark.parametrize("text", ["dkt", "dkt=", "=3", "a=1,b", "a=1=2"])
def test_versions_that_cannot_be_read_are_refused(text):
    """By the form they should have."""
    with pytest.raises(SettingsInvalid, match="MODEL=VERSION"):
        Settings.from_env({"KT_MODEL_VERSIONS": text})


def test_a_version_may_take_longer_to_open_than_a_question_to_answer(serve, artifacts):
    """The deadline is of questions; what has been asked for is done, and once."""
    client = serve(artifact_dir=artifacts, model_versions={NAME: "1"}, deadline_ms=30)

    served = change(client, "PUT", "current", version="2")
    back = change(client, "POST", "rollback")
    offered = change(client, "PUT", "candidate", version="2", compare=True)

    assert [r.status_code for r in (served, back, offered)] == [200, 200, 200]
    assert offered.json()["current"] == "1"


@pytest.mark.parametrize(("site", "status"), [("cross-site", 403), ("same-origin", 404)])
def test_no_page_of_another_site_changes_what_is_served(client, site, status):
    """A browser sends it what needs no body without asking first."""
    answer = client.post(f"/models/{NAME}/rollback", headers={"sec-fetch-site": site})

    assert answer.status_code == status
