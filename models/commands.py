"""What the command lines of `models` share: types of arguments that refuse what cannot be used.

argparse ends a command whose argument is refused with that argument's name and our words.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

PICTURES = (".png", ".svg")


def at_least(least: int) -> Callable[[str], int]:
    """Return the type of a whole number that is no smaller."""

    def number(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number") from None
        if value < least:
            raise argparse.ArgumentTypeError(f"{value}: must be at least {least}")
        return value

    return number


def above_zero(text: str) -> float:
    """Read a number above 0."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number") from None
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text}: must be above 0")
    return value


def file_to_write(text: str) -> Path:
    """Read the path of a file in a folder that is there: known before the work, not after."""
    path = Path(text)
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{path} is a folder; a file is to be written")
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"{path}: there is no folder {path.parent}")
    return path


def picture_to_write(text: str) -> Path:
    """Read the path of a picture to be drawn."""
    if Path(text).suffix not in PICTURES:
        raise argparse.ArgumentTypeError(f"{text}: must end in {' or '.join(PICTURES)}")
    return file_to_write(text)
