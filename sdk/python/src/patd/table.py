"""A bounded table of answers."""

from __future__ import annotations

from collections.abc import Callable

from .entry import Entry


class Table:
    """A map of entries, bounded in number and bytes. What was not used lately makes room (second chance)."""

    def __init__(self, max_entries: int, max_bytes: int, left: Callable[[Entry], None]) -> None:
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._left = left  # is called with each entry that leaves
        self._by_key: dict[bytes, Entry] = {}
        self._ring: list[Entry] = []  # all of by_key, in the order of the clock
        self._hand = 0
        self._bytes = 0
        self.hits = 0

    def __len__(self) -> int:
        return len(self._ring)

    def get(self, key: bytes) -> Entry | None:
        """Returns the entry of a key, in whatever state."""
        return self._by_key.get(key)

    def put(self, e: Entry) -> bool:
        """Adds an entry, unless it is too large."""
        if e.size > self._max_bytes or self._max_entries < 1:
            return False
        old = self._by_key.get(e.key)
        if old is not None:
            self.remove(old)
        while self._ring and (len(self._ring) >= self._max_entries or self._bytes + e.size > self._max_bytes):
            self.remove(self._victim())
        e.slot = len(self._ring)
        self._ring.append(e)
        self._by_key[e.key] = e
        self._bytes += e.size
        return True

    def remove(self, e: Entry) -> None:
        """Takes an entry of the table out; the last of the ring takes its place."""
        last = self._ring.pop()
        if last is not e:
            self._ring[e.slot] = last
            last.slot = e.slot
        if self._hand >= len(self._ring):
            self._hand = 0
        del self._by_key[e.key]
        self._bytes -= e.size
        self._left(e)

    def _victim(self) -> Entry:
        """Advances the hand of the clock to an entry that is void, or was not used since the hand last passed."""
        while True:
            e = self._ring[self._hand]
            self._hand = (self._hand + 1) % len(self._ring)
            if e.is_void or not e.recent:
                return e
            e.recent = False

    def clear(self) -> tuple[dict[bytes, Entry], list[Entry]]:
        """Drops all entries, and returns what held them."""
        out = self._by_key, self._ring
        self._by_key, self._ring = {}, []
        self._hand = self._bytes = 0
        return out
