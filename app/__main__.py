"""python -m app: serve until told to stop.

Settings come from KT_ variables (docs/operations.md). Exit codes: 0 stopped as asked, 1 the address
cannot be had, 2 a setting is wrong, 3 a part cannot be opened (the reason is the last line).
"""

from __future__ import annotations

import argparse
import gc
import logging
import os
import signal
import socket
import sys
from contextlib import suppress
from contextvars import Context
from types import FrameType
from typing import Any

import orjson
import uvicorn

from app import __version__
from app.api.door import Door
from app.errors import KeysInvalid
from app.heap import share_one_heap
from app.logs import log_to
from app.main import create_app
from app.settings import PREFIX, Settings, SettingsInvalid

log = logging.getLogger("app")
announcement = logging.getLogger("app.serving")

_LOOKED_FOR_RINGS = 10_000
"""More objects than before, at which the collector looks for those that hold each other."""


class Server(uvicorn.Server):
    """Says where it serves, and lets /readyz go red the moment it is told to stop."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Open everything and listen."""
        await super().startup(sockets)
        # Vocabularies are some hundred thousand objects that live as long as the process: walked
        # through again and again, they stop every caller for tens of milliseconds.
        gc.collect()
        gc.freeze()
        # What a request leaves behind goes by itself; to look for rings after every 700 objects
        # finds none and looks through all requests under way.
        gc.set_threshold(_LOOKED_FOR_RINGS)
        for server in self.servers if self.started else ():
            for listening in server.sockets:
                host, port = listening.getsockname()[:2]
                shown = f"[{host}]" if ":" in host else host
                announcement.info(
                    "serving", extra={"url": f"http://{shown}:{port}", "pid": os.getpid()}
                )

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to stop; a second interrupt does not wait for requests under way."""
        # A signal comes in the midst of anything: apart from the request that it comes upon.
        Context().run(log.info, "stopping", extra={"signal": signal.Signals(sig).name})
        app: Any = self.config.app
        if app.state.rollout is not None:
            app.state.rollout.drain()
        super().handle_exit(sig, frame)


def main(arguments: list[str] | None = None) -> int:
    """Serve; return the exit code."""
    if _parser().parse_args(arguments).openapi:
        document = create_app(Settings.from_env({})).openapi()
        print(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode())
        return 0
    try:
        settings = Settings.from_env()
    except SettingsInvalid as exc:
        print(f"ktserve: {exc}", file=sys.stderr)
        return 2
    share_one_heap()
    log_to(level=settings.log_level)
    announcement.setLevel(logging.INFO)  # where it serves is told at every level
    try:
        app = create_app(settings)
    except KeysInvalid as exc:
        print(f"ktserve: {PREFIX}KEYS_FILE: {exc}", file=sys.stderr)
        return 2
    # A part that cannot be opened is told below, in one line: not by its traceback as well.
    logging.getLogger("uvicorn.error").addFilter(lambda r: not r.getMessage().startswith("Trace"))
    logging.getLogger("uvicorn.error").setLevel(max(logging.WARNING, logging.root.level))
    server = Server(
        uvicorn.Config(
            app,
            host=settings.host,
            port=settings.port,
            http=Door,
            log_config=None,
            access_log=False,
            proxy_headers=False,  # nothing here asks whence a request comes
            server_header=False,
            timeout_graceful_shutdown=max(1, round(settings.drain_s)),
        )
    )
    for stop in (signal.SIGINT, signal.SIGTERM):
        # Once it has stopped, uvicorn raises the signal again for whoever was there before it.
        signal.signal(stop, signal.SIG_IGN)
    with suppress(SystemExit):  # its way of saying that it did not start
        server.run()
    if app.state.start_failure is not None:
        print(f"ktserve: cannot start: {app.state.start_failure}", file=sys.stderr)
        return 3
    if not server.started:
        print(f"ktserve: cannot listen on {settings.host}:{settings.port}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    width = max(len(name) for name in Settings.model_fields) + len(PREFIX)
    rows = [
        f"  {PREFIX + name.upper():{width}}  {field.description} (default: {field.default})"
        for name, field in Settings.model_fields.items()
    ]
    parser = argparse.ArgumentParser(
        prog="python -m app",
        description="Serve knowledge tracing over HTTP.",
        epilog="settings, from the environment:\n" + "\n".join(rows),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"ktserve {__version__}")
    parser.add_argument("--openapi", action="store_true", help="print the OpenAPI document")
    return parser


if __name__ == "__main__":
    sys.exit(main())
