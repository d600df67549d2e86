"""The cores that may really be used, in a container too."""

from __future__ import annotations

import os

import pytest

from app.engine.cores import usable_cores


def tree(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


AFFINITY = len(os.sched_getaffinity(0))


def test_without_a_quota_affinity_counts(tmp_path):
    """No cgroup file is no quota."""
    assert usable_cores(tmp_path) == AFFINITY


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/cpu.max": "100000 100000\n"}, 1),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/cpu.max": "max 100000\n"}, AFFINITY),
        # In a container the path is the host's and the mount the container's own.
        ({"proc/self/cgroup": "0::/host/x\n", "sys/fs/cgroup/cpu.max": "50000 100000\n"}, 1),
        (
            {
                "proc/self/cgroup": "3:cpu,cpuacct:/c\n",
                "sys/fs/cgroup/cpu,cpuacct/c/cpu.cfs_quota_us": "70000\n",
                "sys/fs/cgroup/cpu,cpuacct/c/cpu.cfs_period_us": "100000\n",
            },
            1,
        ),
        (
            {
                "proc/self/cgroup": "3:cpu,cpuacct:/c\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            AFFINITY,
        ),
    ],
)
def test_the_smallest_quota_counts(tmp_path, files, cores):
    """Of this group and all above it; rounded up, and never less than one core."""
    assert usable_cores(tree(tmp_path, files)) == cores
