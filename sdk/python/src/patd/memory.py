"""The memory of answers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Lock

from .changes import Changes
from .entry import Entry, Owner
from .pace import Instant
from .table import Table

SILENCE = 3.0
"""The greatest age of the watch's last event while memory is used, in seconds."""
_SWEEP = 500
"""How many entries of those that were forgotten are freed at a time: to free all at once takes 0.1 s for 100 000."""
_REFUSAL_SHARE = 8
"""The refusals' part of the entries and bytes, in a table of their own: garbage evicts only garbage."""


@dataclass(frozen=True, slots=True)
class News:
    """What the watch sends."""

    sequence: int
    start_over: bool
    token_ids: Sequence[str]
    users: Sequence[str]


Dropped = dict[str, Owner] | dict[bytes, Entry] | list[Entry]
"""What held entries that were forgotten, or their owners."""


class Memory:
    """
    The memory of answers. It is used only while the watch is alive, and for answers without a change since. All of its
    methods may be called by several threads.

    An answer that was made before a change may arrive after the news of it. Positions in the change feed decide: an
    answer is kept only if it is at least as new as every change received of its token and its user.
    """

    def __init__(self, max_entries: int, max_bytes: int, mono: Callable[[], float], wall: Callable[[], float]) -> None:
        self._mono = mono
        self._wall = wall
        self._lock = Lock()
        entries, size = max_entries // _REFUSAL_SHARE, max_bytes // _REFUSAL_SHARE
        self._answers = Table(max_entries - entries, max_bytes - size, self._disown)
        self._refusals = Table(entries, size, lambda e: None)
        self.epoch = 0
        """Counts the events that drop answers under way. An answer that was asked for in an earlier one is not kept."""
        self._changes = Changes()
        self._by_token: dict[str, Owner] = {}
        self._by_user: dict[str, Owner] = {}
        self._known_mono = -math.inf
        self._known_wall = -math.inf
        self._forgotten: list[Dropped] = []

    def distrust(self) -> None:
        """Closes memory until the next call of known."""
        with self._lock:
            self._known_mono = -math.inf

    def now(self) -> Instant:
        """Returns the time by both clocks."""
        return Instant(self._mono(), self._wall())

    def known(self, at: Instant) -> None:
        """Opens memory: every change up to that time is known."""
        with self._lock:
            self._known_mono, self._known_wall = at

    def is_open(self) -> bool:
        """
        Reports whether memory may be used. Both clocks must agree: the monotonic one may stand still while a machine
        sleeps, the other may be set back.
        """
        with self._lock:
            return self._is_open(self._mono(), self._wall())

    def _is_open(self, mono: float, wall: float) -> bool:
        return mono - self._known_mono < SILENCE and wall - self._known_wall < SILENCE

    def recall(self, key: bytes) -> Entry | None:
        """Returns an entry that may be used, or None."""
        with self._lock:
            mono, wall = self._mono(), self._wall()
            if not (mono - self._known_mono < SILENCE and wall - self._known_wall < SILENCE):
                return None
            for table in (self._answers, self._refusals):
                e = table.get(key)
                if e is None:
                    continue
                if e.is_sound(mono, wall):
                    table.hits += 1
                    e.recent = True
                    return e
                if mono >= e.until or e.is_void:  # a wall clock that is ahead may be set right again
                    table.remove(e)
            return None

    def usable(self, e: Entry) -> bool:
        """Reports whether the entry that a request brought may serve other checks than the one that asked."""
        with self._lock:
            mono, wall = self._mono(), self._wall()
            is_current = e.epoch == self.epoch and e.is_shared
            return is_current and self._is_open(mono, wall) and e.is_sound(mono, wall)

    def keep(self, e: Entry, epoch: int, sequence: int) -> bool:
        """
        Keeps an answer, unless a received change may be newer. Also reports whether a newer change of this very token
        or user was received, or all was forgotten meanwhile, which means that the answer is outdated.
        """
        with self._lock:
            if epoch != self.epoch:
                return True
            e.epoch = epoch
            token = e.token
            if token is None:
                if e.decision.is_final:
                    self._refusals.put(e)
                return False
            if sequence == 0:
                return False  # it is for this check only
            if self._changes.after(sequence, token.id, token.user):
                return True
            if token.stale or sequence < self._changes.floor:
                return False
            e.sequence = sequence
            e.of_token = _own(self._by_token, token.id)
            e.of_user = _own(self._by_user, token.user)
            e.of_token.newest = max(e.of_token.newest, sequence)
            if not self._answers.put(e):
                self._disown(e)
                e.of_token = e.of_user = None
            return False

    def replaced(self, keys: tuple[bytes, bytes], by: Entry) -> None:
        """
        Drops what was kept for the same request before an answer, under either key. Otherwise a check could pass by
        what memory holds, after patd refused another one, until the watch tells why.
        """
        if not by.is_shared:
            return  # it was not kept, for a reason of its own
        with self._lock:
            for key in keys:
                old = self._answers.get(key)
                if old is not None and old is not by:
                    self._answers.remove(old)

    def apply(self, news: News) -> None:
        """Applies an event. From then on, no answer from before its changes is used."""
        with self._lock:
            if news.start_over:
                self._forget()
                self._changes = Changes(news.sequence)  # what changed before is not known
            for kind, names, by in (("t", news.token_ids, self._by_token), ("u", news.users, self._by_user)):
                for name in names:
                    self._changes.note(kind, name, news.sequence)
                    owner = by.get(name)
                    if owner is not None:
                        owner.changed = max(owner.changed, news.sequence)

    def resumed(self, at: int) -> None:
        """
        Drops the answers that are newer than the position at which a watch was resumed, and those under way. They rest
        on changes that this watch never received. A server that was restored does not have these changes, and nothing
        would ever make the answers unsound.
        """
        with self._lock:
            self.epoch += 1
            for owner in [o for o in self._by_token.values() if o.newest > at]:
                owner.changed = math.inf
                del self._by_token[owner.name]

    def _forget(self) -> None:
        """Drops all, whatever its size, at once: no entry of an earlier epoch is used. sweep frees them."""
        self.epoch += 1
        self._forgotten += [self._by_token, self._by_user, *self._answers.clear(), *self._refusals.clear()]
        self._by_token, self._by_user = {}, {}

    def sweep(self) -> bool:
        """Frees some of what was forgotten. Reports whether there is more."""
        with self._lock:
            some, self._forgotten = self._forgotten, []
        for dropped in some:
            if isinstance(dropped, list):
                del dropped[-_SWEEP:]
            else:
                for _ in range(min(_SWEEP, len(dropped))):
                    dropped.popitem()
        some = [dropped for dropped in some if dropped]
        with self._lock:
            self._forgotten += some
            return bool(self._forgotten)

    def _disown(self, e: Entry) -> None:
        for by, owner in ((self._by_token, e.of_token), (self._by_user, e.of_user)):
            assert owner is not None
            owner.entries -= 1
            if owner.entries == 0 and by.get(owner.name) is owner:
                del by[owner.name]

    def counts(self) -> tuple[int, int]:
        """Returns how many answers are kept, and how many checks they decided."""
        with self._lock:
            return len(self._answers) + len(self._refusals), self._answers.hits + self._refusals.hits


def _own(by: dict[str, Owner], name: str) -> Owner:
    owner = by.get(name)
    if owner is None:
        owner = by[name] = Owner(name)
    owner.entries += 1
    return owner
