"""Every situation has a status."""

from __future__ import annotations

from uuid import uuid4

import pytest

from app import errors, settings
from app.api import problems
from app.errors import TracerError


def every_class(root: type[TracerError] = TracerError) -> list[type[TracerError]]:
    found = []
    for child in root.__subclasses__():
        found += [child, *every_class(child)]
    return found


def test_every_situation_has_a_status_a_code_and_a_title():
    """A new class without a line in the table is caught here, not by a caller."""
    for situation in every_class():
        assert situation in problems.STATUS, situation
        assert situation.code != TracerError.code, situation
        assert situation.__doc__


def test_codes_are_not_shared_by_strangers():
    """But for a class and the one below it."""
    codes: dict[str, type] = {}
    for situation in every_class():
        other = codes.setdefault(situation.code, situation)
        assert issubclass(situation, other)


def test_the_tree_in_the_docstring_is_the_tree():
    """Whoever reads the top of the file has read it all."""
    told = errors.__doc__ or ""
    here = [c for c in every_class() if c.__module__ == errors.__name__]

    assert len(here) > 5
    assert all(f"── {c.__name__} " in told for c in here)


def test_what_nobody_foresaw_tells_nothing():
    """No message of an unknown exception goes out."""
    problem = problems.problem_of(RuntimeError("a secret"))

    assert problem["status"] == 500
    assert "secret" not in str(problem)


def test_a_busy_service_says_when_to_come_again():
    """In the body and in the header."""
    answer = problems.response_of(problems.problem_of(errors.Overloaded("full")))

    assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")


def test_settings_are_situations_too():
    """A wrong one has a name."""
    assert settings.SettingsInvalid.code == "settings_invalid"


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/predict", "POST"),
        ("/users/u/interactions", "GET, POST"),
        ("/users/u", "DELETE"),
        ("/models/dkt/candidate", "DELETE, PUT"),
        ("/livez", "GET"),
    ],
)
def test_a_method_that_a_path_does_not_take_is_told_which_it_takes(client, path, methods):
    """All of them, whichever route each is of."""
    answer = client.request("OPTIONS", path)

    assert (answer.status_code, answer.headers["allow"]) == (405, methods)


def test_a_whole_number_may_be_written_with_a_fraction_of_nothing(client):
    """In JSON it is the same number; half a millisecond is none."""
    answer = {"question_id": "17", "correct": True, "elapsed_ms": 20.0, "asked_ms": 5e3}
    path = f"/users/{uuid4().hex}/interactions"
    whole = client.post(path, json={"interactions": [answer]})
    half = client.post(path, json={"interactions": [{**answer, "elapsed_ms": 20.5}]})
    asked = client.post("/predict", json={"question_id": "1", "history": [answer], "asked_ms": 6e3})
    kept = client.get(path).json()["interactions"]

    assert (whole.status_code, half.status_code, asked.status_code) == (200, 422, 200)
    assert [(k["elapsed_ms"], k["asked_ms"]) for k in kept] == [(20, 5000)]


@pytest.mark.parametrize("name", ["~", "~flag", "~list", "a~/b", ""])
@pytest.mark.parametrize(
    ("method", "path", "known", "place"),
    [
        ("POST", "/predict", {"user_id": "u", "question_id": "1"}, ""),
        ("POST", "/users/u/interactions", {"question_id": "1", "correct": True}, "/interactions/0"),
        ("PATCH", "/users/u/interactions/0", {"correct": True}, ""),
        ("PUT", "/models/dkt/current", {"version": "1"}, ""),
    ],
)
def test_a_field_that_nobody_knows_is_named(client, method, path, known, place, name):
    """Whatever it is called: as a branch of a union is, too."""
    body = {**known, name: 1}
    if place:
        body = {"interactions": [body]}
    answer = client.request(method, path, json=body)

    assert answer.status_code == 422
    (error,) = answer.json()["errors"]
    assert error["pointer"] == f"{place}/" + name.replace("~", "~0").replace("/", "~1")
    assert error["detail"] == f"there is no field {name!r} here"


def test_of_a_batch_only_the_item_with_such_a_field_is_refused(client):
    """Its neighbour is answered."""
    good = {"history": [], "question_id": "1"}
    items = [good, {**good, "~flag": True}, {**good, "history": [{"~": 1}]}]
    answer = client.post("/predict/batch", json={"items": items})

    assert answer.status_code == 200
    assert [item.get("status", 200) for item in answer.json()["items"]] == [200, 422, 422]
