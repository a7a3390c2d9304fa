"""The verifiers."""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import contextlib
import os
import threading
import weakref
from collections.abc import Sequence
from types import TracebackType
from typing import Self, Unpack

from .decision import Result
from .engine import Config, Engine, Options, Question, Stats
from .fault import Fault, closed
from .transport import TokenSource


class _Thread:
    """An engine, and the thread whose event loop runs it."""

    def __init__(self, config: Config) -> None:
        self.engine = Engine(config)
        self._loop = asyncio.new_event_loop()
        self._lock = threading.Lock()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="patd", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.call_soon(self.engine.start)
        try:
            self._loop.run_forever()
            rest = asyncio.all_tasks(self._loop)
            for task in rest:
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*rest, return_exceptions=True))
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
        finally:
            self._loop.close()

    def ask(self, q: Question, timeout: float | None) -> Result:
        """Asks patd, and waits."""
        with self._lock:
            if self._stopped:
                raise closed()
            future = asyncio.run_coroutine_threadsafe(self.engine.ask(q), self._loop)
        try:
            return future.result(timeout)
        except concurrent.futures.CancelledError:
            raise closed() from None
        except concurrent.futures.TimeoutError:
            raise Fault("timeout", "the check's time was over") from None
        finally:
            future.cancel()  # if an exception, as KeyboardInterrupt, ended the wait

    def close(self) -> None:
        """Ends all, and reports the last uses."""
        try:
            with self._lock:
                if self._stopped:
                    return
                future = asyncio.run_coroutine_threadsafe(self.engine.close(), self._loop)
            future.result()
        finally:
            with self._lock:
                if not self._stopped:
                    self._stopped = True
                    self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()


class Verifier:
    """
    Decides about tokens by asking patd, and from memory while it receives every change. One serves a whole program; all
    methods may be called by any thread. It does not wait for patd: until the first event of the watch, every check
    asks. After a fork, the child begins with an empty memory and connections of its own.

    ``url`` is the address of patd, such as ``https://patd.example.com:8080``. ``token`` is the service token of this
    program, or a function that returns it, as ``token_file`` makes one.
    """

    def __init__(self, url: str, token: TokenSource, **options: Unpack[Options]) -> None:
        self._config = Config(url=url, token=token, **options)
        self._lock = threading.Lock()
        self._thread: _Thread | None = _Thread(self._config)
        self._closed = False
        _all.add(self)

    def verify(
        self,
        token: str,
        *,
        scopes: Sequence[str] = (),
        audience: str | None = None,
        client_ip: str | None = None,
        timeout: float | None = None,
    ) -> Result:
        """
        Decides about a token, exactly as the client sent it. Text without the form of a token is not found without a
        request. An answer in memory without a change since decides at once. Anything else is asked; if that fails, so
        does the check, with a Fault, whatever was in memory before.

        All ``scopes`` must be in effect; none: an active token is enough. ``client_ip`` is the address that the token
        was presented from; a token that is bound to networks is refused without it. ``timeout`` ends the wait of this
        check, in seconds; a request that other checks wait for goes on.
        """
        thread = self._thread or self._restart()
        out = thread.engine.recall(token, scopes, audience, client_ip)
        return out if isinstance(out, Result) else thread.ask(out, timeout)

    def _restart(self) -> _Thread:
        """Begins anew in a process that was forked."""
        with self._lock:
            if self._closed:
                raise closed()
            if self._thread is None:
                self._thread = _Thread(self._config)
            return self._thread

    def stats(self) -> Stats:
        """Returns the counters, for the program's metrics."""
        return (self._thread or self._restart()).engine.stats()

    def close(self) -> None:
        """
        Ends all work in the background and reports the last uses, within 5 seconds. Checks that wait for an answer
        fail. A Fault means that the last uses were not reported, and nothing else. It is called when the program ends,
        if that was not done before.
        """
        with self._lock:
            self._closed = True
            thread = self._thread
        _all.discard(self)
        if thread is not None:
            thread.close()

    def _forked(self) -> None:
        # What the parent's loop holds is the parent's: to end it here would disturb it there.
        if self._thread is not None:
            _abandoned.append(self._thread)
        self._thread = None
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


_all: weakref.WeakSet[Verifier] = weakref.WeakSet()
_abandoned: list[_Thread] = []


def _after_fork() -> None:
    for verifier in list(_all):
        verifier._forked()


@atexit.register
def _close_all() -> None:
    for verifier in list(_all):
        with contextlib.suppress(Exception):
            verifier.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class AsyncVerifier:
    """
    A Verifier for asyncio, with the same arguments. It belongs to one event loop, and starts with ``start``,
    ``async with`` or the first check.
    """

    def __init__(self, url: str, token: TokenSource, **options: Unpack[Options]) -> None:
        self._config = Config(url=url, token=token, **options)
        self._engine: Engine | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    async def start(self) -> None:
        """Starts to watch. It does not wait for patd."""
        self._running()

    def _running(self) -> Engine:
        loop = asyncio.get_running_loop()
        if self._closed:
            raise closed()
        if self._engine is None or self._loop is not loop:
            if self._loop is not None and not self._loop.is_closed():
                raise RuntimeError("a verifier belongs to the event loop that it started in")
            self._engine, self._loop = Engine(self._config), loop
            self._engine.start()
        return self._engine

    async def verify(
        self,
        token: str,
        *,
        scopes: Sequence[str] = (),
        audience: str | None = None,
        client_ip: str | None = None,
    ) -> Result:
        """
        Decides about a token, as Verifier.verify does. A task that is cancelled does not cancel the request that other
        checks wait for.
        """
        engine = self._engine or self._running()
        out = engine.recall(token, scopes, audience, client_ip)
        return out if isinstance(out, Result) else await self._running().ask(out)

    def stats(self) -> Stats:
        """Returns the counters, for the program's metrics."""
        if self._engine is None:
            return Stats(0, 0, 0, 0, False, None)
        return self._engine.stats()

    async def close(self) -> None:
        """
        Ends all work in the background and reports the last uses, within 5 seconds. Checks that wait for an answer
        fail. A Fault means that the last uses were not reported, and nothing else.
        """
        self._closed = True
        if self._engine is not None:
            await self._engine.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
