"""The command line of the benchmark: `python -m models.evaluation --protocol NAME --model NAME`."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from models.evaluation.baselines import BASELINES
from models.evaluation.cell import RECIPES, RESULTS, Cell, Folders
from models.evaluation.protocol import PROTOCOLS, protocol_named
from models.evaluation.table import write_table

PAGE = Path("docs/benchmarks.md")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what a cell is named and steered by."""
    cell = parser.add_argument_group("a cell of the benchmark, in place of a folder")
    cell.add_argument("--protocol", help=", ".join(PROTOCOLS))
    cell.add_argument("--model", help=f"{', '.join(BASELINES)}, or the name of a recipe")
    cell.add_argument("--folds", type=int, nargs="+", metavar="N", help="only these (default: all)")
    cell.add_argument("--again", action="store_true", help="measure anew what was measured")
    cell.add_argument(
        "--of", type=Path, metavar="FOLDER", help="measure this run or artifact; train nothing"
    )
    cell.add_argument("--table", type=Path, metavar="PAGE", help=f"page to fill (default: {PAGE})")
    cell.add_argument("--results", type=Path, default=RESULTS, help="folder of kept figures")
    cell.add_argument("--runs", type=Path, default=Folders.runs, help="folder of run folders")
    cell.add_argument("--recipes", type=Path, default=RECIPES, help="folder of recipes")


def is_asked(given: argparse.Namespace) -> bool:
    """Return whether the command line is about cells or their table."""
    return bool(given.protocol or given.model or given.table)


def steered_by(given: argparse.Namespace) -> str | None:
    """Return an option of cells that was given, if one was."""
    named = {
        "--protocol": given.protocol,
        "--model": given.model,
        "--table": given.table,
        "--folds": given.folds,
        "--again": given.again,
        "--of": given.of,
    }
    return next((option for option, value in named.items() if value), None)


def run(given: argparse.Namespace, console: Console) -> None:
    """Run the cell that was named, if one was, and write the table; raise `ValueError`."""
    if bool(given.protocol) != bool(given.model):
        raise ValueError("--protocol and --model go together")
    for option in ("users", "out"):
        if getattr(given, option) is not None:
            raise ValueError(f"--{option} {getattr(given, option)}: is of a folder, not of a cell")
    if given.split != "test":
        raise ValueError(f"--split {given.split}: a cell is scored on its protocol's test users")
    page = given.table or PAGE
    if not page.parent.is_dir():
        raise ValueError(f"--table {page}: there is no folder {page.parent}")
    if given.protocol:
        cell = Cell(
            protocol=protocol_named(given.protocol),
            model=given.model,
            folders=Folders(
                results=given.results, runs=given.runs, recipes=given.recipes, data=given.data
            ),
            console=console,
            threads=given.threads,
            rounds=given.rounds,
            subject=given.of,
        )
        cell.run(given.folds, again=given.again)
    write_table(page, given.results)
    console.print(f"the table is in {page}")
