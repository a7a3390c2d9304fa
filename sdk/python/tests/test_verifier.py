"""What the verifiers promise beside the scenarios of sdk/conformance."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest
from patd_of_tests import Wire, until, until_async

from patd import AsyncVerifier, Decision, Fault, Verifier
from patd.form import random_token

URL = "https://patd.example.com"


@pytest.fixture
def wire() -> Wire:
    wire = Wire()
    wire.answer = lambda body: wire.active()
    return wire


@pytest.fixture
def verifier(wire: Wire) -> Iterator[Verifier]:
    with Verifier(URL, "t", transport=wire, report_every=0.05, timeout=5) as verifier:
        until(lambda: verifier.stats().watching)
        yield verifier


def asks(wire: Wire) -> list[str]:
    return [path for path, _ in wire.asked if path.startswith("/v1/introspect")]


def test_memory_decides_until_a_change(wire: Wire, verifier: Verifier) -> None:
    token, _ = random_token()
    for _ in range(3):
        assert verifier.verify(token, scopes=["read"]).allowed
    assert verifier.verify(token, scopes=["read", "write"]).missing == ("write",)
    assert len(asks(wire)) == 1
    wire.answer = lambda body: {"active": False, "decision": "REVOKED"}
    wire.change(token_ids=["15ODq7pq8Hy"])
    until(lambda: verifier.verify(token).decision is Decision.REVOKED)


def test_uses_of_memory_are_reported_and_refusals_are_not(wire: Wire, verifier: Verifier) -> None:
    token, _ = random_token()
    verifier.verify(token, scopes=["read"])
    verifier.verify(token, scopes=["read"], client_ip="192.0.2.7")
    verifier.verify(token, scopes=["write"])
    until(lambda: any(path == "/v1/uses:report" for path, _ in wire.asked))
    (use,) = next(body["uses"] for path, body in wire.asked if path == "/v1/uses:report")
    assert use["token_id"] == "15ODq7pq8Hy" and use["scopes"] == ["read"] and use["client_ip"] == "192.0.2.7"
    at = datetime.fromisoformat(use["time"])
    assert abs(datetime.now(UTC) - at) < timedelta(minutes=5)


def test_one_text_is_no_list_of_scopes(verifier: Verifier) -> None:
    with pytest.raises(TypeError):
        verifier.verify(random_token()[0], scopes="read")


def test_a_check_that_gives_up_leaves_the_request_to_the_others(wire: Wire, verifier: Verifier) -> None:
    token, _ = random_token()
    wire.hold = asyncio.Event()
    hold = wire.hold
    with concurrent.futures.ThreadPoolExecutor() as pool:
        patient = pool.submit(verifier.verify, token)
        until(lambda: len(asks(wire)) == 1)
        with pytest.raises(Fault) as gave_up:
            verifier.verify(token, timeout=0.01)
        assert gave_up.value.kind == "timeout"
        thread = verifier._thread
        assert thread is not None
        thread._loop.call_soon_threadsafe(hold.set)
        assert patient.result(20).allowed
    assert len(asks(wire)) == 1


@pytest.mark.parametrize("status", [200, 503])
def test_a_burst_is_asked_about_together_and_one_by_one_if_that_fails(wire: Wire, status: int) -> None:
    wire.answer = lambda body: {"active": False, "decision": "NOT_FOUND"}
    wire.batch_status = status

    async def burst() -> None:
        async with AsyncVerifier(URL, "t", transport=wire) as v:
            await until_async(lambda: v.stats().watching)
            out = await asyncio.gather(*(v.verify(random_token()[0]) for _ in range(300)))
            assert all(r.decision is Decision.NOT_FOUND for r in out)
            assert v.stats().asked == 300

    asyncio.run(burst())
    together, alone = asks(wire).count("/v1/introspect:batch"), asks(wire).count("/v1/introspect")
    assert together == 3 and alone == (16 if status == 200 else 300)


def test_closing_fails_checks_that_wait_and_later_ones(wire: Wire) -> None:
    verifier = Verifier(URL, "t", transport=wire)
    until(lambda: verifier.stats().watching)
    token, _ = random_token()
    wire.hold = asyncio.Event()
    with concurrent.futures.ThreadPoolExecutor() as pool:
        waiting = [pool.submit(verifier.verify, token) for _ in range(4)]
        until(lambda: len(asks(wire)) == 1)
        verifier.close()
        for one in waiting:
            with pytest.raises(Fault) as fault:
                one.result(20)
            assert fault.value.kind == "closed"
    with pytest.raises(Fault) as fault:
        verifier.verify(token)
    assert fault.value.kind == "closed"
    verifier.close()
    assert not any(t.name == "patd" and t.is_alive() for t in threading.enumerate() if t is not threading.main_thread())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_child_begins_anew(wire: Wire, verifier: Verifier) -> None:
    token, _ = random_token()
    assert verifier.verify(token).allowed
    pid = os.fork()
    if pid == 0:  # the child
        status = 1
        try:
            until(lambda: verifier.stats().watching)
            before = len(asks(wire))
            if verifier.verify(token).allowed and len(asks(wire)) == before + 1:
                verifier.close()
                status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    wire.answer = lambda body: {"active": False, "decision": "REVOKED"}
    wire.change(token_ids=["15ODq7pq8Hy"])  # the parent goes on
    until(lambda: verifier.verify(token).decision is Decision.REVOKED)


def test_a_silent_watch_is_left_for_another(wire: Wire) -> None:
    async def main() -> None:
        async with AsyncVerifier(URL, "t", transport=wire) as v:
            await until_async(lambda: v.stats().watching)
            wire.silent = True
            await until_async(lambda: not v.stats().watching)
            wire.silent = False
            await until_async(lambda: v.stats().watching)
        assert len(wire.watches) >= 2
        assert str(wire.watches[-1].url).endswith("?after=1&history=h")

    asyncio.run(main())


def test_what_patd_asks_for_is_acknowledged_and_nothing_else(wire: Wire, verifier: Verifier) -> None:
    wire.change(users=["bob"])
    wire.change(users=["bob"], acknowledge=True)
    sequence = wire.sequence
    wire.change(users=["bob"])
    until(lambda: len(wire.acknowledged) > 0)
    verifier.close()
    assert wire.acknowledged == [{"watch_id": "watch-1", "sequence": sequence}]


def test_acknowledgements_go_one_at_a_time_and_one_that_fails_disturbs_nothing(wire: Wire) -> None:
    async def asked_to(so: Callable[[], bool]) -> None:
        """Changes something until something is so: a watch that was silent, on a busy machine, is left for another."""
        async with asyncio.timeout(20):
            while not so():
                wire.change(users=["bob"], acknowledge=True)
                await asyncio.sleep(0.1)

    async def main() -> None:
        wire.acknowledging = 0
        async with AsyncVerifier(URL, "t", transport=wire) as v:
            await until_async(lambda: v.stats().watching)
            token, _ = random_token()
            assert (await v.verify(token)).allowed
            await asked_to(lambda: len(wire.acknowledged) > 0)
            for _ in range(3):
                wire.change(users=["bob"], acknowledge=True)
            wire.answer = lambda body: {"active": False, "decision": "REVOKED"}
            wire.change(token_ids=["15ODq7pq8Hy"])
            async with asyncio.timeout(20):
                while (await v.verify(token)).allowed:
                    await asyncio.sleep(0.005)
            assert len(wire.acknowledged) == 1
            wire.acknowledging = 500
            await asked_to(lambda: len(wire.acknowledged) > 1)
            await asked_to(lambda: len(wire.acknowledged) > 2 and v.stats().watching)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


@pytest.mark.parametrize("kind", ["sync", "asyncio"])
def test_closing_ends_an_acknowledgement_that_hangs(wire: Wire, kind: str) -> None:
    wire.acknowledging = 0
    if kind == "sync":
        with Verifier(URL, "t", transport=wire) as verifier:
            until(lambda: verifier.stats().watching)
            wire.change(users=["bob"], acknowledge=True)
            until(lambda: len(wire.acknowledged) == 1)
            wire.change(users=["bob"], acknowledge=True)
    else:

        async def main() -> None:
            async with AsyncVerifier(URL, "t", transport=wire) as v:
                await until_async(lambda: v.stats().watching)
                wire.change(users=["bob"], acknowledge=True)
                await until_async(lambda: len(wire.acknowledged) == 1)
                wire.change(users=["bob"], acknowledge=True)

        asyncio.run(main())
    assert wire.ended == 1 and len(wire.acknowledged) == 1


def test_a_cancelled_check_leaves_the_loop_clean(wire: Wire) -> None:
    async def main() -> None:
        wire.hold = asyncio.Event()
        async with AsyncVerifier(URL, "t", transport=wire) as v:
            token, _ = random_token()
            first = asyncio.create_task(v.verify(token))
            await until_async(lambda: len(asks(wire)) == 1)
            second = asyncio.create_task(v.verify(token))
            await asyncio.sleep(0)
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            wire.hold.set()
            assert (await second).allowed
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


def test_one_verifier_serves_a_loop_after_another(wire: Wire) -> None:
    v = AsyncVerifier(URL, "t", transport=wire)
    token, _ = random_token()

    async def once() -> None:
        assert (await v.verify(token)).allowed

    asyncio.run(once())
    time.sleep(0)
    asyncio.run(once())


@pytest.mark.parametrize("url", ["http://patd.example.com", "https://a:b@patd.example.com", "ftp://x", "patd"])
def test_addresses_that_would_show_tokens_are_refused(url: str) -> None:
    with pytest.raises(ValueError):
        Verifier(url, "t")


def test_the_service_token_is_in_no_error() -> None:
    with pytest.raises(ValueError) as err:
        Verifier(URL, "pats_hidden\nand a line")
    assert "hidden" not in str(err.value)
