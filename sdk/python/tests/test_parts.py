"""The parts of a verifier, each by itself."""

from __future__ import annotations

import math
import pickle

import pytest

from patd.answer import read_answer, read_time
from patd.changes import _REMEMBERED, Changes
from patd.decision import Decision, Token
from patd.entry import Entry
from patd.events import EventReader, ServerEvent
from patd.fault import Fault
from patd.memory import Memory, News
from patd.pace import Instant, Pace


def memory(entries: int = 100, size: int = 1 << 20) -> Memory:
    out = Memory(entries, size, lambda: 0.0, lambda: 0.0)
    out.known(Instant(0, 0))
    return out


def entry(key: str, user: str = "alice", token_id: str = "t", until: float = math.inf) -> Entry:
    out = Entry(Decision.ALLOW, Token(token_id, user))
    out.key, out.until = key.encode(), until
    return out


def test_memory_is_bounded_in_entries_and_bytes() -> None:
    for m in (memory(entries=16), memory(size=40_000)):
        for i in range(1000):
            m.keep(entry(f"k{i}", f"u{i}", f"t{i}"), m.epoch, 1)
        assert 0 < m.counts()[0] <= 16
        assert len(m._by_token) == len(m._by_user) == m.counts()[0]
    m = memory(size=4096)
    assert not m.keep(entry("k", "u" * 10_000), m.epoch, 1) and m.counts()[0] == 0 and not m._by_user


def test_what_is_used_stays() -> None:
    m = memory(entries=16)
    m.keep(entry("mine"), m.epoch, 1)
    for i in range(1000):
        assert m.recall(b"mine") is not None
        m.keep(entry(f"k{i}", f"u{i}", f"t{i}"), m.epoch, 1)


def test_news_makes_answers_unsound_by_token_and_user() -> None:
    for news in (News(5, False, ["t"], []), News(5, False, [], ["alice"]), News(5, True, [], [])):
        m = memory()
        m.keep(entry("k"), m.epoch, 4)
        m.keep(entry("other", "bob", "t2"), m.epoch, 4)
        m.apply(news)
        assert m.recall(b"k") is None
        assert (m.recall(b"other") is None) == news.start_over
        assert m.keep(entry("k"), m.epoch, 4) == (not news.start_over)  # it is from before
        assert m.recall(b"k") is None
        m.keep(entry("k"), m.epoch, 5)
        assert m.recall(b"k") is not None


def test_a_resumed_watch_drops_answers_that_are_newer_than_itself() -> None:
    m = memory()
    before = m.epoch
    m.keep(entry("old", token_id="t1"), m.epoch, 4)
    m.keep(entry("new", token_id="t2"), m.epoch, 5)
    m.resumed(4)
    assert m.recall(b"old") is not None and m.recall(b"new") is None
    assert m.keep(entry("late", token_id="t3"), before, 4)


def test_changes_that_were_dropped_raise_the_floor() -> None:
    c = Changes()
    for i in range(2 * _REMEMBERED + 1):
        c.note("t", f"t{i}", i + 1)
    assert c.floor == _REMEMBERED
    assert c.after(_REMEMBERED, f"t{2 * _REMEMBERED}", "u") and not c.after(1 << 40, "t1", "u")


def at(mono: float, wall: float | None = None) -> Instant:
    return Instant(mono, mono + 50 if wall is None else wall)


def test_the_pace_of_events_says_what_is_known() -> None:
    begun = Pace(at(1))
    assert begun.event(at(1.9), 0, True) == at(1)  # it may be as old as the request
    assert begun.event(at(2.9), 1.5, True) == at(2.5)  # patd says when it was made
    assert begun.behind == pytest.approx(0.4)
    resumed = Pace(at(1))
    assert resumed.event(at(1.01), 0, False) is None  # news that was missed
    assert resumed.event(at(1.5), 0.25, False) is None
    assert resumed.event(at(2.02), 1, False) == at(2)
    asleep = Pace(at(1))
    asleep.event(at(1), 0, True)
    assert asleep.event(at(2, 99), 48, True) == at(2, 99)  # the monotonic clock stood still
    ahead = Pace(at(1))
    ahead.event(at(1), 0, True)
    ahead.event(at(2, 90), 1, True)
    assert ahead.behind == 38  # when it asked is no longer a time of this clock


def test_the_pace_of_an_older_patd() -> None:
    begun = Pace(at(1))
    begun.event(at(1), 0, True)
    assert begun.event(at(2), 0, True) == at(2)
    assert begun.event(at(4), 0, False) == at(3.25)  # a heartbeat was held up
    assert begun.event(at(4), 0, False) == at(4)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_events_are_read_however_they_are_cut(size: int) -> None:
    text = (
        '\ufeff: a comment\r\nevent: a\r\ndata: {"x":\rdata:1}\n\n\nid: 7\n\ndata: ä\n\nevent: b\ndata: is cut'.encode()
    )
    reader = EventReader()
    out = [e for at in range(0, len(text), size) for e in reader.feed(text[at : at + size])]
    assert out == [ServerEvent("a", '{"x":\n1}'), ServerEvent("message", "ä")]


def test_an_event_without_end_is_a_fault() -> None:
    reader = EventReader()
    with pytest.raises(Fault):
        for _ in range(100):
            reader.feed(b"data: " + b"x" * 100_000)


GOOD = {"active": True, "decision": "ALLOW", "token_id": "t", "user": "u", "sequence": "7"}


@pytest.mark.parametrize(
    "more",
    [
        {"active": False},
        {"active": 1},
        {"decision": "FINE"},
        {"decision": ["ALLOW"]},
        {"decision": "REVOKED"},
        {"token_id": ""},
        {"user": 7},
        {"scopes": "read"},
        {"scopes": [1]},
        {"labels": []},
        {"sequence": 7},
        {"sequence": "-1"},
        {"sequence": str(1 << 64)},
        {"sequence": "٣"},
        {"expires_in": "1m"},
        {"expire_time": "soon"},
        {"expire_time": "2027-99-05T10:00:00Z"},
    ],
)
def test_an_answer_that_makes_no_sense_is_a_fault(more: dict[str, object]) -> None:
    read_answer(GOOD, 0, 60)
    with pytest.raises(Fault):
        read_answer({**GOOD, **more}, 0, 60)


def test_times_are_read_as_patd_writes_them() -> None:
    at = read_time("2027-01-05T10:00:00.123456789Z")
    assert at is not None and at.microsecond == 123456
    assert read_time("2027-01-05T12:00:00+02:00") == read_time("2027-01-05T10:00:00Z")


def test_a_fault_can_be_sent_to_another_process() -> None:
    copy = pickle.loads(pickle.dumps(Fault("closed", "it is over")))
    assert (copy.kind, str(copy)) == ("closed", "it is over")
