"""Uses of tokens that passed from memory."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from threading import Lock
from typing import Any

from .fault import Fault

_PER_CALL = 1000
_MAX_SCOPES = 4
"""A token whose programs need more scopes than this, or longer ones, counts as used in any."""
_MAX_SCOPE = 128
_GRAIN = 0.1
"""A use within so many seconds of one in the same scopes is not noted."""


class Usage:
    """The uses of an answer since they were last reported."""

    __slots__ = ("token_id", "time", "ip", "scopes", "unscoped", "queued", "_last")

    def __init__(self, token_id: str) -> None:
        self.token_id = token_id
        self.time = 0.0
        """Of the last use, by the wall clock."""
        self.ip: str | None = None
        self.scopes: list[str] = []
        self.unscoped = False
        """Some uses named no scope, or there were too many."""
        self.queued = False
        """It waits to be reported."""
        self._last: Sequence[str] | None = None

    def is_noted(self, ip: str | None, scopes: Sequence[str], wall: float) -> bool:
        """Reports whether a use adds nothing to the one before."""
        return self.queued and scopes == self._last and ip == self.ip and 0 <= wall - self.time < _GRAIN

    def note(self, ip: str | None, scopes: Sequence[str], wall: float) -> None:
        """Notes a use."""
        self.time, self.ip = wall, ip
        if scopes != self._last:
            self.need(scopes)
            self._last = tuple(scopes) if len(scopes) <= _MAX_SCOPES else None

    def need(self, scopes: Sequence[str]) -> None:
        """Adds scopes that a use needed; none: it named none."""
        if not scopes:
            self.unscoped = True
        for s in scopes:
            if s in self.scopes:
                continue
            if len(self.scopes) >= _MAX_SCOPES or len(s) > _MAX_SCOPE:
                self.unscoped = True
            else:
                self.scopes.append(s)

    def take(self) -> Usage:
        """Returns what was noted, and begins anew."""
        out = Usage(self.token_id)
        out.time, out.ip, out.scopes, out.unscoped = self.time, self.ip, self.scopes, self.unscoped
        self.scopes, self.unscoped, self.queued, self._last = [], False, False, None
        return out

    def body(self) -> dict[str, Any]:
        """Returns it as it is reported."""
        out: dict[str, Any] = {"token_id": self.token_id, "time": _text_of(self.time)}
        if self.ip:
            out["client_ip"] = self.ip
        if self.scopes:
            out["scopes"] = self.scopes
        if self.unscoped:
            out["unscoped"] = True
        return out


def _text_of(wall: float) -> str:
    return datetime.fromtimestamp(wall, UTC).isoformat().replace("+00:00", "Z")


Send = Callable[[dict[str, Any]], Awaitable[object]]
"""Sends one report."""


class Uses:
    """Collects the uses of tokens that passed from memory, and reports them. Any thread may note one."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = Lock()
        self.dropped = 0
        self._queue: list[Usage] = []
        self._pending: dict[str, Usage] = {}  # could not be reported yet, by token id

    @property
    def is_filling(self) -> bool:
        """Whether the queue is half full, and should be reported."""
        return len(self._queue) * 2 >= self._limit

    def note(self, u: Usage, ip: str | None, scopes: Sequence[str], wall: float) -> None:
        """Notes a use."""
        with self._lock:
            if u.is_noted(ip, scopes, wall):
                return
            if not u.queued:
                if len(self._queue) >= self._limit:
                    self.dropped += 1
                    return
                u.queued = True
                self._queue.append(u)
            u.note(ip, scopes, wall)

    async def report(self, send: Send) -> None:
        """Reports all uses. Those that it cannot report stay for the next time. One report runs at a time."""
        self._gather()
        while self._pending:
            batch = list(itertools.islice(self._pending.values(), _PER_CALL))
            try:
                await send({"uses": [u.body() for u in batch]})
            except Fault as fault:
                if fault.kind != "invalid":
                    raise
                self.dropped += len(batch)  # patd will not take them another time either
            for u in batch:
                del self._pending[u.token_id]

    def _gather(self) -> None:
        """Merges the queue into the pending uses: of each token, one."""
        with self._lock:
            queue, self._queue = self._queue, []
            for used in queue:
                u = used.take()
                before = self._pending.get(u.token_id)
                if before is not None:
                    if before.scopes:
                        u.need(before.scopes)
                    u.unscoped |= before.unscoped
                    if before.time > u.time:
                        u.time, u.ip = before.time, before.ip
                elif len(self._pending) >= self._limit:
                    self.dropped += 1
                    continue
                self._pending[u.token_id] = u
