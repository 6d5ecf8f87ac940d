"""What a history left behind, gathered for those who look at it.

Rows are read as superuser, values are opened by the keys of their tenants, and OpenBao is
asked for every version that it has.
"""

import asyncio
import json
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from tests.acceptance.fault_estate import (
    PULLED,
    RECEIVERS,
    SEND_CLOSING_ONLY,
    SIDES,
    Estate,
)
from tests.acceptance.fault_evidence import Evidence, Got, Row, Versions
from tests.openbao import Bao

from svsync.app import App
from svsync.domain.envelope import Purpose
from svsync.domain.ids import LocalPath, SecretId, TenantId
from svsync.domain.values import Payload
from svsync.services.conflict_sides import remote_payload
from svsync.services.sealing import Sealed

_AT_ONCE = 8

_VERSIONS = """
SELECT s.path, t.slug AS tenant, v.* FROM versions v
JOIN secrets s USING (tenant_id, secret_id) JOIN tenants t USING (tenant_id)"""
_EVENTS = """
SELECT type, t.slug AS tenant, backend_id, sequence, payload
FROM outbox JOIN tenants t USING (tenant_id) ORDER BY tenant_id, backend_id, sequence"""
_HELD = "SELECT backend_id FROM leases WHERE holder IS NOT NULL AND tenant_id <> 0"
_SECRETS = """
SELECT path, t.slug AS tenant, state, propagate FROM secrets JOIN tenants t USING (tenant_id)"""
_PUSHES = (
    "SELECT path, push_id, kind, state, reason, version, expected_order, attempts, sent_at,"
    " ended_at FROM pushes ORDER BY push_id"
)
_PAIRS = """
SELECT s.path, s.state AS here, s.propagate, s.current_version, s.row_rev, p.status, p.reason,
  p.base_kind, p.base_order, p.settled_version, p.recheck, p.failures, p.retry_at
FROM secrets s LEFT JOIN sync_state p USING (tenant_id, path)"""
_OPEN = "SELECT tenant_id, backend_id, path FROM conflicts WHERE state = 'open'"


async def gather(estate: Estate, app: App, told: Mapping[str, int]) -> Evidence:
    """All of it, once every process has ended; `told`: up to which event of each backend
    all was delivered before they did."""
    said = [*estate.said, *await _held(estate), *_told_of_values(estate), *_told_in_logs(estate)]
    secrets = await estate.query(_SECRETS)
    versions = await estate.query(_VERSIONS)
    there = await _history_there(estate)
    return Evidence(
        runs=await estate.query("SELECT * FROM runs"),
        versions=versions,
        events=[_event(row) for row in await estate.query(_EVENTS)],
        asked=estate.asked,
        got={name: _got(receiver.got) for name, receiver in estate.receivers.items()},
        wanted={"closing": SEND_CLOSING_ONLY},
        endpoints=RECEIVERS,
        told=told,
        tenants={row["path"]: row["tenant"] for row in secrets},
        here=await _here(app, secrets),
        there={path: last for path, all_ in there.items() if (last := all_[max(all_)]) is not None},
        left_there={r["path"] for r in secrets if r["state"] == "deleted" and not r["propagate"]},
        open_conflicts=await _open_conflicts(estate, app),
        history_here=await _history_here(app, versions),
        history_there=there,
        kept=await _kept(estate, app),
        only_pulled=PULLED.prefix,
        pushes=await estate.query(_PUSHES),
        pairs=await estate.query(_PAIRS),
        wrote_here=estate.wrote_here,
        wrote_there=estate.wrote_there,
        refused=estate.refused,
        said=said,
    )


# --- what was said ----------------------------------------------------------------


async def _held(estate: Estate) -> list[str]:
    rows = await estate.query(_HELD)
    return [f"somebody holds the lease of {row['backend_id']}" for row in rows]


def _told_of_values(estate: Estate) -> list[str]:
    return [
        f"{name}: a value was sent to a webhook"
        for name, receiver in estate.receivers.items()
        if any(estate.canary.found_in(message.body) for message in receiver.got)
    ]


def _told_in_logs(estate: Estate) -> list[str]:
    told: list[str] = []
    for place in estate.places:
        told += place.said
        for served in place.all:
            errors = [line for line in served.lines if line["level"] == "error"]
            told += [f"{place.name}: {line}" for line in errors]
    return told


# --- rows and messages ------------------------------------------------------------


def _event(row: Row) -> dict[str, Any]:
    body = json.loads(row["payload"])
    return {
        "type": row["type"],
        "tenant": row["tenant"],
        "told": body["tenant"],
        "backend": row["backend_id"],
        "sequence": row["sequence"],
        "run_id": body.get("run_id"),
        "paths": _paths(body),
    }


def _got(messages: list[Any]) -> list[Got]:
    found = []
    for m in messages:
        body = m.json["data"]
        kind, backend = m.json["type"], body["backend_id"]
        found.append(Got(m.id, m.body, kind, backend, m.number, _paths(body)))
    return found


def _paths(body: Mapping[str, Any]) -> tuple[str, ...]:
    """Those of secrets that an event speaks of."""
    named = [secret["path"] for secret in body.get("secrets") or ()]
    return (*named, *([body["path"]] if "path" in body else ()))


# --- values here ------------------------------------------------------------------


async def _here(app: App, secrets: list[Any]) -> dict[str, object]:
    """What is read of each path, of those that are there."""
    found: dict[str, object] = {}
    for row in secrets:
        if row["state"] == "live":
            tenant = await app.tenant(row["tenant"])
            _, text = await app.secrets.get(tenant, LocalPath(row["path"]))
            found[row["path"]] = json.loads(text)
    return found


async def _history_here(app: App, versions: list[Any]) -> Versions:
    """Every version that can be read."""
    found: dict[str, dict[int, object]] = defaultdict(dict)
    for row in versions:
        if row["state"] == "live":
            keys = await app.sealing.for_tenant(TenantId(row["tenant_id"]))
            sealed = Sealed(row["key_id"], row["nonce"], row["sealed"])
            place = (SecretId(row["secret_id"]), LocalPath(row["path"]), row["version"])
            text = await keys.open(Purpose.VALUE, *place, sealed)
            found[row["path"]][row["version"]] = json.loads(text)
    return found


async def _kept(estate: Estate, app: App) -> dict[str, list[object]]:
    """The remote values that conflicts keep, whatever became of them."""
    found: dict[str, list[object]] = defaultdict(list)
    for row in await estate.query("SELECT * FROM conflicts"):
        keys = await app.sealing.for_tenant(TenantId(row["tenant_id"]))
        found[row["path"]].append(_value(await remote_payload(keys, row)))
    return found


async def _open_conflicts(estate: Estate, app: App) -> dict[str, tuple[object, object]]:
    """Both sides of each conflict that waits, as a person is shown them."""
    found: dict[str, tuple[object, object]] = {}
    for row in await estate.query(_OPEN):
        tenant, path = TenantId(row["tenant_id"]), LocalPath(row["path"])
        shown = await app.conflicts.show(tenant, row["backend_id"], path)
        found[path] = _value(shown.local), _value(shown.remote)
    return found


def _value(payload: Payload | None) -> object:
    return None if payload is None else json.loads(payload.data_text())


# --- values there -----------------------------------------------------------------


async def _history_there(estate: Estate) -> dict[str, dict[int, object]]:
    """Every version that OpenBao has, by local path; None where it is deleted."""
    found: dict[str, dict[int, object]] = {}
    gate = asyncio.Semaphore(_AT_ONCE)
    async with asyncio.TaskGroup() as tasks:
        for side in SIDES:
            mount = estate.mounts[side.id]
            for name in await _names(mount):
                own = found[f"{side.prefix}/{name}"] = {}
                tasks.create_task(_read_all(mount, name, own, gate))
    return found


async def _names(bao: Bao) -> list[str]:
    found = []
    for folder in range(2):
        listed: Any = await bao.request("GET", f"{bao.mount}/metadata/folder{folder}?list=true")
        found += [f"folder{folder}/{name}" for name in listed["data"]["keys"]]
    return found


async def _read_all(bao: Bao, name: str, found: dict[int, object], gate: asyncio.Semaphore) -> None:
    about: Any = await bao.request("GET", f"{bao.mount}/metadata/{name}")
    for number, version in about["data"]["versions"].items():
        found[int(number)] = None
        if not version["deletion_time"] and not version["destroyed"]:
            async with gate:
                read: Any = await bao.request("GET", f"{bao.mount}/data/{name}?version={number}")
            found[int(number)] = read["data"]["data"]
