"""The audit log, by a service."""

import argparse
from typing import Final

from svsync.cli import audit as here
from svsync.cli.remote.opening import asked
from svsync.client.records import AuditLogs

_PAGE: Final = 1000


async def query(args: argparse.Namespace) -> int:
    here.refuse_unusable(args)
    logs: AuditLogs = {"logs": [], "next_cursor": args.cursor}
    async with asked(args) as client:
        while True:
            page = await client.audit.query(
                identity_id=args.identity_id,
                secret_path=args.secret_path,
                action=args.action,
                decision=args.decision,
                start=args.start,
                end=args.end,
                limit=min(_PAGE, args.limit - len(logs["logs"])),
                cursor=logs["next_cursor"],
            )
            logs["logs"] += page["logs"]
            logs["next_cursor"] = page["next_cursor"]
            if page["next_cursor"] is None or len(logs["logs"]) >= args.limit:
                break
    here.tell_logs(args, logs)
    return 0
