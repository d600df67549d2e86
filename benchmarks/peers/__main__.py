"""ktserve beside other servers of the same model, over the same stored histories.

    make bench-peers
    python -m benchmarks.peers --rounds 5 --seconds 2 --picture docs/peers.png

Each peer runs in an environment of its own (`.venv-peers/<name>`, made by make from
`benchmarks/peers/requirements-<name>.txt`) and stands still while another is measured. Nothing is
measured unless all give the same probabilities. Servers, store and callers are on one machine and
share its cores; all are measured in turns; compare ratios. Writes bench-results/peers.json.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from operator import itemgetter
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from app.engine.versions import newest_versions
from benchmarks.generator import Load, post
from benchmarks.load import USERS, Case, empty_case
from benchmarks.peers.histories import fill, own_store
from benchmarks.peers.measuring import (
    Contender,
    Question,
    Timed,
    Unlike,
    compare,
    measure,
    over,
)
from benchmarks.peers.picture import picture
from benchmarks.peers.running import PEERS, PeerFailed, python_of, running, versions
from benchmarks.report import machine, middle
from benchmarks.server import ROOT, empty_server, own_server
from models.commands import above_zero, at_least, picture_to_write
from models.contract.artifact import VOCABULARY
from models.contract.vocabulary import Vocabulary

MODEL = "dkt"


def main(arguments: list[str] | None = None) -> int:
    """Measure, print a table, write the figures and the picture."""
    given = _parser().parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 120)
    try:
        found = _found(given, console)
    except (PeerFailed, Unlike) as exc:
        print(f"peers: {exc}", file=sys.stderr)
        return 1
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if given.picture is not None:
        picture(found).savefig(given.picture, dpi=110)
    console.print(_table(found))
    console.print(f"written to {given.out}")
    return 0


def _found(given: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Start everybody, compare their answers, measure, and stop everybody."""
    (model,) = (f for f in newest_versions(ROOT / "artifacts") if f.parent.name == MODEL)
    vocabulary = Vocabulary.load(model / VOCABULARY)
    peers = [peer for peer in PEERS if peer.name in given.peers]
    pythons = {
        peer.name: python_of(peer, None if given.here else given.environments) for peer in peers
    }
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ktserve-peers-")))
        store_url = stack.enter_context(own_store(folder / "store"))
        settings = {"KT_LOG_LEVEL": "warning", "KT_REDIS_URL": store_url}
        url = stack.enter_context(own_server(folder / "data", settings)).url
        floor = stack.enter_context(empty_server()).url
        contenders = [
            Contender(name="ktserve", url=url, body=_body, p_correct=itemgetter("p_correct"))
        ]
        for peer in peers:
            started = stack.enter_context(
                running(peer, pythons[peer.name], model, store_url, folder)
            )
            contenders.append(
                Contender(
                    name=peer.name,
                    url=started.url,
                    body=peer.body,
                    p_correct=peer.p_correct,
                    awake=started.awake,
                )
            )
        questions = {n: _questions(n, vocabulary) for n in given.histories}
        for n, asked in questions.items():
            fill(store_url, url, [q.user_id for q in asked], n, vocabulary)
        apart = compare(contenders, [q for asked in questions.values() for q in asked])
        timed = [Timed(None, empty_case(floor))]
        timed += [
            Timed(c, _case(c, n, asked)) for n, asked in questions.items() for c in contenders
        ]
        loads = measure(timed, given.rounds, given.seconds, given.callers, console)
    return {
        "what": f"closed loop, {given.callers} callers, {MODEL} without the vector, {USERS} users",
        "machine": machine(),
        "callers": given.callers,
        "rounds": given.rounds,
        "seconds_a_round": given.seconds,
        "empty_route_per_second": middle([load.per_second for load in loads["empty route"]]),
        "peers": {
            peer.name: {
                "what": peer.what,
                "versions": versions(peer, pythons[peer.name]),
                "furthest_from_ktserve": apart[peer.name],
            }
            for peer in peers
        },
        "rows": [_row(c.name, n, loads) for n in given.histories for c in contenders],
    }


def _row(name: str, n: int, loads: dict[str, list[Load]]) -> dict[str, Any]:
    rounds = loads[_name(name, n)]
    return {
        "server": name,
        "history": n,
        "per_second": middle([load.per_second for load in rounds]),
        "over_empty": over(rounds, loads["empty route"]),
        "ktserve_over_it": over(loads[_name("ktserve", n)], rounds),
        "p50_ms": middle([load.percentile_ms(50) for load in rounds]),
        "p99_ms": middle([load.percentile_ms(99) for load in rounds]),
    }


def _body(user_id: str, question_id: str) -> dict[str, Any]:
    """Return what ktserve is asked: the model by name, no vector."""
    return {
        "user_id": user_id,
        "question_id": question_id,
        "model": MODEL,
        "knowledge_state": False,
    }


def _questions(n: int, vocabulary: Vocabulary) -> list[Question]:
    ids = vocabulary.question_ids
    return [Question(f"load-{n}-{user}", ids[(7 * user) % len(ids)]) for user in range(USERS)]


def _case(contender: Contender, n: int, questions: Sequence[Question]) -> Case:
    requests = [post(contender.url, "/predict", contender.body(*q)) for q in questions]
    return Case(_name(contender.name, n), contender.url, requests)


def _name(server: str, n: int) -> str:
    return f"{server}, history {n}"


def _table(found: dict[str, Any]) -> Table:
    table = Table(
        *("history", "server", "answers/s", "over the empty route", "ktserve over it"),
        *("p50 ms", "p99 ms"),
        title=escape(
            f"{found['what']}; {found['machine']}; median [least, most] of {found['rounds']} rounds"
        ),
    )
    for row in found["rows"]:
        table.add_row(
            str(row["history"]),
            row["server"],
            escape("{:,.0f} [{:,.0f}, {:,.0f}]".format(*row["per_second"])),
            escape("{:.2f} [{:.2f}, {:.2f}]".format(*row["over_empty"])),
            escape("{:.1f} [{:.1f}, {:.1f}]".format(*row["ktserve_over_it"])),
            f"{row['p50_ms'][0]:.1f}",
            f"{row['p99_ms'][0]:.1f}",
        )
    return table


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = [peer.name for peer in PEERS]
    parser.add_argument("--rounds", type=at_least(1), default=5)
    parser.add_argument("--seconds", type=above_zero, default=2.0, help="of each case in a round")
    parser.add_argument("--callers", type=at_least(1), default=32)
    parser.add_argument(
        "--histories", type=at_least(0), nargs="+", default=[100, 1728], help="stored answers"
    )
    parser.add_argument("--peers", nargs="*", choices=names, default=names)
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--environments", type=Path, default=ROOT / ".venv-peers", help="a folder for each peer"
    )
    where.add_argument(
        "--here", action="store_true", help="run the peers in the environment of this command"
    )
    parser.add_argument("--picture", type=picture_to_write, help="PNG or SVG file")
    parser.add_argument("--out", type=Path, default=Path("bench-results/peers.json"))
    return parser


if __name__ == "__main__":
    sys.exit(main())
