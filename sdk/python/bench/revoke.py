"""
How long a token that is revoked still passes, from when another process asks patd to revoke it, and from when patd has
done so, while two threads (revoke.py sync) or ten tasks (revoke.py asyncio) check other tokens all the time. It needs a
patd: PATD_URL and PATD_TOKEN_FILE as `patd dev` prints them. Prints JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "src"))

from patd import AsyncVerifier, Decision, Verifier, token_file
from patd.manage import Manage

TIMES = int(os.environ.get("TIMES", "200"))
URL = os.environ["PATD_URL"]
TOKEN = token_file(os.environ["PATD_TOKEN_FILE"])


class Other:
    """Another process, which mints and revokes."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__, "other"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def _ask(self, line: str) -> list[str]:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(line + "\n")
        return self.process.stdout.readline().split()

    def mint(self) -> tuple[str, str]:
        """Returns a new secret, and its id."""
        secret, token_id = self._ask("mint")
        return secret, token_id

    def revoke(self, token_id: str) -> tuple[float, float]:
        """Revokes a token, and returns when that was asked for and done, by the monotonic clock."""
        begun, done = self._ask(token_id)
        return float(begun), float(done)

    @staticmethod
    def run() -> None:
        with Manage(URL, TOKEN) as patd:
            for line in sys.stdin:
                if line == "mint\n":
                    name = f"revoke {time.time_ns()}"
                    made = patd.create_token("demo", {"name": name, "scopes": ["reports.read"]})
                    print(made["secret"], made["token"]["token_id"], flush=True)
                else:
                    begun = time.monotonic()
                    patd.revoke_token("demo", line.strip())
                    print(begun, time.monotonic(), flush=True)

    def close(self) -> None:
        """Ends it."""
        assert self.process.stdin and self.process.stdout
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


def summary(seconds: list[list[float]], checks: int) -> str:
    out: dict[str, float] = {"times": len(seconds), "checks_meanwhile": checks}
    for name, column in (("from_request", 0), ("from_answer", 1)):
        some = sorted(one[column] * 1000 for one in seconds)
        for p in (50, 99, 100):
            out[f"p{p}_ms_{name}"] = round(some[min(len(some) - 1, len(some) * p // 100)], 1)
    return json.dumps(out)


def with_threads(other: Other) -> str:
    stop = threading.Event()
    checks = [0, 0]
    with Verifier(URL, TOKEN, report_every=1) as verifier:
        others = [other.mint()[0] for _ in range(20)]

        def load(i: int) -> None:
            while not stop.is_set():
                for known in others:
                    verifier.verify(known, scopes=["reports.read"])
                checks[i] += len(others)

        threads = [threading.Thread(target=load, args=(i,)) for i in range(2)]
        for thread in threads:
            thread.start()
        out: list[list[float]] = []
        try:
            for _ in range(TIMES):
                secret, token_id = other.mint()
                asked = -1
                while asked != verifier.stats().asked:  # until memory decides
                    asked = verifier.stats().asked
                    assert verifier.verify(secret).allowed
                at = other.revoke(token_id)
                while verifier.verify(secret).decision is not Decision.REVOKED:
                    time.sleep(0.0005)
                out.append([max(0.0, time.monotonic() - t) for t in at])
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        return summary(out, sum(checks))


async def with_tasks(other: Other) -> str:
    checks = 0
    async with AsyncVerifier(URL, TOKEN, report_every=1) as verifier:
        others = [other.mint()[0] for _ in range(20)]

        async def load() -> None:
            nonlocal checks
            while True:
                for known in others:
                    await verifier.verify(known, scopes=["reports.read"])
                checks += len(others)
                await asyncio.sleep(0)

        tasks = [asyncio.create_task(load()) for _ in range(10)]
        out: list[list[float]] = []
        try:
            for _ in range(TIMES):
                secret, token_id = await asyncio.to_thread(other.mint)
                asked = -1
                while asked != verifier.stats().asked:  # until memory decides
                    asked = verifier.stats().asked
                    assert (await verifier.verify(secret)).allowed
                at = await asyncio.to_thread(other.revoke, token_id)
                while (await verifier.verify(secret)).decision is not Decision.REVOKED:
                    await asyncio.sleep(0.0005)
                out.append([max(0.0, time.monotonic() - t) for t in at])
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return summary(out, checks)


if sys.argv[1] == "other":
    Other.run()
else:
    process = Other()
    print(with_threads(process) if sys.argv[1] == "sync" else asyncio.run(with_tasks(process)))
    process.close()
