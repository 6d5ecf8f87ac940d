"""One queue of SQS, by the login of a backend.

Rules of the service are those of the SQS API Reference, "ReceiveMessage",
"ChangeMessageVisibilityBatch" and "DeleteMessageBatch": ten messages a call, a wait of
twenty seconds at most, and an answer for each entry of a batch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from svsync.clients.aws import AwsRefusedError, AwsSession
from svsync.domain.errors import ConfigError, DeniedError
from svsync.ports import CallGuard, Operation

BATCH: Final = 10
LONGEST_WAIT_S: Final = 20

_NO_QUEUE: Final = (
    "AWS.SimpleQueueService.NonExistentQueue",
    "QueueDoesNotExist",
    "InvalidAddress",
)
_NO_KEY: Final = ("KMS.AccessDeniedException", "KmsAccessDenied")


@dataclass(frozen=True, slots=True)
class Message:
    """A message, and what it is deleted by."""

    body: str
    receipt: str


class Queue:
    """Calls to one queue. The URL only names it: called is the SQS of the session.

    Raises what `AwsSession.call` does, and ConfigError for what a person has to change.
    """

    def __init__(self, url: str, region: str, session: AwsSession, guard: CallGuard) -> None:
        self._url = url
        self._region = region
        self._session = session
        self._guard = guard
        _, self._account, self._name = urlsplit(url).path.split("/")

    async def receive(self, wait_s: int, hidden_s: int) -> list[Message]:
        """Up to ten messages, as soon as there is one; none after `wait_s`. Nobody else
        gets them for `hidden_s`."""
        answer = await self._call(
            "read",
            "receive_message",
            MaxNumberOfMessages=BATCH,
            WaitTimeSeconds=wait_s,
            VisibilityTimeout=hidden_s,
        )
        found = answer.get("Messages") or ()
        return [Message(str(one.get("Body")), str(one.get("ReceiptHandle"))) for one in found]

    async def hide(self, receipts: Sequence[str], hidden_s: int) -> None:
        """Nobody else gets these messages for so long from now."""
        for entries in _batches(receipts):
            with_time = [{**entry, "VisibilityTimeout": hidden_s} for entry in entries]
            await self._call("write", "change_message_visibility_batch", Entries=with_time)

    async def delete(self, receipts: Sequence[str]) -> None:
        """What is not deleted, though the call was made, comes again."""
        for entries in _batches(receipts):
            await self._call("delete", "delete_message_batch", Entries=list(entries))

    async def _call(self, operation: Operation, method: str, **parameters: Any) -> dict[str, Any]:
        try:
            return await self._guard.call(
                operation,
                lambda: self._session.call(
                    "sqs",
                    method,
                    {"QueueUrl": self._url, **parameters},
                    operation=operation,
                    shown=f"the queue {self._name}",
                ),
            )
        except DeniedError:
            raise self._unusable(
                f"AWS does not let the backend's login use the queue {self._name}: grant"
                " sqs:ReceiveMessage, sqs:DeleteMessage and sqs:ChangeMessageVisibility on it",
                code="denied",
            ) from None
        except AwsRefusedError as refused:
            if refused.reason in _NO_QUEUE:
                raise self._unusable(
                    f"there is no queue {self._name} of account {self._account} in"
                    f" {self._region}: make it there, or name the one that EventBridge sends to"
                ) from None
            if refused.reason in _NO_KEY:
                raise self._unusable(
                    f"the backend's login may not use the key of the queue {self._name}: grant"
                    " kms:Decrypt on it",
                    code="denied",
                ) from None
            raise

    @staticmethod
    def _unusable(sentence: str, code: str | None = None) -> ConfigError:
        return ConfigError(sentence, where="events.queue_url", code=code)


def _batches(receipts: Sequence[str]) -> Iterator[list[dict[str, Any]]]:
    for start in range(0, len(receipts), BATCH):
        together = receipts[start : start + BATCH]
        yield [{"Id": str(n), "ReceiptHandle": receipt} for n, receipt in enumerate(together)]
