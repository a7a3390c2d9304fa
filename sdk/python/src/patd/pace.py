"""How current the events of a watch are."""

from __future__ import annotations

from typing import NamedTuple

_HEARTBEAT = 1.25  # the longest time between two events, with some room for a late timer
_SETTLING = 1.0  # how long after a watch was resumed its events may still be missed ones


class Instant(NamedTuple):
    """A time by the monotonic and by the wall clock, in seconds. Either may jump or stand still without the other."""

    mono: float
    wall: float


class Pace:
    """Judges how current the events of one stream are."""

    def __init__(self, asked: Instant) -> None:
        self.behind = 0.0
        """How old the latest event may be, but for the first, in seconds."""
        self._asked = asked
        self._first: float | None = None
        self._last = 0.0
        self._settled = False

    @property
    def is_first(self) -> bool:
        """Whether no event has come yet."""
        return self._first is None

    def event(self, now: Instant, elapsed: float, quiet: bool) -> Instant | None:
        """
        Records an event that came now, and that patd made when so much of the stream had elapsed; 0: it does not say.
        quiet: it has no news, or starts over. Returns the time up to which every change is known; None: the watch has
        not caught up yet.

        The stream began after it was asked for. A resumed watch has caught up when an event has no news, or when all
        missed changes must have arrived.
        """
        asked = self._asked
        if self._first is None:
            self._first = self._last = now.mono
            self._settled = quiet
            return asked if quiet else None
        self._settled = self._settled or quiet or now.mono - self._first >= _SETTLING
        if elapsed > 0:
            self.behind = max(0.0, now.mono - asked.mono - elapsed, now.wall - asked.wall - elapsed)
            known = Instant(min(now.mono, asked.mono + elapsed), min(now.wall, asked.wall + elapsed))
        else:
            # A patd that does not say what has elapsed sends events once a second: one that comes later was held up.
            self.behind = max(0.0, self.behind + now.mono - self._last - _HEARTBEAT)
            known = Instant(now.mono - self.behind, now.wall - self.behind)
        self._last = now.mono
        return known if self._settled else None
