"""What a command says when it refuses."""

from __future__ import annotations

from collections.abc import Callable

import pytest


def last_words(
    main: Callable[[list[str]], int], arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> str:
    """Run a command in this process, where an exception nobody expected fails the test.

    Return its one line: the last on stderr, behind progress and argparse's usage.
    """
    try:
        status = main(arguments)
    except SystemExit as exc:  # argparse's own way to refuse
        status = exc.code
    assert status not in (0, None)
    return capsys.readouterr().err.strip().splitlines()[-1]
