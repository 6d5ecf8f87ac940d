"""What `doctor` finds of one backend: how it is configured, whether it answers, what it grants."""

import asyncio
from typing import Final

from svsync.domain.errors import BackendUnreachableError, SvsyncError
from svsync.domain.federation import BackendSpec
from svsync.domain.ids import TenantId
from svsync.ports import Connection
from svsync.services.counted_calls import open_counted
from svsync.services.findings import Finding, ok, warning, wrong
from svsync.services.runs import Backends
from svsync.store.database import Database

TEST_S: Final = 30.0
"""Seconds that one backend may take."""
_NETWORK: Final = "check config.endpoint, and the network on the way there"


async def look_at_backend(
    db: Database | None, backends: Backends, spec: BackendSpec, tenant: TenantId
) -> list[Finding]:
    """One backend as it is configured, and as it answers; it changes nothing there.

    `db`: where its calls count; None where there is no database to be had.
    """
    check = f"backend {spec.id}"
    found = []
    if spec.config.get("tls_verify") is False:
        found.append(
            wrong(
                check,
                "tls_verify is off: anybody on the way can read every secret",
                "take it out, or set it to the file of the CA",
            )
        )
    found += [
        warning(
            check,
            f"its feed vault-audit listens at {entry.get('listen')}; Vault stops for everybody"
            " while no audit device takes its lines, and svsync cannot see which there are",
            "keep a file audit device beside it, and make that one first",
        )
        for entry in spec.events
        if entry.get("feed") == "vault-audit"
    ]
    test = asyncio.ensure_future(_test(db, backends, spec, tenant))
    try:
        await asyncio.wait({test}, timeout=TEST_S)
        if not test.done():
            return [*found, wrong(check, f"no answer within {TEST_S:.0f} s", _NETWORK)]
        return [*found, *_connection(check, test.result())]
    except BackendUnreachableError as problem:
        return [*found, wrong(check, problem.message, _NETWORK)]
    except SvsyncError as problem:
        return [*found, wrong(check, problem.message)]
    finally:
        test.cancel()
        await asyncio.gather(test, return_exceptions=True)


async def _test(
    db: Database | None, backends: Backends, spec: BackendSpec, tenant: TenantId
) -> Connection:
    rules, _ = backends.rules(spec)
    opening = (
        backends.open(spec, tenant) if db is None else open_counted(db, backends, spec, tenant)
    )
    async with opening as opened:
        return await opened.backend.connect(rules.list_prefixes())


def _connection(check: str, found: Connection) -> list[Finding]:
    told = []
    if found.status == "denied":
        told.append(wrong(check, "it lets svsync in and shows nothing", "grant what is missing"))
    else:
        version = f"version {found.version}, " if found.version else ""
        says = f"it answers, {version}in {found.latency_ms:.0f} ms"
        told.append(ok(check, says))
    told += [
        warning(
            check,
            f"not granted: {lacking.name}"
            + (", which it can do without" if lacking.state == "missing_optional" else ""),
            f"grant {lacking.hint}" if lacking.hint else "",
        )
        for lacking in found.checks
        if lacking.state != "granted"
    ]
    return told + [
        warning(check, said) for said in found.warnings if not said.startswith("tls_verify")
    ]
