"""
How long the work of an AsyncVerifier holds up its event loop, with the watch over a real connection, from another
process. Prints JSON: of each kind of work the longest turns of the loop, in milliseconds of the thread's CPU time, so
that other programs disturb less, and of the clock.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent.parent / name) for name in ("tests", "src")]

import httpx  # noqa: E402
from patd_of_tests import Bytes, until_async  # noqa: E402

from patd import AsyncVerifier  # noqa: E402
from patd.form import random_token  # noqa: E402

TOKENS = int(os.environ.get("TOKENS", "100000"))
EVENTS = int(os.environ.get("EVENTS", "10000"))


class Server:
    """The watch of a patd, which sends what a line of the input says."""

    sequence = 1

    def event(self, kind: str, names: list[str]) -> bytes:
        data = {"sequence": str(self.sequence), "history": "h", "start_over": kind == "start-over", "token_ids": names}
        return f"event: {kind}\ndata: {json.dumps(data)}\n\n".encode()

    async def main(self) -> None:
        server = await asyncio.start_server(self.watch, "127.0.0.1", 0)
        print(server.sockets[0].getsockname()[1], flush=True)
        self.input = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(self.input), sys.stdin
        )
        self.asking = asyncio.create_task(self.input.readline())
        await server.serve_forever()

    async def watch(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
        writer.write(self.event("start-over", []))
        while not writer.is_closing():
            done, _ = await asyncio.wait([self.asking], timeout=0.5)
            if not done:
                writer.write(self.event("heartbeat", []))
                continue
            if not self.asking.result():
                os._exit(0)
            kind, events, names = self.asking.result().decode().split()
            out = b""
            for i in range(int(events)):
                self.sequence += kind == "invalidations"
                out += self.event(kind, [f"id{i}-{n}" for n in range(int(names))])
            writer.write(out)  # at once
            self.asking = asyncio.create_task(self.input.readline())


class Patd(httpx.AsyncBaseTransport):
    """Asks the other process for the watch, and answers questions itself: every token is active."""

    def __init__(self) -> None:
        self.watch = httpx.AsyncHTTPTransport()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            return await self.watch.handle_async_request(request)
        body = json.loads(request.content)
        await asyncio.sleep(0)
        if "requests" in body:
            out: Any = {"responses": [self.answer(one["token"]) for one in body["requests"]]}
        else:
            out = self.answer(body["token"]) if "token" in body else {}
        return httpx.Response(200, stream=Bytes(json.dumps(out).encode()))

    @staticmethod
    def answer(token: str) -> dict[str, Any]:
        return {
            "active": True,
            "decision": "ALLOW",
            "token_id": token[4:15],
            "user": f"user-{token[16:36]}",
            "scopes": ["read"],
            "any_client_ip": True,
            "sequence": "1",
        }


class Turns:
    """Collects how long the turns of the loop take."""

    def __init__(self) -> None:
        self.cpu: list[float] = []
        self.wall: list[float] = []
        self.task = asyncio.create_task(self.count())

    async def count(self) -> None:
        while True:
            cpu, wall = time.thread_time(), time.monotonic()
            await asyncio.sleep(0)
            self.cpu.append(time.thread_time() - cpu)
            self.wall.append(time.monotonic() - wall)
            if self.cpu[-1] < 0.0002:
                await asyncio.sleep(0.001)  # it is quiet

    def take(self) -> dict[str, Any]:
        out = {"turns": len(self.cpu), "cpu_ms": summary(self.cpu), "wall_ms": summary(self.wall)}
        self.cpu, self.wall = [], []
        return out


def summary(some: list[float]) -> dict[str, float]:
    some = sorted(some)
    return {
        name: round(some[math.ceil(part * len(some)) - 1] * 1000, 2) for name, part in (("p99", 0.99), ("max", 1.0))
    }


async def main() -> None:
    server = subprocess.Popen([sys.executable, __file__, "server"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert server.stdin and server.stdout
    to, port = server.stdin, int(server.stdout.readline())
    known = [random_token()[0] for _ in range(TOKENS)]
    out: dict[str, Any] = {}
    async with AsyncVerifier(
        f"http://127.0.0.1:{port}",
        "t",
        transport=Patd(),
        max_entries=2 * TOKENS,
        max_bytes=4 << 30,
        max_age=3600,
        timeout=600,
        report_every=5,
    ) as v:
        await until_async(lambda: v.stats().watching)
        turns = Turns()

        async def phase(name: str, work: Awaitable[object]) -> None:
            await asyncio.sleep(0.5)
            turns.take()
            await work
            out[name] = turns.take()

        async def fill() -> None:
            for i in range(0, TOKENS, 100):
                await asyncio.gather(*(v.verify(token, scopes=["read"]) for token in known[i : i + 100]))

        async def check() -> None:
            for i, token in enumerate(known):
                await v.verify(token, scopes=["read"])
                if i % 100 == 0:
                    await asyncio.sleep(0)

        async def send(what: str) -> None:
            to.write(f"{what}\n".encode())
            to.flush()
            await asyncio.sleep(3)

        await phase("nothing", asyncio.sleep(1))
        await phase(f"{TOKENS} questions", fill())
        held = v.stats().entries
        await phase(f"{TOKENS} checks from memory, 100 a turn", check())
        await phase(f"{EVENTS} events at once", send(f"invalidations {EVENTS} 1"))
        await phase("100 events of 500 names at once", send("invalidations 100 500"))
        await phase(f"start over with {held} answers", send("start-over 1 0"))
        out["after"] = {"entries": v.stats().entries, "watching": v.stats().watching}
        turns.task.cancel()
    to.close()
    server.wait()
    print(json.dumps(out, indent=1))


asyncio.run(Server().main() if sys.argv[1:] == ["server"] else main())
