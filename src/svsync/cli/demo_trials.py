"""The demo's second half: what goes wrong between people and stores, and what is at rest."""

import time
from typing import Final

from svsync.cli import demo_secrets
from svsync.cli.demo_hands import (
    Hands,
    Step,
    Table,
    Told,
    below_external,
    counted,
    expect,
    local_path,
    moved,
    numbers,
)
from svsync.cli.demo_secrets import needle
from svsync.domain.ids import LocalPath
from svsync.domain.runs import Count, RunResult
from svsync.embedded.at_rest import look_at_rest

ARRIVALS: Final = 1200
"""New secrets of the outage: more than two of the batches that a run commits."""
_SEARCHED: Final = 3
"""So many known values of each mount are looked for in what is at rest."""


async def conflict(hands: Hands) -> Told:
    edited = (
        (hands.estate.platform, "backend_wins", "databases/prod/orders"),
        (hands.estate.payments, "local_wins", "banks/alpine/sftp"),
        (hands.estate.legacy, "manual", "apps/payroll/db"),
    )
    before = {path: await hands.version(local_path(m, path)) for m, _, path in edited}
    ours, theirs = {}, {}
    for mount, _, path in edited:
        ours[path] = demo_secrets.database(f"{path}#ours")
        theirs[path] = demo_secrets.database(f"{path}#theirs")
        await hands.write(local_path(mount, path), ours[path])
        await hands.change_there(mount, path, theirs[path])
    ran = await hands.run_all()
    sides, recorded = [], []
    for mount, policy, path in edited:
        local = local_path(mount, path)
        version, served = await hands.version(local), await hands.value(local)
        written = before[path] + 1
        winner = "OpenBao's" if served == theirs[path] else "yours"
        wanted = "OpenBao's" if policy == "backend_wins" else "yours"
        expect(winner == wanted, f"{policy} serves {wanted} at {local}")
        expect(await hands.value(local, written) == ours[path], f"your edit of {local} kept")
        sides.append(
            (
                below_external(local),
                policy,
                f"v{before[path]}",
                f"v{written}",
                f"v{version} ({winner})",
            )
        )
        recorded.append((below_external(local), *await hands.conflict_of(mount, local)))
    columns = ("below external/", "policy", "before", "yours", "served now")
    return Told(
        [
            Table(columns, sides),
            Table(
                ("below external/", "kind", "state"),
                recorded,
                title="Recorded, with both values sealed:",
            ),
        ],
        "Your edit is readable in each case, also where OpenBao's won. The manual one is"
        " frozen until a person decides.",
        numbers(ran),
    )


async def guard(hands: Hands) -> Told:
    mount = hands.estate.payments
    paths = [s.path for s in mount.carried if s.path not in mount.gone]
    before = await hands.paths("external/payments/")
    await hands.estate.delete(mount, paths)
    stopped = await hands.run(mount)
    error = stopped.record.error
    expect(
        stopped.record.result is RunResult.FAILED
        and error is not None
        and error.code == "mass_delete_guard",
        "the guard stopped the run",
    )
    expect(await hands.paths("external/payments/") == before, "nothing was deleted here")
    await hands.expect_read(mount, "hsm/partition-0")
    plan = stopped.report.plan or {}
    await hands.estate.undelete(mount, paths)
    again = await hands.run(mount)
    expect(again.record.result is RunResult.OK and not moved(again), "all is as it was")
    expect(await hands.paths("external/payments/") == before, "all is served again")
    rows = [
        (
            "mount emptied",
            str(stopped.record.result),
            int(plan.get("listed_gone", 0) + plan.get("unlisted", 0)),
            stopped.report.numbers[Count.DELETED],
            len(before),
        ),
        (
            "mistake undone",
            str(again.record.result),
            0,
            again.report.numbers[Count.DELETED],
            len(before),
        ),
    ]
    return Told(
        [Table(("moment", "run", "look deleted", "deleted here", "still served"), rows)],
        f"Code {error.code if error else ''}: it names --allow-mass-delete for those who"
        " mean it. Reads were answered meanwhile.",
        {"stopped": stopped.to_json(), "again": again.to_json()},
    )


async def outage(hands: Hands) -> Told:
    estate, mount = hands.estate, hands.estate.platform
    new = demo_secrets.arrivals(ARRIVALS)
    prefix = "external/platform/customers/"
    await estate.add(mount, new)
    cut = await hands.run(mount, when_committing=estate.server.seal)
    kept = await hands.paths(prefix)
    expect(cut.record.result is RunResult.FAILED, "the run in the outage failed")
    expect(0 < len(kept) < ARRIVALS, "what was committed before the outage is kept")
    during = await hands.app.federation.status(hands.tenant, "fed_platform")
    expect(during["status"] == "unreachable", "status tells that OpenBao is unreachable")
    began = time.perf_counter()
    await hands.expect_read(mount, "databases/prod/billing")
    read_ms = (time.perf_counter() - began) * 1000
    await estate.server.unseal()
    done = await hands.run(mount)
    final = await hands.paths(prefix)
    wanted = {local_path(mount, secret.path): 1 for secret in new}
    expect(final == wanted, "every new secret is there exactly once, in its first version")
    for secret in new[:: ARRIVALS // 40]:
        value = await hands.value(local_path(mount, secret.path))
        expect(value == secret.versions[0], "the new values are exact")
    after = await hands.app.federation.status(hands.tenant, "fed_platform")
    expect(not done.report.numbers[Count.UPDATED], "nothing was pulled twice")
    mount.secrets.extend(new)
    rows = [
        (moment, ended.record.result, status, counted(ended, Count.CREATED), len(held), ARRIVALS)
        for moment, ended, status, held in (
            ("sealed in mid-run", cut, during["status"], kept),
            ("unsealed again", done, after["status"], final),
        )
    ]
    columns = ("OpenBao", "the run", "status", "created", "in the store", "of")
    return Told(
        [Table(columns, rows)],
        f"The next run went on where the first had stopped: each is there once. A read in the"
        f" outage took {read_ms:.0f} ms. (Partial and degraded: one folder is still denied.)",
        {"cut": cut.to_json(), "done": done.to_json(), "kept": len(kept), "final": len(final)},
    )


async def at_rest(hands: Hands) -> Told:
    values = [
        needle(secret.versions[-1]).encode()
        for mount in hands.estate.mounts
        for secret in mount.carried[:: len(mount.carried) // _SEARCHED]
    ]
    shown = LocalPath("external/platform/databases/prod/billing")
    known = [s for s in hands.estate.platform.secrets if shown.endswith(f"/{s.path}")]
    values += [needle(data).encode() for data in (*known[0].versions, *hands.written)]
    looked = await look_at_rest(hands.state_dir, values, shown)
    expect(not looked.found, f"no value lies open; one does in {', '.join(looked.found)}")
    expect(looked.conflict_sides == 14, "both sides of each conflict are kept, sealed")
    expect(await hands.value(shown) == known[0].versions[-1], "it opens by its key")
    rows = [
        ("sealed versions", looked.versions, "AES-256-GCM, bound to their path"),
        ("sealed sides of conflicts", looked.conflict_sides, "neither is lost"),
        ("writes to OpenBao on record", looked.pushes, "by fingerprint, not by value"),
        ("rows searched", looked.rows, f"in {looked.tables} tables, as superuser"),
        ("files searched", looked.files, f"{looked.file_bytes >> 20} MiB, with WAL"),
        ("values looked for", len(values), "as text, base64 and hex"),
        ("found", len(looked.found), "nowhere"),
    ]
    return Told(
        [
            Table(("what", "number", "how"), rows),
            Table(
                ("below external/", "on the disk"),
                [(below_external(shown), f"{looked.sample.hex(' ')} …")],
            ),
        ],
        "The database holds ciphertext only; the key that opens it lies in a file of its own"
        " (in production: in a KMS).",
        {
            "rows": looked.rows,
            "tables": looked.tables,
            "files": looked.files,
            "file_bytes": looked.file_bytes,
            "sealed_versions": looked.versions,
            "sealed_conflict_sides": looked.conflict_sides,
            "pushes": looked.pushes,
            "values_looked_for": len(values),
            "found": len(looked.found),
        },
    )


CONFLICT: Final = Step(
    "conflict",
    "The same secret is edited on both sides",
    "Somebody writes here, somebody else there. Each backend has its own policy for"
    " that, and no edit may be lost under any of them.",
    conflict,
)
GUARD: Final = Step(
    "guard",
    "Somebody empties a whole mount",
    "A mass of deletions is more often a mistake than a wish. A guard stops the run"
    " before its first write.",
    guard,
)
OUTAGE: Final = Step(
    "outage",
    "OpenBao goes down in the middle of a run",
    f"{ARRIVALS:,} new secrets arrive, and while they are pulled OpenBao is sealed:"
    " from then on it answers nothing.",
    outage,
)
AT_REST: Final = Step(
    "at_rest",
    "What a thief of the disk would get",
    "Known values are looked for in every row of the database and in every file"
    " that svsync keeps, as text, base64 and hex.",
    at_rest,
)
