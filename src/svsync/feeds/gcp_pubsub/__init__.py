"""The feed `gcp-pubsub`: what Secret Manager tells the topics of its secrets.

    subscription.py   one subscription: pull, hold, acknowledge; each call passes the guard
    events.py         a message into the name of a secret; the rest of it is dropped
    feed.py           the feed itself: when a message is told, and when it may go

A message is acknowledged once the run that it asks for is written down. Until then its
deadline is put off, so one that a process held when it died comes again. What is no notice
of Secret Manager is not ours to acknowledge: it stays for the subscription's dead-letter
topic. `docs/decisions/0045-queues-are-let-go-of-last.md` has why.
"""

from svsync.feeds.gcp_pubsub.feed import PubSubFeed, open_feed

__all__ = ["PubSubFeed", "open_feed"]
