"""The feed `aws-sqs`: what CloudTrail tells of AWS Secrets Manager, by EventBridge and SQS.

    queue.py     one queue: receive, keep, delete; each call passes the guard
    events.py    a message into the names of secrets; the rest of it is dropped
    feed.py      the feed itself: when a message is told, and when it may go

A message is deleted once the run that it asks for is written down. Until then it is
hidden from others for a minute at a time, so one that a process held when it died comes
again. What is no event of Secrets Manager is not ours to delete: it stays for the queue's
redrive policy. `docs/decisions/0045-queues-are-let-go-of-last.md` has why.
"""

from svsync.feeds.aws_sqs.feed import SqsFeed, open_feed

__all__ = ["SqsFeed", "open_feed"]
