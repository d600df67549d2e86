"""What one training is: a frozen value read from a TOML file, and kept beside the weights."""

from __future__ import annotations

import dataclasses
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar

from models.contract.artifact import WindowRule
from models.contract.typed import check_values
from models.datasets.split import SplitConfig

Section = TypeVar("Section")


class ConfigInvalid(ValueError):
    """A configuration names something unknown or out of bounds; the message says what would do."""


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """How to train; `[fit]` of a configuration."""

    epochs: int = 20
    patience: int = 3  # epochs without a better validation AUC before the end
    lr: float = 1e-3
    weight_decay: float = 0.01
    warmup_steps: int = 100
    clip_norm: float = 1.0
    batch_places: int = 8192  # rows times padded length of one step
    stretch: int = 200  # rows of a user learned from in one pass; causal networks
    windows: int = 100_000  # targets drawn an epoch; networks that are not causal
    validation_rows: int = 20_000  # rows drawn to judge an epoch; networks that are not causal
    unseen: float = 0.01  # share of places whose question (or skills) is hidden as UNSEEN
    leave_own_out: bool = True  # training users see difficulty without their own answers in it
    untimed: float = 0.05  # share of windows whose times are hidden as missing
    start: float = 0.0  # extra weight of a user's very first answer: shapes the start state
    reconstruct: float = 0.0  # DKT+: weight of predicting the answer just seen
    waviness_l1: float = 0.0  # DKT+: weight of the mean step of the knowledge state
    waviness_l2: float = 0.0  # DKT+: weight of its mean squared step
    restarts: int = 5  # EM: random starts; for each skill, the likeliest is kept
    tolerance: float = 1e-6  # EM: the end, when a round gains less, in nats an answer
    threads: int = 0  # 0: torch's own choice

    def __post_init__(self) -> None:
        positive = ("epochs", "patience", "lr", "clip_norm", "batch_places", "stretch", "windows")
        for name in (*positive, "validation_rows", "restarts"):
            if not getattr(self, name) > 0:
                raise ConfigInvalid(f"fit.{name} = {getattr(self, name)!r}: must be above 0")
        weights = ("weight_decay", "start", "reconstruct", "waviness_l1", "waviness_l2")
        for name in (*weights, "warmup_steps", "tolerance", "threads"):
            if not getattr(self, name) >= 0:
                raise ConfigInvalid(f"fit.{name} = {getattr(self, name)!r}: must be 0 or above")
        for name in ("unseen", "untimed"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigInvalid(
                    f"fit.{name} = {getattr(self, name)!r}: must be from 0 to below 1"
                )


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """A whole configuration file."""

    name: str  # of the run: runs/<name>/
    network: str  # its name in `models.nets.NETWORKS`
    seed: int = 0
    warm_start: str | None = None  # another run, whose weights this one starts from
    data: SplitConfig
    window: WindowRule
    fit: FitConfig = field(default_factory=FitConfig)
    model: Mapping[str, Any] = field(default_factory=dict)  # the network's own options
    members: tuple[TrainingConfig, ...] = ()  # of an ensemble; their data is the ensemble's

    def __post_init__(self) -> None:
        if self.name in ("", ".", "..") or set(self.name) & set("/\\\0"):
            raise ConfigInvalid(f"name = {self.name!r}: must be the name of a folder, no path")
        if not 0 <= self.seed < _SEEDS:
            raise ConfigInvalid(f"seed = {self.seed}: must be from 0 to below {_SEEDS}")
        rule = self.window
        if rule.length < 1:
            raise ConfigInvalid(f"window.length = {rule.length}: must be at least 1")
        if not 1 <= rule.cut <= rule.length:
            raise ConfigInvalid(
                f"window.cut = {rule.cut}: must be from 1 to window.length, {rule.length}"
            )
        if rule.side not in ("left", "right"):
            raise ConfigInvalid(f"window.side = {rule.side!r}: must be left or right")

    @classmethod
    def load(cls, path: Path, changes: Sequence[str] = ()) -> Self:
        """Read a TOML file; raise `ConfigInvalid` naming the file and what is wrong in it.

        `changes` stand in place of what the file says, as `section.key=value` in TOML.
        """
        content = _read(path)
        try:
            for change in changes:
                _put(content, change)
            if "members" in content:
                content["members"] = [_member(path, content, m) for m in _members(content)]
            return cls.of(content)
        except ConfigInvalid as exc:
            raise ConfigInvalid(f"{path}: {exc}") from exc

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> Self:
        """Make a configuration of plain values, as TOML or JSON give them."""
        content = dict(content)
        sections = {"data": SplitConfig, "window": WindowRule, "fit": FitConfig}
        for name, section in sections.items():
            if name in content:
                content[name] = _fill(section, content[name], f"{name}.")
        members = []
        for number, member in enumerate(_members(content)):
            try:
                members.append(cls.of(member))
            except ConfigInvalid as exc:
                raise ConfigInvalid(f"members[{number}]: {exc}") from exc
        return _fill(cls, {**content, "members": members}, "")

    def as_dict(self) -> dict[str, Any]:
        """Return plain values; `of` reads them back."""
        return dataclasses.asdict(self)


_SEEDS = 2**32
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise ConfigInvalid(f"{path} cannot be read: {exc.strerror}") from exc
    except ValueError as exc:  # no TOML, or no UTF-8
        raise ConfigInvalid(f"{path}: {exc}") from exc


def _members(content: Mapping[str, Any]) -> Sequence[Any]:
    members = content.get("members", ())
    if not isinstance(members, (list, tuple)):
        raise ConfigInvalid(f"members = {members!r}: must be a list of tables")
    return members


def _put(content: dict[str, Any], change: str) -> None:
    """Put `section.key=value` into a file's content; a single word needs no quotes."""
    place, is_one, value = change.partition("=")
    *sections, key = place.strip().split(".")
    if not is_one or not key:
        raise ConfigInvalid(f"{change!r} is not of the form section.key=value")
    table = content
    for section in sections:
        table = table.setdefault(section, {})
        if not isinstance(table, dict):
            raise ConfigInvalid(f"{change!r}: {section} is no table")
    try:
        table[key] = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError as exc:
        if not _WORD.fullmatch(value):
            raise ConfigInvalid(f"{change!r}: {value!r} is no TOML value ({exc})") from exc
        table[key] = value  # a shell would have taken quotes away


def _member(path: Path, ensemble: Mapping[str, Any], named: Mapping[str, Any]) -> dict[str, Any]:
    """Return a member's content: its own file's, beside `path`, on the ensemble's data."""
    if not isinstance(named, Mapping) or not {"config"} <= set(named) <= {"config", "seed"}:
        raise ConfigInvalid(f"members: {named!r} must have a config, and may have a seed")
    if not isinstance(named["config"], str):
        raise ConfigInvalid(f"members: config = {named['config']!r}: must name a file")
    content = _read(path.parent / named["config"])
    return {**content, "data": ensemble.get("data"), "seed": named.get("seed", 0)}


def _fill(cls: type[Section], values: Any, where: str) -> Section:
    if not isinstance(values, Mapping):
        raise ConfigInvalid(f"{where.rstrip('.')} must be a table, not {values!r}")
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    if unknown := set(values) - set(fields):
        known = ", ".join(where + name for name in fields)
        raise ConfigInvalid(f"{where}{sorted(unknown)[0]} is not known; known: {known}")
    missing = [
        name
        for name, f in fields.items()
        if name not in values
        and f.default is dataclasses.MISSING
        and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ConfigInvalid(f"{where}{missing[0]} is missing")
    try:
        check_values(cls, values, where)
    except ValueError as exc:
        raise ConfigInvalid(str(exc)) from exc
    return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
