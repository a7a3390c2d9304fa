"""Answers in memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime

from .decision import Decision, Result, Token, decide
from .uses import Usage


class Owner:
    """A token or a user with answers in memory. One number makes all of them from before a change unsound."""

    __slots__ = ("name", "changed", "entries", "newest")

    def __init__(self, name: str) -> None:
        self.name = name
        self.changed: float = 0
        """The position of its last change; infinite: all its answers are dropped."""
        self.entries = 0
        """How many answers in memory depend on it."""
        self.newest = 0
        """The latest position of its answers."""


# The cost of an entry beside its texts, and of a text beside its characters, estimated from above.
_ENTRY_BYTES = 2560
_TEXT_BYTES = 80


class Entry:
    """One answer."""

    __slots__ = (
        "key", "until", "expire", "epoch", "sequence", "of_token", "of_user", "slot", "recent", "size", "usage", "decision",
        "token", "_scopes", "_result",
    )  # fmt: skip

    def __init__(
        self,
        decision: Decision,
        token: Token | None = None,
        end_time: datetime | None = None,
        expire_time: datetime | None = None,
    ) -> None:
        self.decision = decision
        self.token = token
        self.key = b""
        self.until = 0.0
        """By the monotonic clock: not to be used from then on."""
        self.expire = token.expire_time.timestamp() if token and token.expire_time else math.inf
        """The same by the wall clock, for a machine that slept."""
        self.epoch = -1
        """That of the memory when the answer was asked for."""
        self.sequence = 0
        """The position that the answer is at least as new as."""
        self.of_token: Owner | None = None  # the owners, once the answer is in memory; a refusal depends on nothing
        self.of_user: Owner | None = None
        self.slot = 0
        self.recent = False
        self.size = _size_of(token)
        self.usage = Usage(token.id) if token else None
        self._scopes = frozenset(token.scopes) if token else frozenset()
        self._result = Result(Decision.ALLOW, token) if token else Result(decision, None, (), end_time, expire_time)

    @property
    def is_void(self) -> bool:
        """Whether a change was received since the answer was made."""
        token, user = self.of_token, self.of_user
        return (
            token is not None and user is not None and (self.sequence < token.changed or self.sequence < user.changed)
        )

    def is_sound(self, mono: float, wall: float) -> bool:
        """Reports whether the entry may still be used, as far as the entry itself shows."""
        return mono < self.until and wall < self.expire and not self.is_void

    @property
    def is_shared(self) -> bool:
        """Whether it is good for other checks than the one that asked."""
        return self.token is None or self.of_token is not None

    def result(self, required: Sequence[str]) -> Result:
        """Returns the decision for a call."""
        if self.token is None or self._scopes.issuperset(required):
            return self._result
        return decide(self.token, required)


def _size_of(token: Token | None) -> int:
    if token is None:
        return _ENTRY_BYTES
    # Owners have the texts of the token and the user as well; scopes are in a set too.
    texts = [token.id, token.id, token.user, token.user, token.name, token.access_token_id or "", token.client_id or ""]
    for some in (token.scopes, token.scopes, token.granted, token.suspended, token.paused, token.audiences):
        texts += some
    for pair in token.labels.items():
        texts += pair
    return _ENTRY_BYTES + sum(_TEXT_BYTES + 4 * len(text) for text in texts)
