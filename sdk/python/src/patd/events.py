"""Server-sent events (WHATWG HTML, section 9.2)."""

from __future__ import annotations

import codecs
import re
from typing import NamedTuple

from .fault import Fault

_MAX_EVENT = 4 << 20
"""The longest event, in characters."""
_LINE = re.compile(r"\r\n|\n|\r(?!\Z)")  # after a carriage return at the end, its line feed may be yet to come


class ServerEvent(NamedTuple):
    """An event of a stream."""

    type: str
    """Its name; ``message`` if it has none."""
    data: str


class EventReader:
    """Reads events from the bytes of a stream."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")("replace")
        self._rest = ""
        self._type = ""
        self._data: list[str] = []
        self._length = 0

    def feed(self, chunk: bytes) -> list[ServerEvent]:
        """Returns the events that some more bytes complete. Raises Fault for an event that is too long."""
        text = self._rest + self._decoder.decode(chunk)
        out: list[ServerEvent] = []
        at = 0
        for end in _LINE.finditer(text):
            event = self._line(text[at : end.start()])
            if event is not None:
                out.append(event)
            at = end.end()
        self._rest = text[at:]
        if self._length + len(self._rest) > _MAX_EVENT:
            raise Fault("unavailable", "an event is too long")
        return out

    def _line(self, line: str) -> ServerEvent | None:
        if line == "":
            event = ServerEvent(self._type or "message", "\n".join(self._data)) if self._data else None
            self._type, self._data, self._length = "", [], 0
            return event
        name, _, content = line.partition(":")  # a comment has an empty name
        content = content.removeprefix(" ")
        if name == "event":
            self._type = content
        elif name == "data":
            self._data.append(content)
            self._length += len(content)
        return None
