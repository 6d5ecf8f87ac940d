"""A KV v2 store that writes down what arrives, byte for byte, and holds a secret at every name."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

_MOUNT = {"data": {"type": "kv", "path": "kv/", "options": {"version": "2"}}}
_TOKEN = {"data": {"ttl": 0, "renewable": False, "expire_time": None}}


@dataclass
class Overheard:
    """Attributes:
    value: what each secret holds.
    targets: method and target of each request, as they stood on its first line.
    """

    value: dict[str, str]
    url: str = ""
    targets: list[tuple[str, str]] = field(default_factory=list)

    def answer(self, target: str) -> object:
        if target.startswith("/v1/sys/internal/ui/mounts/"):
            return _MOUNT
        if target == "/v1/auth/token/lookup-self":
            return _TOKEN
        about = {
            "version": 1,
            "created_time": "2026-01-01T00:00:00Z",
            "deletion_time": "",
            "destroyed": False,
            "custom_metadata": None,
        }
        return {"data": {"data": self.value, "metadata": about}}

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                lines = head.decode("latin-1").split("\r\n")
                method, target, _ = lines[0].split(" ", 2)
                lengths = [
                    int(line.partition(":")[2])
                    for line in lines
                    if line.lower().startswith("content-length:")
                ]
                await reader.readexactly(sum(lengths))
                self.targets.append((method, target))
                body = json.dumps(self.answer(target)).encode()
                writer.write(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
                    b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
                )
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def overhearing(value: dict[str, str]) -> AsyncIterator[Overheard]:
    """One on a free port of loopback."""
    store = Overheard(value)
    server = await asyncio.start_server(store._serve, "127.0.0.1", 0)
    store.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield store
    finally:
        server.close()
