"""An AsyncVerifier leaves other work its turns of the event loop."""

from __future__ import annotations

import asyncio
import gc
import json
import math
from collections.abc import AsyncIterator

import httpx
from patd_of_tests import Body, Wire, until_async

from patd import AsyncVerifier, Decision
from patd.decision import Token
from patd.entry import Entry
from patd.form import random_token
from patd.memory import Memory, News

URL = "https://patd.example.com"
EVENTS = 10_000


def event(sequence: int, **more: object) -> bytes:
    return f"data: {json.dumps({'sequence': str(sequence), 'history': 'h', **more})}\n\n".encode()


class Burst(httpx.AsyncByteStream):
    """A watch that sends a burst, and knows when all of it was taken."""

    def __init__(self, burst: bytes) -> None:
        self.burst = burst
        self.ready = asyncio.Event()
        self.begun = asyncio.Event()
        self.applied = asyncio.Event()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield event(1, start_over=True)
        await self.ready.wait()
        self.begun.set()
        yield self.burst
        self.applied.set()
        await asyncio.Event().wait()  # the watch stays open


class Bursting(Wire):
    """A patd whose watch is a burst."""

    def __init__(self, burst: Burst) -> None:
        super().__init__()
        self.burst = burst

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            return httpx.Response(200, headers={"Content-Type": "text/event-stream"}, stream=self.burst)
        return await super().handle_async_request(request)


def test_a_burst_of_events_leaves_other_work_its_turns() -> None:
    async def main() -> int:
        ids = [f"other{i}" for i in range(EVENTS - 1)] + ["15ODq7pq8Hy"]
        burst = Burst(b"".join(event(i + 2, token_ids=[name]) for i, name in enumerate(ids)))
        wire = Bursting(burst)
        wire.answer = lambda body: wire.active()
        async with AsyncVerifier(URL, "t", transport=wire) as v:
            await until_async(lambda: v.stats().watching)
            token, _ = random_token()
            assert (await v.verify(token)).allowed
            burst.ready.set()
            await burst.begun.wait()
            turns = 0
            while not burst.applied.is_set():
                turns += 1
                await asyncio.sleep(0)
            wire.answer = lambda body: {"active": False, "decision": "REVOKED"}
            assert (await v.verify(token)).decision is Decision.REVOKED  # the last event was about it
            return turns

    assert asyncio.run(main()) >= EVENTS / 1000


def entries() -> int:
    """Returns how many answers there are in this process."""
    gc.collect()
    return sum(isinstance(o, Entry) for o in gc.get_objects())


def test_what_is_forgotten_is_freed_in_parts() -> None:
    before = entries()
    memory = Memory(20_000, 1 << 30, lambda: 0.0, lambda: 0.0)
    memory.apply(News(1, True, (), ()))
    for i in range(10_000):
        e = Entry(Decision.ALLOW, Token(id=f"id{i}", user=f"user{i}"))
        e.key, e.until = i.to_bytes(16, "big"), math.inf
        assert not memory.keep(e, memory.epoch, 1)
        assert not memory.usable(e)  # nothing is known yet
    memory.known(memory.now())
    assert memory.usable(e) and memory.recall(e.key) is e
    memory.apply(News(2, True, (), ()))
    assert not memory.usable(e) and memory.recall(e.key) is None and memory.counts()[0] == 0
    parts = 1
    while memory.sweep():
        parts += 1
    assert parts >= 10
    del e
    assert entries() == before


def test_a_watch_that_starts_over_has_answers_freed() -> None:
    async def main() -> None:
        before = entries()
        wire = Wire()

        def answer(body: Body) -> Body:
            return wire.active(token_id=body["token"][4:15], user=body["token"])

        wire.answer = answer
        async with AsyncVerifier(URL, "t", transport=wire) as v:
            await until_async(lambda: v.stats().watching)
            await asyncio.gather(*(v.verify(random_token()[0]) for _ in range(2000)))
            wire.start_over()
            await until_async(lambda: v.stats().entries == 0)
            await until_async(lambda: entries() == before)

    asyncio.run(main())
