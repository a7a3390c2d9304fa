"""What patd says."""

from __future__ import annotations

import random
import re
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, NamedTuple

from .decision import Decision, Token
from .entry import Entry
from .fault import nonsense

_REFUSAL_AGE = 2.0
"""How long a final refusal is kept, in seconds."""
_decisions = {d.value: d for d in Decision}
_position = re.compile(r"[0-9]{1,20}", re.ASCII)
_duration = re.compile(r"-?[0-9]{1,15}(\.[0-9]{1,9})?s", re.ASCII)
_time = re.compile(r"(\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


class Answer(NamedTuple):
    """An answer of patd, read."""

    entry: Entry
    sequence: int
    everywhere: bool
    """It is good for every address."""


def read_answer(body: object, sent: float, max_age: float) -> Answer:
    """
    Reads an answer of patd that was asked for at a time of the monotonic clock. What contradicts itself is a fault:
    nothing is known about the token.
    """
    r = record(body, "the answer")
    text = r.get("decision")
    decision = _decisions.get(text) if isinstance(text, str) else None
    if decision is None or r.get("active") is not decision.is_active:
        raise nonsense("the answer of patd contradicts itself")
    everywhere = r.get("any_client_ip") is True
    if not decision.is_active:
        entry = Entry(decision, None, read_time(r.get("end_time")), read_time(r.get("expire_time")))
        if decision.is_final:
            entry.until = sent + _REFUSAL_AGE
        return Answer(entry, 0, decision.is_final or everywhere)
    entry = Entry(decision, _read_token(r))
    entry.until = sent + max_age * (1 - random.random() / 10)  # so that answers do not end together
    left = r.get("expires_in")
    if left is not None:
        entry.until = min(entry.until, sent + _seconds(left))
    position = r.get("sequence")
    return Answer(entry, 0 if position is None else read_position(position), everywhere)


def _read_token(r: dict[str, Any]) -> Token:
    token_id, user = _text(r.get("token_id")), _text(r.get("user"))
    if not token_id or not user:
        raise nonsense("the answer of patd does not say whose token it is")
    return Token(
        id=token_id,
        user=user,
        name=_text(r.get("name")),
        scopes=texts(r.get("scopes")),
        granted=texts(r.get("granted_scopes")),
        suspended=texts(r.get("suspended_scopes")),
        paused=texts(r.get("paused_scopes")),
        audiences=texts(r.get("audiences")),
        labels=_labels(r.get("labels")),
        issue_time=read_time(r.get("issue_time")),
        expire_time=read_time(r.get("expire_time")),
        access_token_id=_text(r.get("access_token_id")) or None,
        client_id=_text(r.get("client_id")) or None,
        stale=r.get("stale") is True,
    )


def record(value: object, what: str) -> dict[str, Any]:
    """Reads an object."""
    if not isinstance(value, dict):
        raise nonsense(f"{what} of patd is no object")
    return value


def _text(value: object) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise nonsense("a text in the answer of patd is none")
    return value


def texts(value: object) -> tuple[str, ...]:
    """Reads a list of texts; absent: an empty one."""
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
        raise nonsense("a list in the answer of patd is none")
    return tuple(value)


def _labels(value: object) -> MappingProxyType[str, str]:
    if value is None:
        return MappingProxyType({})
    return MappingProxyType({name: _text(label) for name, label in record(value, "a label").items()})


def read_position(value: object) -> int:
    """Reads a position in the change feed: a decimal number, as text."""
    if not isinstance(value, str) or not _position.fullmatch(value) or int(value) >= 1 << 64:
        raise nonsense("a position in the answer of patd is none")
    return int(value)


def read_time(value: object) -> datetime | None:
    """Reads a time of RFC 3339, of which microseconds are kept; absent: None."""
    if value is None:
        return None
    found = _time.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise nonsense("a time in the answer of patd is none")
    seconds, fraction, zone = found.groups()
    try:
        at = datetime.fromisoformat(f"{seconds}.{(fraction or '0')[:6]:0<6}{zone}".upper())
        return at.astimezone(UTC)
    except (ValueError, OverflowError):
        raise nonsense("a time in the answer of patd is none") from None


def _seconds(value: object) -> float:
    if not isinstance(value, str) or not _duration.fullmatch(value):
        raise nonsense("a duration in the answer of patd is none")
    return float(value[:-1])
