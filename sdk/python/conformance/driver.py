"""The program that puts the Python library through sdk/conformance: driver.py sync, or driver.py asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from patd import AsyncVerifier, Fault, Options, Result, Stats, Verifier, is_plausible
from patd.address import parse_address
from patd.keys import key_material

Command = dict[str, Any]
mode = sys.argv[1]
offset = 0.0  # of the wall clock, in seconds
CLOSED: Command = {"error": "closed"}


def options(c: Command) -> Options:
    global offset
    offset = (c.get("clock_ms") or 0) / 1000
    out: Options = {
        "audience": c.get("audience") or "",
        "report_every": (c.get("report_every_ms") or 0) / 1000,
        "now": lambda: time.time() + offset,
    }
    if c.get("max_age_ms"):
        out["max_age"] = c["max_age_ms"] / 1000
    if c.get("max_entries"):
        out["max_entries"] = c["max_entries"]
    if c.get("timeout_ms"):
        out["timeout"] = c["timeout_ms"] / 1000
    return out


def call(c: Command) -> dict[str, Any]:
    return {"scopes": c.get("scopes") or [], "audience": c.get("audience"), "client_ip": c.get("ip")}


def answer_of(r: Result) -> Command:
    out: Command = {"decision": r.decision, "missing": r.missing}
    if r.reason:
        out["reason"] = r.reason
    if r.token:
        out |= {"token_id": r.token.id, "user": r.token.user, "scopes": r.token.scopes}
    return out


def fault_of(err: Exception) -> Command:
    return {"error": err.kind if isinstance(err, Fault) else "unavailable", "message": repr(err)}


def status_of(s: Stats) -> Command:
    return {"watching": s.watching, "entries": s.entries, "dropped_uses": s.dropped_uses}


def clock(c: Command) -> Command:
    global offset
    offset = (c.get("wall_ms") or 0) / 1000
    return {"ok": True}


def key(c: Command) -> Command:
    out = {"everywhere": key_material(c["token"], c.get("audience") or "").hex()}
    address = parse_address(c["ip"]) if c.get("ip") else None
    if address:
        out["address"] = address.packed.hex()
    return out


common: dict[str, Callable[[Command], Command]] = {
    "hello": lambda c: {
        "protocol": 1,
        "library": f"patd for Python, {mode}",
        "speaks": "http",
        "can": ["clock", "key", "load"],
    },
    "clock": clock,
    "form": lambda c: {"plausible": is_plausible(c.get("token") or "")},
    "key": key,
}
writing = threading.Lock()


class Load:
    """Loops of checks without a pause."""

    def __init__(self, c: Command) -> None:
        self.tokens: list[str] = c.get("tokens") or []
        self.scopes: list[str] = c.get("scopes") or []
        self.over = False
        self.checks = 0
        self.refused = 0

    def loop(self, verifier: Verifier) -> None:
        checks = 0
        while not self.over:
            for token in self.tokens:
                with contextlib.suppress(Fault):
                    self.refused += not verifier.verify(token, scopes=self.scopes).allowed
            checks += len(self.tokens)
        self.checks += checks

    async def loop_async(self, verifier: AsyncVerifier) -> None:
        while not self.over:
            for token in self.tokens:
                with contextlib.suppress(Fault):
                    self.refused += not (await verifier.verify(token, scopes=self.scopes)).allowed
            self.checks += len(self.tokens)
            await asyncio.sleep(0)  # other work has its turn, as between the requests of a server

    def text(self) -> Command:
        return {"ok": True, "checks": self.checks, "refused": self.refused}


OK: Command = {"ok": True}


def write(c: Command, out: Command) -> None:
    with writing:
        sys.stdout.write(json.dumps({"id": c["id"], **out}) + "\n")
        sys.stdout.flush()


class Sync:
    """Drives a Verifier, with a thread for each command."""

    verifier: Verifier | None = None
    running: tuple[Load, list[threading.Thread]] | None = None

    def configure(self, c: Command) -> Command:
        with contextlib.suppress(Fault):
            self.close(c)
        self.verifier = Verifier(c["http"], c["token"], **options(c))
        return {"ok": True}

    def check(self, c: Command) -> Command:
        return answer_of(self.verifier.verify(c["token"], **call(c))) if self.verifier else CLOSED

    def load(self, c: Command) -> Command:
        out = OK
        if self.running:
            before, threads = self.running
            before.over, self.running = True, None
            for thread in threads:
                thread.join()
            out = before.text()
        if self.verifier and c.get("loops"):
            load = Load(c)
            threads = [threading.Thread(target=load.loop, args=(self.verifier,)) for _ in range(c["loops"])]
            self.running = load, threads
            for thread in threads:
                thread.start()
        return out

    def status(self, c: Command) -> Command:
        return status_of(self.verifier.stats()) if self.verifier else CLOSED

    def close(self, c: Command) -> Command:
        if self.verifier:
            self.verifier.close()
        return {"ok": True}

    def answer(self, c: Command) -> None:
        try:
            if c["do"] in common:
                write(c, common[c["do"]](c))
            elif hasattr(self, c["do"]):
                write(c, getattr(self, c["do"])(c))
            else:
                write(c, {"error": "unsupported"})
        except Exception as err:
            write(c, fault_of(err))

    def run(self) -> None:
        for line in sys.stdin:
            c = json.loads(line)
            if c["do"] == "configure":
                self.answer(c)  # before the checks that follow it
            else:
                threading.Thread(target=self.answer, args=(c,)).start()
        self.load({})
        with contextlib.suppress(Fault):
            self.close({})


class Async:
    """Drives an AsyncVerifier, with a task for each command."""

    verifier: AsyncVerifier | None = None
    running: tuple[Load, list[asyncio.Task[None]]] | None = None

    async def configure(self, c: Command) -> Command:
        with contextlib.suppress(Fault):
            await self.close(c)
        self.verifier = AsyncVerifier(c["http"], c["token"], **options(c))
        await self.verifier.start()
        return {"ok": True}

    async def check(self, c: Command) -> Command:
        return answer_of(await self.verifier.verify(c["token"], **call(c))) if self.verifier else CLOSED

    async def load(self, c: Command) -> Command:
        out = OK
        if self.running:
            before, tasks = self.running
            before.over, self.running = True, None
            await asyncio.gather(*tasks)
            out = before.text()
        if self.verifier and c.get("loops"):
            load = Load(c)
            self.running = load, [asyncio.create_task(load.loop_async(self.verifier)) for _ in range(c["loops"])]
        return out

    async def status(self, c: Command) -> Command:
        return status_of(self.verifier.stats()) if self.verifier else CLOSED

    async def close(self, c: Command) -> Command:
        if self.verifier:
            await self.verifier.close()
        return {"ok": True}

    async def answer(self, c: Command) -> None:
        try:
            if c["do"] in common:
                write(c, common[c["do"]](c))
            elif hasattr(self, c["do"]):
                write(c, await getattr(self, c["do"])(c))
            else:
                write(c, {"error": "unsupported"})
        except Exception as err:
            write(c, fault_of(err))

    async def main(self) -> None:
        reader = asyncio.StreamReader(limit=1 << 20)
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        tasks: set[asyncio.Task[None]] = set()
        while line := await reader.readline():
            c = json.loads(line)
            task = asyncio.create_task(self.answer(c))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            if c["do"] == "configure":
                await task  # before the checks that follow it
        await self.load({})
        with contextlib.suppress(Fault):
            await self.close({})


if mode == "sync":
    Sync().run()
else:
    asyncio.run(Async().main())
