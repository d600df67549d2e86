"""Try the production form for real, and say what was seen.

    make try-compose [ARGS="--without grafana --upgrade-from COMMIT"]

Builds the image and starts docker-compose.yml under a project's name, ports and volumes of its own;
records and predicts; has Prometheus scrape; kills the store and the service; sends traces to nobody
who is there; puts a new image in the place of the old one; and counts every acknowledged answer
after each. With a commit to upgrade from, the first image is that commit's, and it records first.
Everything is taken down at the end, the volumes as well. Needs docker with compose. Exit code 1:
something did not hold.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PROJECT = "ktserve-try"
SERVICES = ("redis", "app", "prometheus", "grafana")
USERS = 40
PATIENCE_S = 120.0
IMAGE = "ktserve:latest"
BARE = """\
FROM ktserve:latest
USER 0
RUN ["python", "-c", "import pathlib; [f.unlink() for d in ('bin', 'sbin', 'usr/bin', 'usr/sbin') \
for f in pathlib.Path('/', d).iterdir() if not f.is_dir()]"]
USER 10001:10001
"""
LONGEST_S = 10.0
"""A stop with nothing to finish: the last traces, and then some."""

_NO_STORE = (503, "store_unavailable")


class NotSeen(Exception):
    """The production form did not do what it promises."""


class Form:
    """docker-compose.yml under a project's name and ports of its own."""

    def __init__(self, services: list[str], commit: str | None = None) -> None:
        self.services = services
        self.commit = commit
        self._command = ["docker", "compose"]
        asked = subprocess.run([*self._command, "version"], capture_output=True, check=False)
        if asked.returncode:
            self._command = ["docker-compose"]
        self.ports = {name: _free_port() for name in ("app", "prometheus", "grafana")}
        self.environ = {
            **os.environ,
            "KT_TRACES": "",
            "KT_PUBLISHED_PORT": str(self.ports["app"]),
            "KT_PROMETHEUS_PORT": str(self.ports["prometheus"]),
            "KT_GRAFANA_PORT": str(self.ports["grafana"]),
        }

    @contextmanager
    def up(self) -> Iterator[None]:
        """Build and start it, of the commit if there is one; take everything down at the end."""
        self.run("down", "-v", "--remove-orphans")
        try:
            if self.commit is None:
                self.run("up", "-d", "--build", *self.services)
            else:
                _build_of(self.commit)
                self.run("up", "-d", *self.services)
            yield
        finally:
            print(self.run("logs", "--no-color", "--tail", "5"), file=sys.stderr)
            self.run("down", "-v", "--remove-orphans")

    def run(self, *words: str) -> str:
        """Return what compose says; raise `NotSeen` where it fails."""
        return _said([*self._command, "-p", PROJECT, *words], self.environ)

    def container(self, service: str) -> str:
        """Return the id of a service's container."""
        return self.run("ps", "-q", service).strip()

    def inspect(self, service: str, form: str) -> str:
        """Return what docker knows of a service's container."""
        return _said(["docker", "inspect", "--format", form, self.container(service)]).strip()

    def crash(self, service: str) -> None:
        """End a service's first process as a fault would: from outside, by SIGKILL."""
        pid = self.inspect(service, "{{.State.Pid}}")
        group = Path(f"/proc/{pid}/cgroup")
        # Where the engine is in another machine, a process of that number is somebody else's.
        if group.exists() and self.container(service) in group.read_text():
            os.kill(int(pid), signal.SIGKILL)
        else:  # the engine does not bring back by itself what it was told to kill
            self.run("kill", service)
            self.run("start", service)

    def networks(self, service: str) -> set[str]:
        """Return the networks that a service is in."""
        return set(json.loads(self.inspect(service, "{{json .NetworkSettings.Networks}}")))

    def call(self, path: str, body: Any = None, *, service: str = "app") -> tuple[int, Any]:
        """Return status and content of an answer; status 0 where there was none."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.ports[service]}{path}",
            data=None if body is None else json.dumps(body).encode(),
            headers={"content-type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=15) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as exc:
            return exc.code, json.load(exc)
        except (OSError, ValueError):
            return 0, None

    def ready(self) -> bool:
        """Whether the service says it is."""
        return self.call("/readyz")[0] == 200


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as held:
        return int(held.getsockname()[1])


def _said(command: list[str], environ: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise NotSeen(f"{' '.join(command)}: {done.stderr[-2000:] or done.stdout[-2000:]}")
    return done.stdout


def _build_of(commit: str) -> None:
    """Build the image of a commit, of its own files alone."""
    with tempfile.TemporaryFile() as files:
        archive = ["git", "archive", "--format=tar", commit]
        if subprocess.run(archive, cwd=ROOT, stdout=files, check=False).returncode:
            raise NotSeen(f"{commit} is no commit of this repository")
        files.seek(0)
        build = ["docker", "build", "-q", "-t", IMAGE, "-"]
        done = subprocess.run(build, stdin=files, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotSeen(f"the image of {commit}: {done.stderr[-2000:]}")


def wait(what: str, until: Callable[[], bool]) -> float:
    """Return after how many seconds it is so; raise `NotSeen` when patience ends."""
    began_s = time.monotonic()
    while not until():
        if time.monotonic() - began_s > PATIENCE_S:
            raise NotSeen(f"{what}: not within {PATIENCE_S:g} s")
        time.sleep(0.1)
    return time.monotonic() - began_s


def holds(what: str, is_so: bool) -> None:
    """Say it; raise `NotSeen` where it does not hold."""
    if not is_so:
        raise NotSeen(what)
    print(f"  {what}", flush=True)


class Learners:
    """Users who answer, and what was acknowledged of them."""

    def __init__(self, form: Form) -> None:
        self._form = form
        self.acknowledged = {f"try-{i}": 0 for i in range(USERS)}
        self.by_this_service = 0

    def answer(self, times: int) -> None:
        """Let every user answer so often."""
        for user_id in self.acknowledged:
            first = self.acknowledged[user_id]
            interactions = [
                {"question_id": str(n), "correct": n % 2 == 0, "asked_ms": 1000 * n}
                for n in range(first, first + times)
            ]
            path = f"/users/{user_id}/interactions"
            status, content = self._form.call(path, {"interactions": interactions})
            if status // 100 != 2:
                raise NotSeen(f"an answer was not taken: {status} {content}")
            self.acknowledged[user_id] += times
            self.by_this_service += times

    def predictions(self) -> list[float]:
        """Return the chance of a right answer of every user."""
        asked = {"question_id": "7", "asked_ms": 10**7}
        told = [self._form.call("/predict", {"user_id": u, **asked}) for u in self.acknowledged]
        if any(status != 200 for status, _ in told):
            raise NotSeen(f"not every prediction was answered: {sorted({s for s, _ in told})}")
        return [content["p_correct"] for _, content in told]

    def lost(self) -> int:
        """Return how many acknowledged answers are not there."""
        return sum(
            n - self._form.call(f"/users/{user_id}/interactions")[1]["history_length"]
            for user_id, n in self.acknowledged.items()
        )


def started(form: Form, learners: Learners) -> None:
    """From nothing to an answer."""
    healthy = "{{.State.Health.Status}}"
    wait("redis healthy", lambda: form.inspect("redis", healthy) == "healthy")
    wait("service healthy", lambda: form.inspect("app", healthy) == "healthy")
    learners.answer(3)
    learners.predictions()
    holds(f"{USERS} users have answered, and predictions are made", learners.lost() == 0)


def shut_in(form: Form, _: Learners) -> None:
    """Who runs, and what they may."""
    inside = form.run(
        *("exec", "-T", "app", "python", "-c"),
        "import os; print(os.getuid(), os.access('/srv', os.W_OK), os.access('/tmp', os.W_OK))",
    ).split()
    holds("the service runs as 10001; /srv cannot be written", inside == ["10001", "False", "True"])
    for service in ("app", "redis"):
        is_shut = "{{.HostConfig.ReadonlyRootfs}} {{.HostConfig.CapDrop}} {{.HostConfig.CapAdd}}"
        told = form.inspect(service, is_shut)
        holds(f"{service}: root read-only, no capability ({told})", told == "true [ALL] []")
    told = form.run("exec", "-T", "redis", "sh", "-c", "redis-cli ping 2>&1 || true")
    holds("the store refuses who shows no password", "NOAUTH" in told)
    others = set().union(*(form.networks(s) for s in form.services if s not in ("redis", "app")))
    holds(
        "who watches the service is in no network of the store's",
        not others & form.networks("redis"),
    )


def scraped(form: Form, learners: Learners) -> None:
    """Prometheus sees what was done."""

    def value(query: str) -> float | None:
        query = urllib.parse.urlencode({"query": query})
        _, content = form.call(f"/api/v1/query?{query}", service="prometheus")
        found = content["data"]["result"] if content else []
        return float(found[0]["value"][1]) if found else None

    recorded = learners.by_this_service
    wait("a scrape", lambda: value("kt_interactions_recorded_total") == recorded)
    holds(f"Prometheus has up = 1 and {recorded} answers recorded", value('up{job="ktserve"}') == 1)

    def alerts() -> list[dict[str, Any]]:
        _, content = form.call("/api/v1/rules", service="prometheus")
        return [rule for group in content["data"]["groups"] for rule in group["rules"]]

    wait("every alert asked", lambda: all(alert["health"] != "unknown" for alert in alerts()))
    wait(
        "every alert well and silent",
        lambda: all((a["health"], a["state"]) == ("ok", "inactive") for a in alerts()),
    )
    holds(f"it has read {len(alerts())} alerts, and all are silent", len(alerts()) > 5)


def store_killed(form: Form, learners: Learners) -> None:
    """The store is killed, and comes back by itself with everything."""
    form.crash("redis")
    seconds = wait("the store's return", form.ready)
    holds(f"ready again {seconds:.1f} s later, {learners.lost()} answers lost", not learners.lost())
    learners.answer(1)
    holds("and new answers are taken", learners.lost() == 0)


def store_gone(form: Form, learners: Learners) -> None:
    """The store is gone for a while."""
    form.run("stop", "redis")
    asked = {"question_id": "7", "asked_ms": 10**7}
    status, content = form.call("/predict", {"user_id": "try-0", **asked})
    holds("a stored user's prediction is refused", (status, content["code"]) == _NO_STORE)
    status, content = form.call("/predict", {"history": [], **asked})
    holds("one from an inline history is answered", status == 200)
    holds("and the service says that it is not ready", not form.ready())
    form.run("start", "redis")
    seconds = wait("the store's return", form.ready)
    holds(f"ready again {seconds:.1f} s after, {learners.lost()} answers lost", not learners.lost())


def service_killed(form: Form, learners: Learners) -> None:
    """The service is killed, and comes back by itself."""
    before = learners.predictions()
    form.crash("app")
    seconds = wait("the service's return", form.ready)
    holds(f"ready again {seconds:.1f} s later, {learners.lost()} answers lost", not learners.lost())
    holds("predictions are the same", _close(before, learners.predictions()))


def untraced(form: Form, learners: Learners) -> None:
    """Traces go to a collector that is not there."""
    before = learners.predictions()
    form.environ["KT_TRACES"] = "http://collector.invalid:4318"
    form.run("up", "-d", "--no-deps", "app")
    wait("the service with traces", form.ready)
    holds("predictions are the same", _close(before, learners.predictions()))
    learners.answer(1)
    holds("and new answers are taken", learners.lost() == 0)
    wait("a word of lost traces", lambda: "traces_lost" in form.run("logs", "--no-color", "app"))
    told = form.run("logs", "--no-color", "app").count("traces_lost")
    holds("the log says once that they are lost", told == 1)
    began_s, old = time.monotonic(), form.container("app")
    form.run("stop", "app")
    code = _exit_code_of(old)
    spent_s = time.monotonic() - began_s
    holds(f"it ended in {spent_s:.1f} s with exit code {code}", code == 0 and spent_s < LONGEST_S)
    form.environ["KT_TRACES"] = ""
    form.run("up", "-d", "--no-deps", "app")
    wait("the service without traces", form.ready)


def upgraded(form: Form, learners: Learners) -> None:
    """A new image in the place of the old one."""
    before, old = learners.predictions(), form.container("app")
    image = ["docker", "build", "-q", "-t", IMAGE, "--label", f"try={time.time()}", "."]
    _said(image)
    began_s = time.monotonic()
    form.run("stop", "app")
    code = _exit_code_of(old)
    holds(f"the old one ended with exit code {code}", code == 0)
    form.run("up", "-d", "--no-deps", "app")
    wait("the new service", form.ready)
    holds("another container serves", form.container("app") != old)
    holds(
        f"ready {time.monotonic() - began_s:.1f} s after the old one was told to stop, "
        f"{learners.lost()} answers lost",
        not learners.lost(),
    )
    holds("predictions are the same", _close(before, learners.predictions()))
    learners.by_this_service = 0
    learners.answer(1)
    holds("and new answers are taken", learners.lost() == 0)


def bare(form: Form, _: Learners) -> None:
    """The same image with every program taken out but Python."""
    del form
    tag = f"{PROJECT}-bare"
    build = ["docker", "build", "-q", "-t", tag, "-"]
    subprocess.run(build, input=BARE, text=True, check=True, capture_output=True)
    shut_in = ["--read-only", "--tmpfs=/tmp", "--network=none", "--cap-drop=ALL"]
    run = ["docker", "run", "-d", *shut_in, "-e", "KT_HOST=127.0.0.1", tag]
    container = _said(run).strip()
    look = ["docker", "inspect", "--format"]
    try:
        health = [*look, "{{.State.Health.Status}}", container]
        wait("the bare service", lambda: _said(health).strip() == "healthy")
        _said(["docker", "stop", container])
        holds("it gets ready, and ends with exit code 0", _exit_code_of(container) == 0)
    finally:
        _said(["docker", "rm", "-f", "-v", container])
        _said(["docker", "rmi", tag])


def _exit_code_of(container: str) -> int:
    return int(_said(["docker", "inspect", "--format", "{{.State.ExitCode}}", container]))


def _close(a: list[float], b: list[float]) -> bool:
    return all(abs(x - y) < 1e-5 for x, y in zip(a, b, strict=True))


def main(arguments: list[str] | None = None) -> int:
    """Try it; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--without", nargs="*", default=[], choices=SERVICES[2:])
    parser.add_argument("--upgrade-from", metavar="COMMIT", help="whose image is the first one")
    given = parser.parse_args(arguments)
    if shutil.which("docker") is None:
        print("try-compose: docker is not here", file=sys.stderr)
        return 1
    form = Form([s for s in SERVICES if s not in given.without], given.upgrade_from)
    learners = Learners(form)
    steps = [started, shut_in, scraped, store_killed, store_gone, service_killed, untraced]
    steps.insert(1 if form.commit else len(steps), upgraded)
    steps.append(bare)
    if "prometheus" in given.without:
        steps.remove(scraped)
    began_s = time.monotonic()
    try:
        with form.up():
            print(f"built and up after {time.monotonic() - began_s:.1f} s")
            for step in steps:
                print(
                    f"{(step.__doc__ or '').strip()} [{time.monotonic() - began_s:.0f} s]",
                    flush=True,
                )
                step(form, learners)
    except NotSeen as exc:
        print(f"try-compose: {exc}", file=sys.stderr)
        return 1
    print(f"all of it held; {sum(learners.acknowledged.values())} answers, none lost")
    return 0


if __name__ == "__main__":
    sys.exit(main())
