"""What is traced while svsync works: which piece of work was part of which, and how long it took.

Like a `Meter`, a `Tracer` is told in plain words and numbers, and this one keeps nothing.
`otel.OtelTracer` exports what it is told, where the environment names a collector; nothing
of OpenTelemetry is loaded elsewhere.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Final

from svsync.domain.runs import Stage


class RunSpan:
    """One run at work."""

    def stage(self, stage: Stage) -> AbstractContextManager[object]:
        """The block is work of a stage; of one run several may go on at a time."""
        return nullcontext()

    def ended(self, result: str, counts: Mapping[str, int], error: str = "") -> None:
        """How it ended, what it did with secrets, and the code of what it failed by."""


class RequestSpan:
    """One request of the API."""

    def answered(self, route: str, status: int) -> None:
        """`route` is the template of the path; empty where there is none."""


class Tracer:
    """Takes what happens, and keeps nothing of it. No method blocks or raises.

    Words are those of a `Meter`: never a path, a value, a header, or the text of an error.
    """

    def run(
        self, tenant: str, backend: str, kind: str, *, run_id: str, run_kind: str, trigger: str
    ) -> AbstractContextManager[RunSpan]:
        """The block works a run of any kind. `kind` is the backend's type."""
        return nullcontext(UNTRACED_RUN)

    def backend_called(
        self, tenant: str, backend: str, kind: str, operation: str, status: str, seconds: float
    ) -> None:
        """One try of a call to a backend ended now, after so long."""

    def request(self, method: str, caller: str) -> AbstractContextManager[RequestSpan]:
        """The block answers a request. `caller` is its `traceparent`, whatever it says."""
        return nullcontext(UNTRACED_REQUEST)

    def webhook_delivered(self, tenant: str, status: str, seconds: float) -> None:
        """One attempt to deliver an event ended now, after so long."""


UNTRACED_RUN: Final = RunSpan()
UNTRACED_REQUEST: Final = RequestSpan()
UNTRACED: Final = Tracer()
