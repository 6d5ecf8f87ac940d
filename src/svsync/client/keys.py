"""What values are sealed with, for those whose token has the scope `admin`."""

from svsync.client.calls import Calls
from svsync.client.records import KeyAge


class Keys:
    """`client.keys`."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def list(self) -> tuple[KeyAge, ...]:
        """The root keys, newest first, and the tenant's data keys, oldest first, with age and
        state; nothing of a key. Raises SvsyncError."""
        return tuple((await self._calls.get("/v1/keys"))["keys"])
