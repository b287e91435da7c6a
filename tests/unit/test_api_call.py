"""A call: what ends with its client."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from dockyard.api.call import Call
from dockyard.errors import Cancelled


class Client:
    """As much of a request as ``while_client_stays`` asks."""

    def __init__(self) -> None:
        self.disconnected = False
        self._callbacks: list[Callable[[], None]] = []

    def on_disconnect(self, callback: Callable[[], None]) -> None:
        self._callbacks.append(callback)

    def leave(self) -> None:
        self.disconnected = True
        for callback in self._callbacks:
            callback()


def call(client: Client) -> Call:
    unused: Any = None
    request: Any = client
    return Call(request, unused, unused, {}, (1, 51))


async def test_work_ends_with_the_client() -> None:
    client, begun, ended = Client(), asyncio.Event(), asyncio.Event()

    async def pull() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    waiting = asyncio.create_task(call(client).while_client_stays(pull()))
    await begun.wait()
    client.leave()
    with pytest.raises(Cancelled, match="the client closed the connection"):
        await waiting
    assert ended.is_set()


async def test_work_that_is_done_is_given_back_and_its_error_is_its_own() -> None:
    async def done() -> str:
        return "manifest"

    async def failed() -> None:
        raise OSError("no such host")

    assert await call(Client()).while_client_stays(done()) == "manifest"
    with pytest.raises(OSError, match="no such host"):
        await call(Client()).while_client_stays(failed())


async def test_who_is_cancelled_cancels_the_work() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def pull() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    waiting = asyncio.create_task(call(Client()).while_client_stays(pull()))
    await begun.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert ended.is_set()
