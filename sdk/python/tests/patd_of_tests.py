"""A patd without a network: what a verifier is given as its transport."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx

Body = dict[str, Any]


class Stream(httpx.AsyncByteStream):
    """The events of a watch."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.watch_id = f"watch-{len(wire.watches) + 1}"
        self.loop = asyncio.get_running_loop()
        self.events: asyncio.Queue[bytes | None] = asyncio.Queue()

    def put(self, text: bytes | None) -> None:
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self.events.put_nowait, text)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        self.events.put_nowait(self.wire.text("start-over", watch_id=self.watch_id))
        while True:
            try:
                async with asyncio.timeout(0.3):  # wait_for may lose a cancellation, before Python 3.12
                    event = await self.events.get()
            except TimeoutError:
                if self.wire.silent:
                    continue
                event = self.wire.text("heartbeat")
            if event is None:
                return
            yield event


class Wire(httpx.AsyncBaseTransport):
    """Answers requests as patd would, and lets a test send events."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Body]] = []
        self.keep = True  # what was asked
        self.status = 200
        self.batch_status = 200
        self.silent = False
        self.watches: list[httpx.Request] = []
        self.answer: Callable[[Body], Body] = lambda body: {"active": False, "decision": "NOT_FOUND"}
        self.hold: asyncio.Event | None = None
        self.acknowledged: list[Body] = []
        self.acknowledging = 200  # the status of the answer; 0: there is none
        self.ended = 0  # acknowledgements that were given up
        self._sequence = 1
        self._streams: list[Stream] = []
        self._lock = threading.Lock()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/invalidations":
            stream = Stream(self)
            self._streams.append(stream)
            self.watches.append(request)
            return httpx.Response(200, headers={"Content-Type": "text/event-stream"}, stream=stream)
        body = json.loads(request.content)
        if request.url.path == "/v1/invalidations:acknowledge":
            return await self._acknowledge(body)
        if self.keep:
            self.asked.append((request.url.path, body))
        if self.hold is not None:
            await self.hold.wait()
        await asyncio.sleep(0)
        is_batch = request.url.path == "/v1/introspect:batch"
        status = self.batch_status if is_batch else self.status
        if status != 200:
            return httpx.Response(status, json={})
        out: Body = {}
        if request.url.path == "/v1/introspect":
            out = self.answer(body)
        elif is_batch:
            out = {"responses": [self.answer(one) for one in body["requests"]]}
        # As it is read from a connection: an answer that is there at once is not.
        return httpx.Response(200, stream=Bytes(json.dumps(out).encode()))

    async def _acknowledge(self, body: Body) -> httpx.Response:
        self.acknowledged.append(body)
        try:
            while self.acknowledging == 0:
                await asyncio.sleep(0.005)
        except asyncio.CancelledError:
            self.ended += 1
            raise
        return httpx.Response(self.acknowledging, stream=Bytes(b"{}"))

    def text(
        self, kind: str, token_ids: list[str] | None = None, users: list[str] | None = None, **more: object
    ) -> bytes:
        data = {
            "sequence": str(self._sequence),
            "history": "h",
            "start_over": kind == "start-over",
            "token_ids": token_ids or [],
            "users": users or [],
            **more,
        }
        return f"event: {kind}\nid: {self._sequence}-h\ndata: {json.dumps(data)}\n\n".encode()

    def change(self, token_ids: list[str] | None = None, users: list[str] | None = None, **more: object) -> None:
        """Sends news."""
        with self._lock:
            self._sequence += 1
            for stream in self._streams:
                stream.put(self.text("invalidations", token_ids, users, **more))

    def start_over(self) -> None:
        """Has all watches start over."""
        for stream in self._streams:
            stream.put(self.text("start-over"))

    def end(self) -> None:
        """Ends all watches."""
        for stream in self._streams:
            stream.put(None)
        self._streams.clear()

    @property
    def sequence(self) -> str:
        return str(self._sequence)

    def active(self, **more: Any) -> Body:
        """Returns an answer about an active token."""
        return {
            "active": True,
            "decision": "ALLOW",
            "token_id": "15ODq7pq8Hy",
            "user": "alice",
            "scopes": ["read"],
            "granted_scopes": ["read"],
            "any_client_ip": True,
            "sequence": self.sequence,
            **more,
        }


class Bytes(httpx.AsyncByteStream):
    """A body."""

    def __init__(self, body: bytes) -> None:
        self.body = body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self.body


def until(so: Callable[[], bool]) -> None:
    """Waits until something is so."""
    end = time.monotonic() + 20
    while not so():
        assert time.monotonic() < end, "it never was so"
        time.sleep(0.005)


async def until_async(so: Callable[[], bool]) -> None:
    """Waits until something is so, in an event loop."""
    end = time.monotonic() + 20
    while not so():
        assert time.monotonic() < end, "it never was so"
        await asyncio.sleep(0.005)
