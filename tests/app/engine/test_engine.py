"""Every model of the folder is served, in its newest version, by one set of threads."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest

from app.engine.artifact import open_artifact
from app.engine.asked import Asked
from app.engine.engine import open_engine
from app.engine.versions import newest_versions, versions_of
from app.errors import ArtifactInvalid, ModelUnknown, NotReady, Overloaded
from app.settings import Settings
from models.contract.interaction import INTERACTION
from tests.app.conftest import ARTIFACTS, SHIPPED

pytestmark = pytest.mark.anyio

CPU = Settings(artifact_dir=ARTIFACTS, provider="cpu", threads=2)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Tally:
    """An observer that keeps what it is told."""

    def __init__(self) -> None:
        self.waiting: dict[str, int] = {}
        self.answered: dict[str, int] = {}
        self.refusals = 0

    def queue_changed(self, model, more):
        self.waiting[model] = self.waiting.get(model, 0) + more

    def refused(self, model, windows):
        self.refusals += windows

    def abandoned(self, model, windows):
        raise AssertionError("nobody left")

    def failed(self, model):
        raise AssertionError("nothing failed")

    def batch_ran(self, model, items, padded_places, real_places, wait_s, run_s):
        assert 0 < real_places <= padded_places
        assert min(wait_s, run_s) >= 0
        self.answered[model] = self.answered.get(model, 0) + items


def asked(model, n: int) -> Asked:
    """Return a known question asked after `n` right answers to unseen questions."""
    query = model.vocabulary.query(model.vocabulary.question_ids[n])
    return Asked(
        interactions=np.ones(n, INTERACTION), first=0, start=0, seen=0, state=b"", query=query
    )


async def test_all_models_answer_at_once_as_each_would_alone():
    """Callers of three models share two threads; the observer is told of each answer once."""
    tally = Tally()
    async with open_engine(CPU, tally) as engine:
        models = list(engine.models.values())
        windows = {m.name: [asked(m, n) for n in range(8)] for m in models}
        alone = {m.name: [await m.score(w) for w in windows[m.name]] for m in models}
        together = await asyncio.gather(*(m.score_all(windows[m.name]) for m in models))
        stuck_s = engine.stuck_s()

    assert [m.name for m in models] == sorted(SHIPPED)
    assert (engine.provider.effective, stuck_s) == ("cpu", 0)
    for model, found in zip(models, together, strict=True):
        expected = [one.p_correct for one in alone[model.name]]
        assert [f.p_correct for f in found] == pytest.approx(expected, abs=1e-5)
        assert (found[0].knowledge_state is not None) == model.has_knowledge_state
    assert tally.answered == dict.fromkeys(windows, 16)
    assert tally.waiting == dict.fromkeys(windows, 0)


async def test_a_model_tells_what_it_is():
    """By its manifest, and a name that is not served by the ones that are."""
    async with open_engine(CPU) as engine:
        model = engine.model("saint_plus")
        with pytest.raises(ModelUnknown, match=r"'nix'.*dkt, dkt_asked, last_query, saint_plus"):
            engine.model("nix")

    assert (model.name, model.version) == ("saint_plus", SHIPPED["saint_plus"].name)
    assert model.vocabulary.fingerprint == model.manifest.vocabulary
    assert model.card.startswith("# saint_plus")


async def test_what_does_not_fit_the_queue_is_refused_at_its_place():
    """The rest of the same call is answered, in order."""
    tally, small = Tally(), CPU.model_copy(update={"queue_max_items": 2})
    async with open_engine(small, tally) as engine:
        model = engine.model("dkt")
        windows = [asked(model, n) for n in range(4)]
        first, second = [await model.score(w) for w in windows[:2]]
        found = await model.score_all(windows)

    assert found[0].p_correct == pytest.approx(first.p_correct, abs=1e-5)
    assert found[1].p_correct == pytest.approx(second.p_correct, abs=1e-5)
    assert [type(f) for f in found[2:]] == [Overloaded, Overloaded]
    assert tally.refusals == 2


async def test_a_closed_engine_answers_nobody_anew():
    """Who was in when it closed has the answer."""
    async with open_engine(CPU) as engine:
        model = engine.model("last_query")
        inside = asyncio.create_task(model.score(asked(model, 3)))
        await asyncio.sleep(0)
    with pytest.raises(NotReady):
        await model.score(asked(model, 3))
    [refused] = await model.score_all([asked(model, 3)])

    assert 0 < (await inside).p_correct < 1
    assert isinstance(refused, NotReady)


async def test_one_spoilt_model_keeps_the_engine_from_opening(tmp_path):
    """Nobody finds out by asking."""
    for name in ("dkt", "saint_plus"):
        shutil.copytree(ARTIFACTS / name, tmp_path / name)
    graph = tmp_path / "dkt" / SHIPPED["dkt"].name / "sequence.onnx"
    graph.write_bytes(graph.read_bytes()[:1000])

    with pytest.raises(ArtifactInvalid, match=r"dkt.*sequence\.onnx"):
        async with open_engine(CPU.model_copy(update={"artifact_dir": tmp_path})):
            pytest.fail("it opened")


def test_the_newest_version_of_each_model_is_served(tmp_path):
    """Ten is newer than nine; half-written folders are no versions."""
    for folder in ("dkt/9", "dkt/10", "dkt/2", "b/2026-01-09", "b/2026-01-10"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "manifest.json").touch()
    for folder in ("dkt/11", "dkt/.12-x", "empty", ".hidden/1"):
        (tmp_path / folder).mkdir(parents=True)

    assert newest_versions(tmp_path) == [tmp_path / "b" / "2026-01-10", tmp_path / "dkt" / "10"]


@pytest.mark.parametrize(("name", "said"), [("none", "is no folder"), (".", "python -m export")])
def test_a_folder_without_a_model_is_refused(tmp_path, name, said):
    """With the way to one."""
    with pytest.raises(ArtifactInvalid, match=said):
        newest_versions(tmp_path / name)


@contextmanager
def readable_by_its_owner(folder: Path) -> Iterator[None]:
    """Be nobody for a moment where it would be read all the same: root may."""
    mode, user = folder.stat().st_mode, os.geteuid()
    folder.chmod(0)
    try:
        if user == 0:
            os.seteuid(65534)
        yield
    finally:
        os.seteuid(user)
        folder.chmod(mode)


def test_what_may_not_be_read_is_named_and_hides_nothing_else():
    """A version's folder when it is opened, a model's when versions are looked for."""
    with TemporaryDirectory() as name:
        versions = [Path(name) / "dkt" / version for version in ("1", "2")]
        for folder in versions:
            folder.mkdir(parents=True)
            (folder / "manifest.json").touch()
        Path(name).chmod(0o755)
        with readable_by_its_owner(versions[1]):
            assert versions_of(Path(name)) == {"dkt": versions}
            with pytest.raises(ArtifactInvalid, match=r"dkt/2 cannot be served: .*Permission"):
                open_artifact(versions[1], "cpu", 1)
        with (
            readable_by_its_owner(versions[0].parent),
            pytest.raises(ArtifactInvalid, match="dkt cannot be read: Permission denied"),
        ):
            versions_of(Path(name))
