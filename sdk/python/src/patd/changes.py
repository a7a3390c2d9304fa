"""Which tokens and users changed."""

from __future__ import annotations

_REMEMBERED = 1 << 15
"""How many tokens and users each of two generations holds."""


class Changes:
    """
    Which tokens and users the watch reported, and at which position, so that older answers are recognized. Names are
    kept as hashes: two that share one cost a request, never a wrong answer. Old changes are dropped, and the floor
    rises instead: an answer below the floor cannot be judged, and is not kept.
    """

    def __init__(self, floor: int = 0) -> None:
        self.floor = floor
        self._young: dict[int, int] = {}
        self._old: dict[int, int] = {}
        self._youngest = 0  # position of the newest change in young
        self._oldest = 0  # the same in old

    def note(self, kind: str, name: str, sequence: int) -> None:
        """Records a change of a token ("t") or a user ("u") at a position."""
        if len(self._young) >= _REMEMBERED:
            self.floor = max(self.floor, self._oldest)
            self._old, self._oldest = self._young, self._youngest
            self._young, self._youngest = {}, 0
        h = hash((kind, name))  # keyed by the process
        self._young[h] = max(self._young.get(h, 0), sequence)
        self._youngest = max(self._youngest, sequence)

    def after(self, sequence: int, token: str, user: str) -> bool:
        """Reports whether a token or its user changed after a position."""
        return any(
            by.get(h, 0) > sequence for h in (hash(("t", token)), hash(("u", user))) for by in (self._young, self._old)
        )
