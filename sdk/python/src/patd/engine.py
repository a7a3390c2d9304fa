"""What both verifiers are made of."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import ssl
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypedDict

import httpx

from .acknowledge import Acknowledger
from .address import Address, read_address
from .answer import read_answer
from .asker import Asker
from .decision import Decision, Result
from .entry import Entry
from .fault import Fault, closed
from .form import MAX_TOKEN, is_plausible
from .keys import Digester
from .memory import Memory
from .transport import TokenSource, Transport
from .uses import Uses
from .watch import Watcher

_CONNECTIONS = 128  # for requests, at most
_CLOSING_REPORT = 5.0  # bounds the last report of uses, in seconds
_USES_SHARE = 8  # the part of the bytes that uses may take
_USE_BYTES = 2 << 10

log = logging.getLogger("patd")


class Options(TypedDict, total=False):
    """Configures a verifier. Times are in seconds."""

    audience: str
    """The API of the program, for a call that names none. Empty, the default: audiences are not checked."""
    max_entries: int
    """How many answers are kept. 100 000."""
    max_bytes: int
    """Bounds the bytes of memory for answers, by an estimate from above. 64 MiB."""
    max_age: float
    """How long an answer is used at most. A minute."""
    max_in_flight: int
    """How many requests may be under way at a time; further ones wait. 512."""
    timeout: float
    """Bounds one request. 5 seconds."""
    report_every: float
    """How often uses that were decided from memory are reported. 10 seconds. 0: never, not even by close."""
    allow_plain_http: bool
    """Allows plain http to other machines, which shows every token to the network in between."""
    ssl_context: ssl.SSLContext | None
    """For a certificate of a private authority."""
    transport: httpx.AsyncBaseTransport | None
    """In place of httpx's own, for tests."""
    now: Callable[[], float]
    """The wall clock, in seconds. time.time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What a verifier was configured with."""

    url: str
    token: TokenSource
    audience: str = ""
    max_entries: int = 100_000
    max_bytes: int = 64 << 20
    max_age: float = 60.0
    max_in_flight: int = 512
    timeout: float = 5.0
    report_every: float = 10.0
    allow_plain_http: bool = False
    ssl_context: ssl.SSLContext | None = None
    transport: httpx.AsyncBaseTransport | None = None
    now: Callable[[], float] = time.time

    def __post_init__(self) -> None:
        for name in ("max_entries", "max_bytes", "max_age", "max_in_flight", "timeout"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is more than 0")


@dataclass(frozen=True, slots=True)
class Stats:
    """The counters of a verifier."""

    entries: int
    """How many answers are kept."""
    hits: int
    """How many checks were decided from memory."""
    asked: int
    """How many questions about tokens were sent to patd."""
    dropped_uses: int
    """How many uses will not be reported, for lack of room."""
    watching: bool
    """Whether memory may be used at this moment."""
    service_token_expire_time: datetime | None
    """When the service token of this program expires; None: never, or no watch has begun yet."""


@dataclass(frozen=True, slots=True)
class Question:
    """A check that memory does not decide."""

    everywhere: bytes
    here: bytes
    token: str
    scopes: Sequence[str]
    audience: str
    address: Address | None


@dataclass(slots=True)
class _Reply:
    """What a request brought."""

    entry: Entry
    outdated: bool
    """It is known to be from before a change."""
    once: bool
    """It is for the check that asked, and for no other."""


@dataclass(slots=True)
class _Flight:
    """A request under way."""

    begun: int
    """Its place in the order of all checks and requests."""
    reply: asyncio.Task[_Reply]


@dataclass(slots=True)
class Engine:
    """
    Decides about tokens by asking patd, and from memory while it receives every change. recall, note and stats may be
    called by any thread; the rest runs in one event loop.
    """

    config: Config
    memory: Memory = field(init=False)
    uses: Uses = field(init=False)
    digests: Digester = field(default_factory=Digester)
    asked: int = 0
    closed: bool = False
    _order: int = 0
    _flights: dict[bytes, _Flight] = field(default_factory=dict)
    _transport: Transport = field(init=False)
    _asker: Asker = field(init=False)
    _acks: Acknowledger = field(init=False)
    _watcher: Watcher = field(init=False)
    _slots: asyncio.Semaphore = field(init=False)
    _tasks: set[asyncio.Task[Any]] = field(default_factory=set)
    _reporting: asyncio.Lock = field(default_factory=asyncio.Lock)
    _closing: asyncio.Future[None] | None = None

    def __post_init__(self) -> None:
        c = self.config
        self.digests.key("", c.audience)  # it must be an audience
        self.memory = Memory(c.max_entries, c.max_bytes - c.max_bytes // _USES_SHARE, time.monotonic, c.now)
        self.uses = Uses(max(1, min(c.max_entries, c.max_bytes // _USES_SHARE // _USE_BYTES)))
        self._slots = asyncio.Semaphore(c.max_in_flight)
        self._transport = Transport(
            c.url,
            c.token,
            allow_plain_http=c.allow_plain_http,
            ssl_context=c.ssl_context,
            transport=c.transport,
            connections=min(c.max_in_flight, _CONNECTIONS),
        )
        self._asker = Asker(self._transport, c.timeout, self._spawn)
        self._acks = Acknowledger(self._transport)
        self._watcher = Watcher(self._transport, self.memory, self._acks, time.monotonic)

    # Any thread.

    def recall(
        self, token: str, scopes: Sequence[str], audience: str | None, client_ip: str | None
    ) -> Result | Question:
        """Decides without a request, if that is possible."""
        if self.closed:
            raise closed()
        if isinstance(scopes, (str, bytes)):  # its characters would be taken for scopes
            raise TypeError("scopes is a list of texts, not one text")
        address = read_address(client_ip) if client_ip else None
        audience = audience or self.config.audience
        if len(token) > MAX_TOKEN:
            return Result(Decision.NOT_FOUND)
        everywhere = self.digests.key(token, audience)
        if everywhere is None:
            return Result(Decision.NOT_FOUND)
        entry = self.memory.recall(everywhere)
        if entry is not None:
            return self._let(entry, scopes, address)
        here = self.digests.at(everywhere, address)
        entry = self.memory.recall(here)
        if entry is not None:
            return self._let(entry, scopes, address)
        if not is_plausible(token):
            return Result(Decision.NOT_FOUND)
        return Question(everywhere, here, token, scopes, audience, address)

    def _let(self, entry: Entry, scopes: Sequence[str], address: Address | None) -> Result:
        """Decides from memory, and notes a use if the token passes."""
        out = entry.result(scopes)
        if entry.usage is not None and out.decision is Decision.ALLOW and self.config.report_every > 0:
            self.uses.note(entry.usage, address.text if address else None, scopes, self.config.now())
        return out

    def stats(self) -> Stats:
        """Returns the counters."""
        entries, hits = self.memory.counts()
        watching = not self.closed and self.memory.is_open()
        return Stats(entries, hits, self.asked, self.uses.dropped, watching, self._watcher.token_expire_time)

    # The event loop.

    def start(self) -> None:
        """Starts what runs in the background."""
        self._spawn(self._watcher.run())
        self._spawn(self._acks.run())
        if self.config.report_every > 0:
            self._spawn(self._report_always())

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        # What belongs to the request at hand, as a trace, is none of the background's.
        task = asyncio.get_running_loop().create_task(work, context=contextvars.Context())
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # all that wait for it may have given up

    async def ask(self, q: Question) -> Result:
        """
        Asks patd, or waits for the answer to another check's request. An answer counts if it was asked for after this
        check began, or if memory may use it; otherwise the next one does. So a check never rests on an answer from
        before it, unless the watch confirms it.
        """
        self._order += 1
        began = self._order
        again = True
        while True:
            if self.closed:
                raise closed()
            flight, mine = self._flights.get(q.here), False
            if flight is None:
                await self._take_slot()
                flight = self._flights.get(q.here)
                if flight is None:
                    mine = True
                    self._order += 1
                    flight = _Flight(self._order, self._spawn(self._fly(q)))
                    self._flights[q.here] = flight
                else:
                    self._slots.release()
            try:
                reply = await asyncio.shield(flight.reply)
            except asyncio.CancelledError:
                if flight.reply.cancelled():
                    raise closed() from None
                raise
            if self.closed:
                raise closed()
            if reply.outdated and again:
                again = False  # once: a replica that lags behind would make this a loop
                continue
            if mine:
                return reply.entry.result(q.scopes)  # patd has counted it
            if reply.once:
                continue  # patd is to be asked about this use: it is the first of a new secret
            if flight.begun < began and not self.memory.usable(reply.entry):
                continue
            return self._let(reply.entry, q.scopes, q.address)

    async def _take_slot(self) -> None:
        if self._slots.locked():
            try:
                async with asyncio.timeout(self.config.timeout):
                    await self._slots.acquire()
            except TimeoutError:
                raise Fault("unavailable", "too many checks are waiting for patd") from None
        else:
            await self._slots.acquire()
        if self.closed:
            self._slots.release()
            raise closed()

    async def _fly(self, q: Question) -> _Reply:
        """Sends one request on behalf of all waiting checks, so that it does not end when one of them gives up."""
        try:
            return await self._request(q)
        except Fault:
            raise
        except Exception as err:
            log.exception("a request to patd failed")
            raise Fault("unavailable", f"ask patd: {type(err).__name__}") from None
        finally:
            self._slots.release()
            self._flights.pop(q.here, None)

    async def _request(self, q: Question) -> _Reply:
        sent = time.monotonic()
        self.asked += 1
        epoch = self.memory.epoch
        request: dict[str, Any] = {"token": q.token}
        if q.audience:
            request["audience"] = q.audience
        if q.scopes:
            # The required scopes go along so that patd counts the use if, and only if, the token passes.
            request["required_scopes"] = list(q.scopes)
        if q.address:
            request["client_ip"] = q.address.text
        body = await self._asker.ask(request)
        answer = read_answer(body, sent, self.config.max_age)
        answer.entry.key = q.everywhere if answer.everywhere else q.here
        outdated = self.memory.keep(answer.entry, epoch, answer.sequence)
        if not outdated:
            self.memory.replaced((q.everywhere, q.here), answer.entry)
        return _Reply(answer.entry, outdated, answer.entry.token is not None and answer.sequence == 0)

    async def _report_always(self) -> None:
        while True:
            # A queue that fills is reported early; that need not be exact.
            end = time.monotonic() + self.config.report_every
            while time.monotonic() < end and not self.uses.is_filling:
                await asyncio.sleep(max(0.01, min(1.0, end - time.monotonic())))
            try:
                await self._report(self.config.timeout)
            except Fault as fault:  # they are reported next time
                log.debug("uses could not be reported: %s", fault)
                await asyncio.sleep(1)
            except Exception:
                log.exception("uses could not be reported")
                await asyncio.sleep(1)

    async def _report(self, timeout: float) -> None:
        until = time.monotonic() + timeout
        async with self._reporting:
            await self.uses.report(
                lambda body: self._transport.post("/v1/uses:report", body, max(0.001, until - time.monotonic()))
            )

    async def close(self) -> None:
        """
        Ends all work in the background and reports the last uses, within 5 seconds. Checks that wait for an answer
        fail. A Fault means that the last uses were not reported, and nothing else. Later calls return when the first is
        done.
        """
        if self._closing is not None:
            await asyncio.shield(self._closing)
            return
        self._closing = asyncio.get_running_loop().create_future()
        self.closed = True
        try:
            self.memory.distrust()
            tasks = list(self._tasks)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if self.config.report_every > 0:
                await self._report(_CLOSING_REPORT)
        finally:
            self._closing.set_result(None)
            await self._transport.close()
