"""Faults, one after the other, under callers who record and ask all the while.

    make chaos
    python -m benchmarks.chaos --only cluster --callers 12

Real servers, real stores, on loopback: a Redis that syncs its file, the embedded store, the same on
a small disk (for root: it is mounted), a service under three sentinels, a cluster of three masters
and three replicas. What callers were told is
compared with what is there afterwards. Exits with 1 where anything acknowledged was lost, doubled
or not seen by a prediction, where somebody failed whom the fault does not concern, or where
recovery took longer than its bound. Writes bench-results/chaos.json.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from time import perf_counter
from typing import Any
from uuid import uuid4

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks.callers import Caller, Seen, wrong_of
from benchmarks.faults import FAULTS, Fault, NotHere, World
from benchmarks.report import machine
from models.commands import at_least

_WARM_S, _CALM_S = 1.0, 2.0


def main(arguments: list[str] | None = None) -> int:
    """Strike, print a table, write the figures."""
    given = _parser().parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 150)
    found = measure(given, console)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    console.print(_table(found))
    console.print(f"written to {given.out}")
    return 0 if all(not row["wrong"] for row in found["rows"]) else 1


def measure(given: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Return what came of each fault."""
    rows = []
    for store, open_world, faults in FAULTS:
        chosen = [f for f in faults if given.only in f"{store}: {f.name}"]
        if not chosen:
            continue
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kt-chaos-")))
            try:
                world: World = stack.enter_context(open_world(folder))
            except NotHere as exc:
                console.print(f"{store}: left out: {exc}", style="yellow")
                continue
            stack.callback(world.end)
            world.start()
            for fault in chosen:
                console.print(f"{store}: {fault.name}", style="dim")
                rows.append({"store": store, **asyncio.run(_struck(world, fault, given.callers))})
    return {
        "what": f"{given.callers} callers, each recording and asking in turn; one server process",
        "machine": machine(),
        "rows": rows,
    }


async def _struck(world: World, fault: Fault, count: int) -> dict[str, Any]:
    """Let callers begin, strike, and let them go on until nobody has failed for a while."""
    await asyncio.to_thread(fault.before, world)
    seen, spared = Seen(), Seen()
    users = [uuid4().hex for _ in range(count)]
    callers = [Caller(world.urls, seen if fault.concerns(world, u) else spared, u) for u in users]
    await asyncio.gather(*(caller.meet() for caller in callers))
    end = asyncio.Event()
    running = [asyncio.create_task(caller.run(end)) for caller in callers]
    await asyncio.sleep(_WARM_S)
    struck_s = perf_counter()
    await asyncio.to_thread(fault.strike, world)
    back_s = struck_s if fault.from_strike else perf_counter()
    while True:
        last_s = max(seen.last_failure_s, spared.last_failure_s, back_s)
        now_s = perf_counter()
        if now_s - last_s > _CALM_S or now_s - back_s > fault.bound_s + 10 * _CALM_S:
            break
        await asyncio.sleep(0.05)
    end.set()
    await asyncio.gather(*running)
    recovered_s = max(0.0, seen.last_failure_s - back_s)
    wrong = await wrong_of(callers)
    told = {
        "fault": fault.name,
        "requests": seen.requests + spared.requests,
        "acknowledged": sum(caller.acknowledged for caller in callers),
        "failed": sum(seen.failed.values()),
        "failures": dict(seen.failed),
        "failed_of_others": sum(spared.failed.values()),
        "requests_of_others": spared.requests,
        "lost": wrong.lost,
        "doubled": wrong.doubled + wrong.disordered,
        "forgotten": seen.forgotten + spared.forgotten,
        "longest_s": round(max(seen.longest_s, spared.longest_s), 3),
        "recovered_s": round(recovered_s, 3),
        "bound_s": fault.bound_s,
        "from_strike": fault.from_strike,
        "exit_code": world.exit_code,
    }
    world.exit_code = None
    return {**told, "wrong": wrong_with(told, fault)}


def wrong_with(told: dict[str, Any], fault: Fault) -> list[str]:
    """Return what must not have come of a fault."""
    wrong = [k for k in ("lost", "doubled", "forgotten", "failed_of_others") if told[k]]
    if "internal" in told["failures"]:
        wrong.append("internal")  # an error that nobody foresaw
    if told["recovered_s"] > fault.bound_s:
        wrong.append("recovered_s")
    if not fault.may_fail and told["failed"]:
        wrong.append("failed")
    if told["exit_code"]:
        wrong.append("exit_code")
    return wrong


def _table(found: dict[str, Any]) -> Table:
    table = Table(
        *("store", "fault", "requests", "failed", "failed, others", "acknowledged", "lost"),
        *("doubled", "longest s", "recovered after s", "bound s"),
        title=escape(f"{found['what']}; {found['machine']}"),
    )
    for row in found["rows"]:
        table.add_row(
            row["store"],
            row["fault"] + (" (!)" if row["wrong"] else ""),
            str(row["requests"]),
            str(row["failed"]),
            str(row["failed_of_others"]) if row["requests_of_others"] else "",
            str(row["acknowledged"]),
            str(row["lost"]),
            str(row["doubled"]),
            f"{row['longest_s']:.2f}",
            f"{row['recovered_s']:.2f}" + (" (from the blow)" if row["from_strike"] else ""),
            f"{row['bound_s']:g}",
        )
    return table


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos", description=__doc__)
    parser.add_argument("--callers", type=at_least(1), default=8)
    parser.add_argument("--only", default="", help="faults whose `store: name` holds this text")
    parser.add_argument("--out", type=Path, default=Path("bench-results/chaos.json"))
    return parser


if __name__ == "__main__":
    sys.exit(main())
