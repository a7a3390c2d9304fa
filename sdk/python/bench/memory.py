"""
What a check from memory costs, in one thread, in two, and in an event loop, and what memory holds after TOKENS
different tokens, a million. Prints JSON; a check's time is that of the processor, so that other programs disturb less.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import hashlib
import json
import os
import sys
import threading
import time
import tracemalloc
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent.parent / name) for name in ("tests", "src")]

from patd_of_tests import Body, Wire, until, until_async  # noqa: E402

from patd import AsyncVerifier, Verifier  # noqa: E402
from patd.form import random_token  # noqa: E402

TOKENS = int(os.environ.get("TOKENS", "1000000"))
MAX_ENTRIES = max(1000, TOKENS // 100)
THREAD_TOKENS = int(os.environ.get("THREAD_TOKENS", TOKENS))
CHECKS = int(os.environ.get("CHECKS", "50000"))
SCOPES = ["read"]
URL = "https://patd.example.com"


def wire() -> Wire:
    out = Wire()
    out.keep = False

    def answer(body: Body) -> Body:
        token = body["token"]
        if ord(token[20]) % 2 == 0:  # half of them are unknown, and half are of users that come once
            return {"active": False, "decision": "NOT_FOUND"}
        return out.active(token_id=token[4:15], user=f"user-{token[16:36]}")

    out.answer = answer
    return out


def best(run: list[float]) -> float:
    return min(run) * 1e6


def known(verify: Verifier, n: int) -> list[str]:
    out: list[str] = []
    while len(out) < n:
        token, _ = random_token()
        if verify.verify(token, scopes=SCOPES, client_ip="192.0.2.7").allowed:
            out.append(token)
    return out


def checks(verifier: Verifier, tokens: list[str]) -> float:
    begun = time.process_time()
    for i in range(CHECKS):
        if not verifier.verify(tokens[i % len(tokens)], scopes=SCOPES, client_ip="192.0.2.7").allowed:
            raise SystemExit("a token was refused")
    return (time.process_time() - begun) / CHECKS


def beside(verifier: Verifier, tokens: list[str], n: int) -> float:
    """Returns the time per check of n threads that check at once: one runs at a time."""
    threads = [threading.Thread(target=checks, args=(verifier, tokens)) for _ in range(n)]
    begun = time.process_time()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return (time.process_time() - begun) / (CHECKS * n)


async def in_a_loop(tokens: list[str], w: Wire) -> float:
    async with AsyncVerifier(URL, "t", transport=w, max_entries=MAX_ENTRIES, audience="reports") as v:
        await until_async(lambda: v.stats().watching)
        for token in tokens:
            await v.verify(token)
        out: list[float] = []
        for _ in range(3):
            begun = time.process_time()
            for i in range(CHECKS):
                if i % 1000 == 0:
                    await asyncio.sleep(0)  # events come
                await v.verify(tokens[i % len(tokens)], scopes=SCOPES, client_ip="192.0.2.7")
            out.append((time.process_time() - begun) / CHECKS)
        return best(out)


async def flood(w: Wire) -> dict[str, int]:
    """Checks so many different tokens, and measures what is held after a tenth of them and after all."""
    tracemalloc.start()
    async with AsyncVerifier(URL, "t", transport=w, max_entries=MAX_ENTRIES, timeout=300) as v:
        await until_async(lambda: v.stats().watching)
        at_tenth = 0
        for i in range(0, TOKENS, 500):
            if i * 10 >= TOKENS and not at_tenth:
                gc.collect()
                at_tenth = tracemalloc.get_traced_memory()[0]
            await asyncio.gather(*(v.verify(random_token()[0], client_ip="192.0.2.7") for _ in range(500)))
        gc.collect()
        at_end = tracemalloc.get_traced_memory()[0]
        return {"entries": v.stats().entries, "heap_at_tenth": at_tenth, "heap_at_end": at_end}


def flood_threads(w: Wire) -> dict[str, int]:
    """Does the same with 32 threads."""

    def ask(n: int) -> None:
        for _ in range(n):
            v.verify(random_token()[0], client_ip="192.0.2.7")

    with Verifier(URL, "t", transport=w, max_entries=MAX_ENTRIES, timeout=300) as v:
        until(lambda: v.stats().watching)
        out: list[int] = []
        with concurrent.futures.ThreadPoolExecutor(32) as pool:
            for part in (THREAD_TOKENS // 10, THREAD_TOKENS - THREAD_TOKENS // 10):
                list(pool.map(ask, [part // 32] * 32))
                gc.collect()
                out.append(tracemalloc.get_traced_memory()[0])
        return {"entries": v.stats().entries, "heap_at_tenth": out[0], "heap_at_end": out[1]}


def main() -> None:
    w = wire()
    with Verifier(URL, "t", transport=w, max_entries=MAX_ENTRIES, timeout=300) as verifier:
        until(lambda: verifier.stats().watching)
        tokens = known(verifier, 100)
        checks(verifier, tokens)
        asked = verifier.stats().asked
        one = best([checks(verifier, tokens) for _ in range(3)])
        two = best([beside(verifier, tokens, 2) for _ in range(3)])
        asked = verifier.stats().asked - asked
    loop = asyncio.run(in_a_loop(tokens, wire()))
    text = b"x" * 90
    begun = time.process_time()
    for _ in range(100_000):
        hashlib.sha256(text).digest()
    digest = (time.process_time() - begun) / 100_000 * 1e6
    held = asyncio.run(flood(wire()))
    threads = flood_threads(wire())
    print(
        json.dumps(
            {
                "check_us": one,
                "check_us_two_threads": two,
                "check_us_asyncio": loop,
                "digest_us": digest,
                "asked_from_memory": asked,
                "tokens": TOKENS,
                "max_entries": MAX_ENTRIES,
                **held,
                "threads": threads,
            }
        )
    )


main()
