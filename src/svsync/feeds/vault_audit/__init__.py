"""The feed `vault-audit`: what an audit device of Vault or OpenBao tells of changes.

    sockets.py or files.py   a thread that reads, and does nothing else
    lines.py                 blocks into lines; a bounded buffer between thread and loop
    entries.py               a line into notices: operation and path, the rest is dropped
    feed.py                  the feed itself: gaps, counts, and what it logs

Vault waits for its audit devices. So what reads is never held up: not by looking at
lines, not by the store, not by a busy event loop. What does not fit is dropped and
counted, and leads to one notice that says "anything may have changed".
`docs/decisions/0026-vault-audit-feed.md` has what a real server sends.
"""

from svsync.feeds.vault_audit.feed import VaultAuditFeed, open_feed

__all__ = ["VaultAuditFeed", "open_feed"]
