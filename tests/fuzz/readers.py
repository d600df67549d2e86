"""Coverage-guided fuzzing of whatever reads bytes that others have made.

    .venv-dev/bin/python -m tests.fuzz.readers TARGET PACKAGES [options of libFuzzer]

Each reader is given bytes that atheris thinks up by the branches they reach. It may refuse them by
the error that its docstring names; every other exception, and a hang, is a finding. PACKAGES is
where atheris is installed: an environment of its own, looked into last.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

SEEDS = Path(__file__).parents[2] / "artifacts"

LOG = b"user_id,question_id,skill_id,correct,timestamp_ms,elapsed_ms\nu1,q1,a;b,1,1000,20\n"
KEYS = b'{"keys": [{"name": "a", "sha256": "' + b"ab" * 32 + b'", "scopes": ["read"]}]}'


def main(arguments: list[str]) -> None:
    """Fuzz one reader until told to stop; libFuzzer ends the process."""
    target, packages, *options = arguments
    sys.path.append(packages)
    import atheris

    with atheris.instrument_imports(include=["app", "models"]):
        make = TARGETS[target]
        folder = Path(tempfile.mkdtemp(prefix="ktserve-fuzz-"))
        read = make(folder)
    for number, seed in enumerate(seeds(target)):
        corpus = folder / "corpus"
        corpus.mkdir(exist_ok=True)
        (corpus / str(number)).write_bytes(seed)
    atheris.Setup([sys.argv[0], str(folder / "corpus"), *options], read)
    atheris.Fuzz()


def seeds(target: str) -> list[bytes]:
    """Return what a reader reads gladly, to begin with."""
    if target in ("manifest", "vocabulary"):
        return [path.read_bytes() for path in SEEDS.glob(f"*/*/{target}.json")][:1]
    return {"records": [bytes(41), bytes([1]) + bytes(36)], "log": [LOG], "keys": [KEYS]}[target]


def _records(folder: Path) -> Callable[[bytes], None]:
    """Records of a history, in any form: what can be read is written again as it was."""
    del folder
    from app.store.packed import FORMS, packed, unpacked

    def read(data: bytes) -> None:
        form = data[0] % len(FORMS) + 1 if data else 2
        size = FORMS[form].itemsize
        records = data[1 : 1 + (len(data) - 1) // size * size] if data else b""
        interactions = unpacked(records, form)
        try:
            again = unpacked(packed(interactions), 5)
        except ValueError:  # times that no caller can send, in the form of before
            assert form == 1
            return
        if form != 1:  # whose bytes of reserve are not kept
            assert again.tobytes() == interactions.tobytes()

    return read


def _manifest(folder: Path) -> Callable[[bytes], None]:
    """`manifest.json` of an artifact that somebody has sent."""
    from models.contract.artifact import MANIFEST, Manifest, ManifestError

    def read(data: bytes) -> None:
        (folder / MANIFEST).write_bytes(data)
        with suppress(ManifestError):
            Manifest.load(folder).check_files(folder)

    return read


def _vocabulary(folder: Path) -> Callable[[bytes], None]:
    """`vocabulary.json` beside it."""
    from models.contract.vocabulary import Vocabulary

    def read(data: bytes) -> None:
        (folder / "vocabulary.json").write_bytes(data)
        try:
            vocabulary = Vocabulary.load(folder / "vocabulary.json")
        except (ValueError, TypeError, LookupError, AttributeError):  # what `open_artifact` expects
            return
        vocabulary.query("", ("",))

    return read


def _log(folder: Path) -> Callable[[bytes], None]:
    """A log of answers as CSV."""
    from models.datasets.dataset import DatasetError
    from models.datasets.table import read_table

    def read(data: bytes) -> None:
        (folder / "log.csv").write_bytes(data)
        with suppress(DatasetError):
            read_table(folder / "log.csv")

    return read


def _keys(folder: Path) -> Callable[[bytes], None]:
    """A file of API keys."""
    from app.errors import KeysInvalid
    from app.keys import Keyring

    def read(data: bytes) -> None:
        (folder / "keys.json").write_bytes(data)
        with suppress(KeysInvalid):
            Keyring(folder / "keys.json").find(data[:64])

    return read


TARGETS = {
    "records": _records,
    "manifest": _manifest,
    "vocabulary": _vocabulary,
    "log": _log,
    "keys": _keys,
}

if __name__ == "__main__":
    main(sys.argv[1:])
