"""Keys: how they stand, others in their place, and all that is sealed brought under those."""

import argparse
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import TYPE_CHECKING, Any, Final

from svsync.cli.arguments import add_command, add_group
from svsync.cli.output import Output, span
from svsync.domain.access import TenantShreddedError

if TYPE_CHECKING:
    from svsync.app import App
    from svsync.domain.ids import TenantId
    from svsync.services.keys import Rewound
    from svsync.services.rewrapping import Rewrapped

_WRAPPING: Final = "data keys wrapped anew, tenants done"


def add_commands(subparsers: Any) -> None:
    keys = add_group(subparsers, "keys", "the keys that values are sealed with")
    add_command(
        keys, "status", "what wraps and seals by now, how old it is, and how much it seals", status
    )
    rotated = add_command(
        keys, "rotate", "another key for what is sealed from now on; old ones open still", rotate
    )
    which = rotated.add_mutually_exclusive_group()
    which.add_argument(
        "--root", action="store_true", help="another root key, which wraps all data keys anew"
    )
    rewrapped = add_command(
        keys, "rewrap", "seal anew what stands under old data keys, so that they can go", rewrap
    )
    for parser in (which, rewrapped):
        parser.add_argument("--all-tenants", action="store_true", help="of every tenant")


async def status(args: argparse.Namespace) -> int:
    from dataclasses import asdict

    from svsync.cli.opening import opened, record

    out: Output = args.out
    async with opened(args) as (app, tenant):
        await record(app, tenant, "keys.status")
        found = await app.keys.status(tenant)
    if out.json:
        services = [
            {"role": s.role, "reference": s.reference, "state": str(s.word)} for s in found.services
        ]
        out.document(
            {
                "key_services": services,
                "keys": [asdict(key) for key in found.keys],
                "warnings": list(found.warnings),
            }
        )
        return 0
    out.table(
        ("key service", "as", "the root key"),
        [(s.reference, s.role, str(s.word)) for s in found.services],
    )
    out.line()
    out.table(
        ("key", "for", "state", "age", "seals", "sealings reserved", "wrapped by"),
        [
            (
                f"{key.kind} {key.id}",
                key.purpose,
                key.state,
                span(key.age_s),
                "-" if key.sealed is None else key.sealed,
                key.reserved,
                key.wrapped_by,
            )
            for key in found.keys
        ],
    )
    for said in found.warnings:
        out.line(f"Warning: {said}.")
    return 0


async def rotate(args: argparse.Namespace) -> int:
    from svsync.cli.opening import opened_store, record

    out: Output = args.out
    async with opened_store(args) as app:
        if args.root:
            return await _rotate_root(app, out)
        rotated = []
        for one, slug in (await _tenants(app, args)).items():
            await record(app, one, "keys.rotate", about={"root": False})
            with _passing_over(args):
                for made in await app.keys.rotate(one):
                    told = {"tenant": slug, "purpose": made.purpose, "old": made.old}
                    rotated.append({**told, "new": made.new})
    if out.json:
        out.document({"rotated": rotated})
        return 0
    if not rotated:
        out.line("Nothing was sealed yet, so there is no key to replace.")
        return 0
    out.table(
        ("tenant", "for", "sealed until now", "seals from now on"),
        [(r["tenant"], r["purpose"], f"data {r['old']}", f"data {r['new']}") for r in rotated],
    )
    out.line("What the old keys sealed they open still; `svsync keys rewrap` seals it anew.")
    return 0


async def _rotate_root(app: "App", out: Output) -> int:
    from svsync.cli.opening import record

    for one in await app.keys.tenants():
        await record(app, one, "keys.rotate", about={"root": True})
    old, new = await app.keys.rotate_root()
    done = await _wrap_anew(app, out)
    if out.json:
        out.document({"root": {"old": old, "new": new}, **_told_of_roots(done)})
    else:
        out.line(f"Root key {new} wraps from now on, in place of {old}.")
        _tell_of_roots(out, done)
    return 1 if done.closed else 0


async def rewrap(args: argparse.Namespace) -> int:
    from svsync.cli.opening import opened_store, record

    out: Output = args.out
    found: dict[str, Rewrapped] = {}
    roots: Rewound | None = None
    async with opened_store(args) as app:
        tenants = await _tenants(app, args)
        for one in tenants:
            await record(app, one, "keys.rewrap")
        if await app.keys.has_old_roots():  # a rotation that was stopped
            roots = await _wrap_anew(app, out)
        for one, slug in tenants.items():
            with _passing_over(args), out.counting(f"{slug}: sealed anew") as tell:
                found[slug] = await app.keys.rewrap(one, tell)
    if out.json:
        told: dict[str, object] = {} if roots is None else _told_of_roots(roots)
        out.document({"tenants": [_told(slug, done) for slug, done in found.items()], **told})
    else:
        if roots is not None:
            _tell_of_roots(out, roots)
        for slug, done in found.items():
            _tell(out, slug, done)
    unfinished = any(done.left for done in found.values())
    return 1 if unfinished or (roots is not None and roots.closed) else 0


def _passing_over(args: argparse.Namespace) -> AbstractContextManager[None]:
    """Of all tenants one may be shredded meanwhile, which is no matter of the others."""
    return suppress(TenantShreddedError) if args.all_tenants else nullcontext()


async def _tenants(app: "App", args: argparse.Namespace) -> Mapping["TenantId", str]:
    if args.all_tenants:  # whatever became of the one that is meant where none is named
        return await app.keys.tenants()
    return {await app.tenant(args.tenant): args.tenant}


async def _wrap_anew(app: "App", out: Output) -> "Rewound":
    with out.counting(_WRAPPING) as tell:
        return await app.keys.wrap_anew(tell)


def _told_of_roots(done: "Rewound") -> dict[str, object]:
    return {
        "data_keys_wrapped": done.wrapped,
        "data_keys_closed": [{"tenant_id": tenant, "key": key} for tenant, key in done.closed],
        "root_keys_removed": list(done.removed),
    }


def _tell_of_roots(out: Output, done: "Rewound") -> None:
    out.line(f"{done.wrapped:,} data keys were wrapped anew.")
    for tenant, key in done.closed:
        out.line(
            f"Data key {key} of tenant {tenant} does not open: it stays as it is, and so does the"
            " root key that wraps it."
        )
    for root in done.removed:
        out.line(f"Root key {root} wraps nothing any more, and is gone.")


def _told(slug: str, done: "Rewrapped") -> dict[str, object]:
    return {
        "tenant": slug,
        "sealed": done.sealed,
        "left": done.left,
        "unreadable": done.unreadable,
        "unreadable_at": done.places,
        "keys_removed": done.emptied.removed,
        "keys_waiting": done.emptied.waiting,
    }


def _tell(out: Output, slug: str, done: "Rewrapped") -> None:
    from svsync.services.rewrapping import KEPT_S

    out.line(f"{slug}: {done.sealed:,} values were sealed anew.")
    for place in done.places:
        out.line(f"{slug}: {place} does not open, and is left as it is.")
    if done.left > done.unreadable:
        more = done.left - done.unreadable
        out.line(f"{slug}: {more:,} were in use; run `svsync keys rewrap` once more.")
    for key in done.emptied.removed:
        out.line(f"{slug}: data key {key} seals nothing any more, and is gone.")
    for key in done.emptied.waiting:
        out.line(
            f"{slug}: data key {key} seals nothing any more; retention removes it once that was"
            f" so for {span(KEPT_S)}."
        )
