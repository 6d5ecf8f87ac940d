"""A real OpenBao whose file audit device a test may read, and lines as that device writes them."""

import gzip
import json
from collections.abc import AsyncIterator, Iterable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from svsync.embedded.openbao import OpenBaoServer


class AuditedBao(OpenBaoServer):
    """A server with one file device."""

    @property
    def audit_log(self) -> Path:
        return self.folder / "audit.log"

    def _write_config(self) -> Path:
        config = super()._write_config()
        stanza = f'audit "file" "main" {{\n  options {{ file_path = "{self.audit_log}" }}\n}}\n'
        config.write_text(config.read_text() + stanza)
        return config


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def audited_bao(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[AuditedBao]:
    """A module's own server, storage in memory."""
    server = AuditedBao(tmp_path_factory.mktemp("audited"), "inmem", None)
    try:
        await server.start()
        await server.initialise()
        yield server
    finally:
        await server.stop()


def entry(at: datetime, path: str, *, kind: str = "response", **changes: Any) -> dict[str, Any]:
    """An entry of a read of KV, as OpenBao writes it but for what nobody looks at."""
    mount = path.split("/", maxsplit=1)[0]
    auth = {"display_name": "approle", "entity_id": "e-1", "metadata": {"role_name": "billing"}}
    request = {
        "operation": "read",
        "path": path,
        "mount_type": "kv",
        "mount_point": f"{mount}/",
        "namespace": {"id": "root"},
        "remote_address": "10.0.0.7",
    }
    return {
        "time": at.isoformat(),
        "type": kind,
        "auth": auth | changes.pop("auth", {}),
        "request": request | changes.pop("request", {}),
        **changes,
    }


def lines(entries: Iterable[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(one).encode() + b"\n" for one in entries)


def quiet_log(file: Path, now: datetime, span: timedelta, path: str = "other/data/x") -> None:
    """A packed log whose entries span a time up to a moment, thirty of them."""
    times = [now - span + span * number / 29 for number in range(30)]
    file.write_bytes(gzip.compress(lines(entry(at, path) for at in times)))
