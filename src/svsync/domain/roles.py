"""What a process of the service does; all of it unless it is told otherwise."""

from enum import StrEnum


class Role(StrEnum):
    """api: answers requests. worker: works runs, delivers webhooks, listens to change
    feeds. scheduler: makes the runs that are due, and tidies up."""

    API = "api"
    WORKER = "worker"
    SCHEDULER = "scheduler"
