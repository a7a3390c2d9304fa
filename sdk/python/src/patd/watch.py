"""Following the change feed."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import quote

import httpx

from .acknowledge import Acknowledger
from .answer import read_position, read_time, record, texts
from .events import EventReader, ServerEvent
from .fault import Fault, Missing, nonsense
from .memory import SILENCE, Memory, News
from .pace import Pace
from .transport import Transport, parse

# All in seconds.
_TURN_AFTER = 250  # events, tokens and users; then other work of the program has its turn
_FIRST_PAUSE = 0.05
_LONG_PAUSE = 2.0
_HOPELESS_PAUSE = 15.0  # for errors that only a change of the server or of its rights resolves

log = logging.getLogger("patd")


@dataclass(frozen=True, slots=True)
class _Event:
    """What an event says."""

    news: News
    history: str
    elapsed: float
    """In seconds; 0: it does not say."""
    more: bool
    """Further changes are known, and follow."""
    watch_id: str
    """Empty, but in the first event of a watch."""
    acknowledge: bool
    """patd asks for an acknowledgement."""


class Watcher:
    """Follows the change feed and updates memory."""

    def __init__(self, transport: Transport, memory: Memory, acks: Acknowledger, mono: Callable[[], float]) -> None:
        self._transport = transport
        self._memory = memory
        self._acks = acks
        self._mono = mono
        self._sequence = 0  # where to resume: the last event's position and history
        self._history = ""
        self._watch_id = ""  # of the first event; empty: an older patd
        self.token_expire_time: datetime | None = None
        """When the service token expires, as of the latest watch."""

    async def run(self) -> None:
        """Watches until it is cancelled."""
        tries = 0
        while True:
            began = self._mono()
            end: Exception | None = None
            try:
                await self._watch()
            except (Fault, httpx.HTTPError) as err:
                end = err
            except Exception as err:  # what is not foreseen must not end the watch
                end = err
                log.exception("the watch of patd failed")
            if end is None or self._mono() - began > _LONG_PAUSE:
                tries = 0
            if end is not None and tries == 0:
                log.warning("the watch of patd broke; watching again: %s", _text_of(end))
            pause = min(_LONG_PAUSE, _FIRST_PAUSE * 2 ** min(tries, 10))
            if isinstance(end, Missing) or (isinstance(end, Fault) and end.kind == "forbidden"):
                pause = _HOPELESS_PAUSE
            tries += 1
            await asyncio.sleep(pause * (0.5 + random.random()))

    async def _watch(self) -> None:
        """Follows one stream until it breaks or falls silent. Returns if the server renews its connection."""
        start = self._sequence
        path = "/v1/invalidations"
        if start != 0:
            path += f"?after={start}&history={quote(self._history, safe='')}"
        loop = asyncio.get_running_loop()
        pace = Pace(self._memory.now())
        reader = EventReader()
        work = 0
        try:
            # A silent stream is abandoned: its pipe may hold back old events.
            async with asyncio.timeout(SILENCE) as alarm, self._transport.stream(path) as response:
                self.token_expire_time = _expiry(response)
                async for chunk in response.aiter_raw():
                    for event in reader.feed(chunk):
                        if alarm.expired():
                            raise TimeoutError
                        alarm.reschedule(loop.time() + SILENCE)
                        if event.type == "end":
                            return _end(event)
                        work += self._take(event, pace, start)
                        if work >= _TURN_AFTER:
                            work = 0
                            await asyncio.sleep(0)  # a burst would hold up the event loop
        except TimeoutError:
            raise Fault("unavailable", "the watch was silent") from None
        except Fault as fault:
            if fault.kind == "invalid":
                self._sequence = 0  # the server does not know the position
            raise
        raise Fault("unavailable", "the watch ended")

    def _take(self, event: ServerEvent, pace: Pace, start: int) -> int:
        """Applies an event, and opens memory if it may be used from now on. Returns how much work that was."""
        e = _read_event(event)
        news, first = e.news, pace.is_first
        if first:
            self._watch_id = e.watch_id
        if first and start == 0:
            news = News(news.sequence, True, news.token_ids, news.users)
        if first and not news.start_over:
            self._memory.resumed(start)
        self._memory.apply(news)
        if news.start_over:
            asyncio.get_running_loop().call_soon(self._sweep)
        self._sequence, self._history = news.sequence, e.history
        if e.acknowledge and self._watch_id:
            self._acks.applied(self._watch_id, news.sequence)
        quiet = news.start_over or not (news.token_ids or news.users)
        known = pace.event(self._memory.now(), e.elapsed, quiet)
        if pace.behind > SILENCE / 2:
            raise Fault("unavailable", "the watch lags")
        if known is not None and not e.more:
            self._memory.known(known)
        return 1 + len(news.token_ids) + len(news.users)

    def _sweep(self) -> None:
        """Frees what was forgotten, a part at each turn of the loop."""
        if self._memory.sweep():
            asyncio.get_running_loop().call_soon(self._sweep)


def _end(event: ServerEvent) -> None:
    """Returns if the server renews its connection, or raises what it said at the end of a stream."""
    reason = ""
    try:
        details = record(record(parse(event.data.encode()), "an end").get("error"), "an end").get("details")
        for detail in details if isinstance(details, list) else []:
            reason = reason or str(record(detail, "a detail").get("reason") or "")
    except Fault:
        pass  # an end is an end
    if reason != "CONNECTION_AGED":
        raise Fault("unavailable", f"patd ended the watch: {reason or 'no reason'}")


def _read_event(event: ServerEvent) -> _Event:
    r = record(parse(event.data.encode()), "an event")
    history, elapsed, watch_id = r.get("history"), r.get("elapsed_ms"), r.get("watch_id")
    if not isinstance(history, str):
        raise nonsense("an event of patd has no history")
    start_over = r.get("start_over") is True or event.type == "start-over"
    return _Event(
        news=News(read_position(r.get("sequence")), start_over, texts(r.get("token_ids")), texts(r.get("users"))),
        history=history,
        elapsed=elapsed / 1000 if isinstance(elapsed, (int, float)) else 0.0,
        more=r.get("more") is True,
        watch_id=watch_id if isinstance(watch_id, str) else "",
        acknowledge=r.get("acknowledge") is True,
    )


def _expiry(response: httpx.Response) -> datetime | None:
    try:
        return read_time(response.headers.get("patd-token-expires-at"))
    except Fault:
        return None


def _text_of(err: Exception) -> str:
    return str(err) if isinstance(err, Fault) else type(err).__name__
