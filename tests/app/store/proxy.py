"""Between a client and a server: hands bytes on, late if wanted, or hangs up in the middle."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress


class Proxy:
    """One port in front of another."""

    def __init__(self, to_port: int) -> None:
        self._to_port = to_port
        self.delay_s = 0.0  # of what the server says
        self.cut_at: int | None = None  # bytes of the server's next words that still come through
        self.connections = 0

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with suppress(OSError):
            back, forth = await asyncio.open_connection("127.0.0.1", self._to_port)
            ends = self._hand_on(reader, forth), self._hand_back(back, writer)
            await asyncio.gather(*ends, return_exceptions=True)
        writer.close()

    async def _hand_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            writer.write(data)
        writer.close()

    async def _hand_back(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            await asyncio.sleep(self.delay_s)
            if self.cut_at is None:
                writer.write(data)
            else:
                writer.write(data[: self.cut_at])
                self.cut_at = None
                break
        writer.close()


@asynccontextmanager
async def a_proxy(to_port: int) -> AsyncIterator[tuple[Proxy, str]]:
    """Give a proxy and the address of a store behind it."""
    proxy = Proxy(to_port)
    server = await asyncio.start_server(proxy.handle, "127.0.0.1", 0)
    try:
        yield proxy, f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
