"""API keys: who may call, what they may do, whose users they speak of, and how often.

    python -m app.keys NAME --scopes predict read write [--tenant T] [--per-second N] [--burst N]

makes a key, tells it once, and prints the entry for the file that `KT_KEYS_FILE` names:

    {"keys": [{"name": "shop", "sha256": "...", "scopes": ["predict", "write"], "tenant": "shop"}]}

The file holds hashes alone. A key is 256 random bits, so one round of SHA-256 is enough: there is
nothing to guess. The file is read again when it changes; one that cannot be read changes nothing.
"""

from __future__ import annotations

import argparse
import hashlib
import hmac
import json
import logging
import os
import secrets
import sys
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from app.errors import KeysInvalid

log = logging.getLogger(__name__)

Scope = Literal["predict", "read", "write", "admin", "metrics"]
SCOPES: tuple[Scope, ...] = get_args(Scope)

_NONE = bytes(32)
_PREFIX = "kt_"  # so that scanners of repositories can tell what they have found
_Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")]


class Key(BaseModel):
    """One entry of the file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: _Name  # stands in logs and metrics
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")  # of the key, hexadecimal
    scopes: tuple[Scope, ...] = Field(min_length=1)
    tenant: _Name | None = None  # None: the users of whoever names no tenant
    per_second: float | None = Field(None, gt=0, le=1e6)  # requests; None: no limit
    burst: int | None = Field(None, ge=1, le=10**6)  # None: what comes in ten seconds

    @cached_property
    def digest(self) -> bytes:
        """The hash of the key."""
        return bytes.fromhex(self.sha256)

    @model_validator(mode="after")
    def _bursts_within_a_rate(self) -> Key:
        if self.burst is not None and self.per_second is None:
            raise ValueError("burst is given without per_second")
        return self


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    keys: tuple[Key, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _each_once(self) -> _File:
        names = Counter(key.name for key in self.keys)
        if twice := sorted(name for name, times in names.items() if times > 1):
            raise ValueError(f"name {twice[0]!r} is there twice")
        name_of: dict[str, str] = {}
        for key in self.keys:  # told by their names: what is said here stands in the log
            other = name_of.setdefault(key.sha256, key.name)
            if other != key.name:
                raise ValueError(f"sha256 of {other!r} and {key.name!r} is there twice")
        return self


class Keyring:
    """The keys of a file, as it is now."""

    def __init__(self, path: Path) -> None:
        """Raise `KeysInvalid` where the file is none of ours."""
        self._path = path
        self._seen = _mark(path)
        self._keys = _read(path)

    @property
    def keys(self) -> list[Key]:
        """Every key, in the order of the file."""
        return [*self._keys.values()]

    def find(self, secret: bytes) -> Key | None:
        """Return the key that a caller has shown; None where it is none of these.

        It takes as long whichever it is: what is looked up is a hash of what was shown, of which
        nobody can choose a part, in a table whose own hashes are of this process alone.
        """
        digest = hashlib.sha256(secret).digest()
        key = self._keys.get(digest)
        if not hmac.compare_digest(_NONE if key is None else key.digest, digest):
            return None
        return key

    def reload(self) -> bool:
        """Read the file again if it has changed; say whether other keys hold now.

        Raises `KeysInvalid`, once a change, where it cannot be read: the keys of before still hold.
        """
        mark = _mark(self._path)
        if mark == self._seen:
            return False
        self._seen = mark
        self._keys = _read(self._path)
        return True


def _mark(path: Path) -> tuple[int, int, int] | None:
    """Return what changes with a file's content."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _read(path: Path) -> dict[bytes, Key]:
    try:
        # Whoever opens a pipe waits for somebody to write into it.
        if not path.is_file() and path.exists():
            raise KeysInvalid(f"{path} is no file")
        content = path.read_bytes()
    except OSError as exc:
        raise KeysInvalid(f"{path} cannot be read: {exc.strerror}") from exc
    try:
        file = _File.model_validate_json(content)
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        message = first["msg"].removeprefix("Value error, ")
        raise KeysInvalid(f"{path}: {place + ': ' if place else ''}{message}") from exc
    return {key.digest: key for key in file.keys}


def made(
    name: str,
    scopes: Sequence[Scope],
    tenant: str | None,
    per_second: float | None,
    burst: int | None,
) -> tuple[str, Key]:
    """Return a new secret and its entry; raise `ValidationError` where that cannot be one."""
    secret = _PREFIX + secrets.token_urlsafe(32)
    digest = hashlib.sha256(secret.encode()).hexdigest()
    key = Key(
        name=name,
        sha256=digest,
        scopes=tuple(scopes),
        tenant=tenant,
        per_second=per_second,
        burst=burst,
    )
    return secret, key


def main(arguments: list[str] | None = None) -> int:
    """Make a key; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m app.keys", description="Make an API key and the entry of its file."
    )
    parser.add_argument("name", help="whose it is; stands in logs and metrics")
    parser.add_argument("--scopes", nargs="+", choices=SCOPES, required=True)
    parser.add_argument("--tenant", help="whose users it speaks of")
    parser.add_argument("--per-second", type=float, help="requests, at most")
    parser.add_argument("--burst", type=int, help="requests at once, at most")
    given = parser.parse_args(arguments)
    try:
        secret, key = made(given.name, given.scopes, given.tenant, given.per_second, given.burst)
    except ValidationError as exc:
        first = exc.errors(include_url=False)[0]
        parser.error(f"{'.'.join(map(str, first['loc']))}: {first['msg']}")
    sys.stdout.write(
        "The key, told this once; callers send it as `Authorization: Bearer KEY`:\n\n"
        f"  {secret}\n\nIts entry for the file at KT_KEYS_FILE:\n\n"
        f"  {json.dumps(key.model_dump(exclude_none=True))}\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
