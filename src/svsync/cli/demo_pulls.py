"""The demo's first half: everything is pulled, and then what changed is."""

from typing import Final

from svsync.cli import demo_secrets
from svsync.cli.demo_estate import Mount
from svsync.cli.demo_hands import (
    Hands,
    Step,
    Table,
    Told,
    below_external,
    calls,
    counted,
    expect,
    local_path,
    moved,
    numbers,
    skips,
)
from svsync.cli.demo_secrets import Data
from svsync.domain.ids import LocalPath
from svsync.domain.runs import Count, SkipReason
from svsync.services.run_ends import Ended

_REASONS: Final = {
    SkipReason.DENIED: "denied to this login",
    SkipReason.ILLEGAL_PATH: "no local path can have this name",
}


async def source(hands: Hands) -> Told:
    rows, told = [], {}
    for mount in hands.estate.mounts:
        found = {
            "secrets": len(mount.secrets),
            "versions": demo_secrets.total_versions(mount.secrets),
            "tagged": sum(bool(s.tags) for s in mount.secrets),
            "folders": len({s.path.rpartition("/")[0] for s in mount.secrets}),
            "denied": sum(s.denied for s in mount.secrets),
        }
        told[mount.name] = found
        rows.append((f"{mount.name}/", f"KV v{mount.version}", *found.values()))
    secrets = sum(len(mount.secrets) for mount in hands.estate.mounts)
    return Told(
        [Table(("mount", "engine", *found), rows)],
        f"{secrets} secrets. svsync will serve them below external/, by the same names.",
        told,
    )


async def plan(hands: Hands) -> Told:
    ran = await hands.run_all(dry=True)
    rows = [
        (mount.name, counted(ended, Count.CREATED), *skips(ended), calls(ended))
        for mount, ended in ran
    ]
    for mount, ended in ran:
        expect(
            ended.report.numbers[Count.CREATED] == len(mount.carried),
            f"the plan for {mount.name} would carry over every secret that may be read",
        )
    expect(not await hands.paths(""), "the plan wrote nothing")
    return Told(
        [Table(("backend", "would create", "would skip", "why", "calls"), rows)],
        "Nothing was written: the store still holds 0 secrets.",
        numbers(ran),
    )


async def first_pull(hands: Hands) -> Told:
    ran = await hands.run_all()
    rows, skipped = [], []
    for mount, ended in ran:
        expect_created(ended, mount)
        rows.append(
            (
                mount.name,
                str(ended.record.result),
                counted(ended, Count.CREATED),
                counted(ended, Count.IMPORTED_VERSIONS),
                ended.report.skips,
                ended.report.calls["read"],
                f"{(ended.record.duration_ms or 0) / 1000:.1f} s",
            )
        )
        skipped += [(one.remote_path, _REASONS[one.reason]) for one in ended.report.skipped]
    columns = ("backend", "result", "created", "earlier versions", "skipped", "reads", "took")
    for mount in hands.estate.mounts:
        await hands.expect_served(mount)
    return Told(
        [Table(columns, rows), Table(("skipped", "because"), skipped)],
        "Every value reads back exactly as OpenBao has it. `partial` means: something was"
        " skipped, and the report says what.",
        numbers(ran),
    )


async def quiet(hands: Hands) -> Told:
    ran = await hands.run_all()
    rows = []
    for mount, ended in ran:
        reads = ended.report.calls["read"]
        expect(
            ended.report.numbers[Count.UNCHANGED] == len(mount.carried) and not moved(ended),
            f"the second run of {mount.name} changed nothing",
        )
        expect(
            reads == (0 if mount.version == 2 else len(mount.carried)),
            f"the second run of {mount.name} read no value that it could do without",
        )
        rows.append(
            (
                mount.name,
                counted(ended, Count.UNCHANGED),
                moved(ended),
                reads,
                calls(ended, without="read"),
            )
        )
    return Told(
        [Table(("backend", "unchanged", "changed", "values read", "other calls"), rows)],
        "KV v2 tells versions, so no value is read. KV v1 tells none: its values are read"
        " and compared by keyed fingerprint.",
        numbers(ran),
    )


async def rotation(hands: Hands) -> Told:
    estate = hands.estate
    chosen: list[tuple[Mount, list[str]]] = [
        (estate.platform, [f"databases/staging/{s}" for s in demo_secrets.SERVICES]),
        (estate.payments, [f"ledger/{e}/journal" for e in demo_secrets.ENVIRONMENTS]),
        (estate.legacy, [f"jobs/nightly-{n:02d}" for n in range(4)]),
    ]
    shown = LocalPath("external/platform/databases/staging/orders")
    new: dict[str, Data] = {}
    for mount, paths in chosen:
        for path in paths:
            new[path] = demo_secrets.database(f"{mount.name}/{path}#rotated")
            await estate.put(mount, path, new[path])
    tagged = [f"tokens/ci/{service}" for service in demo_secrets.SERVICES[:4]]
    for path in tagged:
        await estate.tag(estate.platform, path, {"owner": "build-team"})
    ran = await hands.run_all()
    rows = []
    for (mount, ended), (_, paths) in zip(ran, chosen, strict=True):
        tags = len(tagged) if mount is estate.platform else 0
        found = ended.report.numbers
        expect(found[Count.UPDATED] == len(paths), f"every rotation in {mount.name} arrived")
        expect(found[Count.METADATA_UPDATED] == tags, f"new tags of {mount.name} arrived")
        rows.append(
            (
                mount.name,
                len(paths),
                counted(ended, Count.UPDATED),
                counted(ended, Count.METADATA_UPDATED),
                ended.report.calls["read"],
            )
        )
        for path in paths:
            local = local_path(mount, path)
            expect(await hands.value(local) == new[path], f"{local} has the rotated value")
    history = await hands.history(shown)
    versions = [
        (
            f"v{v['version']}",
            "current" if v is history[0] else "kept, readable",
            f"pulled from OpenBao, v{str(v['remote_version']).partition(':')[0]} there",
        )
        for v in history
    ]
    old = await hands.value(shown, 1)
    expect(old != new["databases/staging/orders"], "the value before the rotation is kept")
    columns = ("backend", "rotated there", "updated here", "tags only", "values read")
    return Told(
        [
            Table(columns, rows),
            Table(("version", "state", "from"), versions, title=f"History of {shown}:"),
        ],
        "The next read of each path gets the new value. Nobody had to change an application.",
        numbers(ran),
    )


async def deletion(hands: Hands) -> Told:
    estate = hands.estate
    chosen = [
        (estate.platform, ["tls/reports-1.shop.example", "tls/reports-2.shop.example"]),
        (estate.payments, ["fraud/velocity/dev", "fraud/refunds/dev"]),
    ]
    for mount, paths in chosen:
        await estate.delete(mount, paths)
    ran = await hands.run_all()
    by_name = {mount.name: ended for mount, ended in ran}
    kept, deleted = by_name["platform"].report.numbers, by_name["payments"].report.numbers
    expect(kept[Count.RETAINED] == 2 and not kept[Count.DELETED], "platform retained both")
    expect(deleted[Count.DELETED] == 2 and not deleted[Count.RETAINED], "payments deleted two")
    rows = []
    for mount, paths in chosen:
        policy = "retain" if mount is estate.platform else "soft_delete"
        for path in paths:
            local = local_path(mount, path)
            served = await hands.is_served(local)
            expect(served is (policy == "retain"), f"{local} obeys {policy}")
            await hands.value(local, 1)  # its history is there either way
            shown = "still served" if served else "deleted, history kept"
            rows.append((below_external(local), policy, shown))
    return Told(
        [Table(("below external/", "on_remote_delete", "in svsync"), rows)],
        "No value is destroyed: version 1 of each can still be read here.",
        numbers(ran),
    )


def expect_created(ended: Ended, mount: Mount) -> None:
    created = ended.report.numbers[Count.CREATED]
    expect(
        created == len(mount.carried),
        f"the first pull of {mount.name} creates {len(mount.carried)} secrets, not {created}",
    )
    earlier = demo_secrets.total_versions(mount.carried) - len(mount.carried)
    imported = ended.report.numbers[Count.IMPORTED_VERSIONS]
    expect(
        imported == earlier,
        f"the first pull of {mount.name} imports {earlier} earlier versions, not {imported}",
    )


PULLS: Final = (
    Step(
        "source",
        "What the company has in OpenBao",
        "A shop keeps its secrets in three mounts. svsync signs in with an AppRole that"
        " may read them, but for one folder.",
        source,
    ),
    Step(
        "plan",
        "A plan, before anything is touched",
        "A dry run does all but write, so that you see what would happen.",
        plan,
    ),
    Step(
        "first_pull",
        "The first pull",
        "Everything that may be read is copied, sealed and stored, with its history;"
        " what cannot be carried over is named.",
        first_pull,
    ),
    Step(
        "quiet",
        "A second run, with nothing new",
        "Most runs find nothing new. They should read no value and change nothing.",
        quiet,
    ),
    Step(
        "rotation",
        "Passwords are rotated in OpenBao",
        "Only what changed is fetched. The old versions stay readable; new tags alone"
        " make no new version.",
        rotation,
    ),
    Step(
        "deletion",
        "Secrets are deleted in OpenBao",
        "Four are deleted there. Each backend says what that means here: keep serving, or"
        " delete too, recoverably.",
        deletion,
    ),
)
