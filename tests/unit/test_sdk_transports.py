"""The HTTP of the SDKs, where whoever waits for an answer goes away."""

import asyncio

import aiohttp
import pytest
from tests.patience import PATIENCE_S

from svsync.clients.aws import transport as aws
from svsync.clients.azure import transport as azure


@pytest.mark.parametrize("answers", [aws._Answer, azure._Answer])
async def test_who_is_cancelled_within_an_answer_leaves_no_connection_open(
    answers: type[aiohttp.ClientResponse],
) -> None:
    gone = asyncio.Event()

    async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        await reader.read()
        gone.set()
        writer.close()

    server = await asyncio.start_server(half, "127.0.0.1", 0)
    async with server, aiohttp.ClientSession(response_class=answers) as session:
        answer = await session.get(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
        reading = asyncio.create_task(answer.read())
        await asyncio.sleep(0)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        async with asyncio.timeout(PATIENCE_S):
            await gone.wait()
