"""How many cores this process may really use, in a container too."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path


def usable_cores(root: Path = Path("/")) -> int:
    """Return the cores that affinity and the cgroup's quota leave, rounded up, at least 1.

    `root` is where `proc` and `sys` are looked for.
    """
    quotas = [*_quotas(root)]
    cores = len(os.sched_getaffinity(0))
    return max(1, min([cores, *(math.ceil(q) for q in quotas)]))


def _quotas(root: Path) -> Iterator[float]:
    """Yield every quota, in cores, that is set on this process's cgroups or above them."""
    mount = root / "sys/fs/cgroup"
    for controllers, path in _memberships(root / "proc/self/cgroup"):
        if controllers == "":  # version 2
            for folder in _upwards(mount, path):
                yield from _quota(_words(folder / "cpu.max"))
        elif "cpu" in controllers.split(","):
            for name in dict.fromkeys((controllers, "cpu")):
                for folder in _upwards(mount / name, path):
                    quota = _words(folder / "cpu.cfs_quota_us")
                    yield from _quota(quota + _words(folder / "cpu.cfs_period_us"))


def _memberships(file: Path) -> Iterator[tuple[str, str]]:
    """Yield (controllers, path) of each line `id:controllers:path`."""
    for line in _lines(file):
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        yield controllers, path


def _upwards(mount: Path, path: str) -> Iterator[Path]:
    """Yield the cgroup's folder and those above it, up to the mount.

    In a container the path may be the host's while the mount is the container's own: the folders
    that are not there hold no quota.
    """
    below = [part for part in path.split("/") if part not in ("", "..")]
    for depth in range(len(below), -1, -1):
        yield mount.joinpath(*below[:depth])


def _quota(words: list[str]) -> Iterator[float]:
    """Yield quota over period, where both are there and the quota is a limit."""
    if len(words) == 2 and words[0].isdigit() and words[1].isdigit() and int(words[1]):
        yield int(words[0]) / int(words[1])


def _words(file: Path) -> list[str]:
    return " ".join(_lines(file)).split()


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
