"""
Tables of routes: which scopes a token needs for which requests. ``patd scopes import`` writes one, and docs/routes.md
describes it. A table closes all that it does not open.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

_MAX_TABLE = 8 << 20
_MAX_PATH = 2048
_method = re.compile(r"[A-Z-]{1,32}")
_scope = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,128}")
_text = re.compile(r"[A-Za-z0-9._~!$&'()*+,=:@-]*")
_parameter = re.compile(r"([^{}]*)\{[A-Za-z0-9._-]+\}([^{}]*)", re.S)
# What ends a segment somewhere, what no path has, and an escaped slash, which a server may leave as it is.
_unclear = re.compile(r"[\x00-\x1f\x7f\\;]|%2f", re.I)
# What is no part of a path, escapes of what needs none, or of what is unclear, and what is no escape.
_needless = re.compile(r"[#?]|%(?:[01].|7f|2[def]|3[0-9b]|[46][1-9a-f]|[57][0-9a]|5[cf]|7e|(?![0-9a-f]{2}))", re.I)
_capitals = str.maketrans({chr(c): chr(c + 32) for c in range(ord("A"), ord("Z") + 1)})


@dataclass(frozen=True, slots=True)
class _Segment:
    prefix: str
    suffix: str
    param: bool

    def spells(self, text: str) -> bool:
        return text.startswith(self.prefix) and text.endswith(self.suffix) if self.param else text == self.prefix

    def holds(self, text: str) -> bool:
        return self.spells(text) and (not self.param or len(text) > len(self.prefix) + len(self.suffix))

    @property
    def rank(self) -> int:
        """A text comes first, then a parameter with texts around it, the longer first, then a parameter alone."""
        return 2 * _MAX_PATH - len(self.prefix) - len(self.suffix) if self.param else 0


class _Path:
    def __init__(self, template: str) -> None:
        first, *texts = template.split("/")
        if first or not texts or len(template) > _MAX_PATH:
            raise ValueError(f"no path of a table of routes: {template!r}")
        self.slash = texts[-1] == ""
        self.template = template
        self.segments = [_segment(t, template) for t in (texts[:-1] if self.slash else texts)]
        self.folded = [_Segment(_fold(s.prefix), _fold(s.suffix), s.param) for s in self.segments]
        # Is equal for templates of the same paths.
        self.shape = "".join(f"/{s.prefix}" + ("{}" + s.suffix if s.param else "") for s in self.folded)
        self.methods: dict[str, tuple[str, ...]] = {}


def _segment(text: str, template: str) -> _Segment:
    found = _parameter.fullmatch(text)
    out = _Segment(found[1], found[2], True) if found else _Segment(text, "", False)
    if text in ("", ".", "..") or not _text.fullmatch(out.prefix) or not _text.fullmatch(out.suffix):
        raise ValueError(f"no path of a table of routes: {template!r}")
    return out


def _fold(text: str) -> str:
    """Turns the letters of ASCII into small ones."""
    return text.translate(_capitals)


class RouteTable:
    """
    A table of routes. It does not change. The constructor takes what its JSON is parsed to, and raises ValueError for a
    table that is not understood.
    """

    def __init__(self, table: Mapping[str, Any]) -> None:
        shapes: dict[str, _Path] = {}
        version, routes = _members(table, "version", "routes")
        if version != 1 or isinstance(version, bool) or not isinstance(routes, list):
            raise ValueError("the table of routes has another version than 1, or no list of routes")
        for route in routes:
            method, template, scopes = _members(route, "method", "path", "scopes")
            if not isinstance(method, str) or not isinstance(template, str) or not _method.fullmatch(method):
                raise ValueError(f"a route is wrong: {method!r} {template!r}")
            if (
                not isinstance(scopes, list)
                or not all(isinstance(s, str) and _scope.fullmatch(s) for s in scopes)
                or len(set(scopes)) < len(scopes)
            ):
                raise ValueError(f"the scopes of {method} {template} are wrong")
            made = _Path(template)
            path = shapes.setdefault(made.shape, made)
            if path.template != template:
                raise ValueError(f"{path.template} and {template} are the same path, but for names, case or a slash")
            if method in path.methods:
                raise ValueError(f"{method} {template} is listed twice")
            path.methods[method] = tuple(scopes)
        self._paths: dict[int, list[_Path]] = {}  # by the number of their segments, the most specific first
        for path in sorted(shapes.values(), key=lambda p: ([s.rank for s in p.segments], p.shape)):
            self._paths.setdefault(len(path.segments), []).append(path)

    @classmethod
    def parse(cls, text: str | bytes) -> RouteTable:
        """Reads a table in JSON. Raises ValueError."""
        if len(text) > _MAX_TABLE:
            raise ValueError("the table of routes is too large")
        return cls(json.loads(text))

    @classmethod
    def read(cls, file: str | PathLike[str]) -> RouteTable:
        """Reads a table from a file. Raises ValueError, and OSError where there is no such file."""
        return cls.parse(Path(file).read_bytes())

    def find(self, method: str, path: str) -> tuple[str, ...] | None:
        """
        Returns the scopes that a request needs, at least one; None: it is closed. The path is that of the request line,
        without the query and as it was written.
        """
        if _needless.search(path):
            return None
        return self._find(method, path, unquote_to_bytes(path).decode("latin-1"))

    def find_decoded(self, method: str, path: str) -> tuple[str, ...] | None:
        """Is find for a path that the server has decoded, as WSGI and ASGI have them."""
        return self._find(method, path, path)

    def _find(self, method: str, path: str, decoded: str) -> tuple[str, ...] | None:
        first, *raw = path.split("/")
        texts = _fold(decoded).split("/")[1:]
        if first or not raw or _unclear.search(path) or _unclear.search(decoded):
            return None
        slash = raw[-1] == ""
        if slash:
            raw, texts = raw[:-1], texts[:-1]
        if any(t in ("", ".", "..") for t in raw):
            return None
        for p in self._paths.get(len(raw), ()):
            if all(s.holds(t) for s, t in zip(p.folded, texts, strict=True)):
                spelled = p.slash == slash and all(s.spells(t) for s, t in zip(p.segments, raw, strict=True))
                return p.methods.get(method) or None if spelled else None
        return None


def _members(value: object, *names: str) -> list[Any]:
    """Returns the members of an object, which must be the named ones."""
    if not isinstance(value, Mapping) or set(value) != set(names):
        raise ValueError(f"a table of routes has an object with {', '.join(names)} there, and nothing else")
    return [value[name] for name in names]
