"""
The management client: users, tokens, features, audiences, services, webhooks and the audit log. Its methods and types
are those of the OpenAPI document of patd, with Python's own for times (datetime), durations (timedelta) and counts
(int).
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import ssl
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Self, TypedDict, Unpack, cast
from urllib.parse import quote, urlencode

import httpx

from .answer import read_time
from .errors import PatdError, Violation, error_of
from .fault import Fault
from .generated import reasons, types
from .generated.operations import OPERATIONS, SHAPES, AsyncOperations, Operation, Operations
from .transport import TokenSource, authorization_of, base_of, client_options

__all__ = ["AsyncManage", "Manage", "ManageOptions", "PatdError", "Violation", "reasons", "types"]

_MAX_ANSWER = 64 << 20  # bytes
_LONGEST_PAUSE = 10.0  # seconds


class ManageOptions(TypedDict, total=False):
    """Configures Manage and AsyncManage. Times are in seconds."""

    timeout: float
    """Bounds a call with all its repetitions. 30 seconds."""
    attempts: int
    """How often a call is sent at most, where that is safe. 4."""
    allow_plain_http: bool
    """Allows plain http to other machines, which shows every token to the network in between."""
    ssl_context: ssl.SSLContext | None
    """For a certificate of a private authority."""


class _Call:
    """One call, with what its repetitions have in common."""

    def __init__(
        self,
        base: str,
        operation: Operation,
        path: Mapping[str, str],
        query: Mapping[str, Any] | None,
        body: Any,
        idempotency_key: str | None,
        etag: str | None,
        options: ManageOptions,
    ) -> None:
        self._operation = operation
        self.url = base + _path_of(operation.path, path, query)
        self.content = None if body is None else json.dumps(body, default=_text_of).encode()
        self.headers: dict[str, str] = {}
        key = (idempotency_key or str(uuid.uuid4())) if operation.key else None
        if key is not None:
            self.headers["Idempotency-Key"] = key
        if etag is not None:
            self.headers["If-Match"] = etag
        if body is not None:
            self.headers["Content-Type"] = "application/json"
        self._repeat = (operation.repeat or key is not None) and etag is None
        self.until = time.monotonic() + options.get("timeout", 30.0)
        self._attempts = options.get("attempts", 4)
        self._sent = 0

    def left(self) -> float:
        """Returns how many seconds are left."""
        return max(0.001, self.until - time.monotonic())

    def headers_with(self, token: str) -> dict[str, str]:
        """Returns the headers of a request."""
        return {**self.headers, "Authorization": authorization_of(token)}

    def pause_after(self, err: PatdError) -> float:
        """Returns how long to wait before the call is repeated. Raises the error if it is not."""
        self._sent += 1
        busy = err.http_status == 429  # the call was refused before it began
        lost = err.http_status in (0, 502, 503, 504)
        pause = err.retry_after
        if pause is None:
            pause = 0.1 * 2**self._sent * (0.5 + random.random())
        allowed = busy or (lost and self._repeat)
        if not allowed or self._sent >= self._attempts or pause > min(_LONGEST_PAUSE, self.left()):
            raise err
        return pause

    def result(self, response: httpx.Response, body: bytes) -> Any:
        """Returns what a response has. Raises PatdError."""
        if not response.is_success:
            raise error_of(response.status_code, response.headers, body)
        if body == b"":
            return None
        try:
            return _decoded(json.loads(body), self._operation.shape)
        except (ValueError, TypeError, AttributeError, RecursionError, Fault):
            raise PatdError(response.status_code, "INTERNAL", "the answer of patd makes no sense") from None


def _lost(err: httpx.HTTPError) -> PatdError:
    return PatdError(0, "UNAVAILABLE", f"the connection to patd failed: {type(err).__name__}")


def _late() -> PatdError:
    return PatdError(0, "DEADLINE_EXCEEDED", "patd did not answer in time")


def _too_long(status: int) -> PatdError:
    return PatdError(status, "INTERNAL", "the answer of patd is too long")


class Manage(Operations):
    """
    Calls the operations of patd, each of which is a method. Calls that create carry an idempotency key of their own, so
    they are repeated safely when a connection breaks; a change that could happen twice is not repeated. Methods that
    list return iterators, which ask for a page when it is needed. A failed call raises a PatdError. Any thread may call
    it.
    """

    def __init__(self, url: str, token: str | Callable[[], str], **options: Unpack[ManageOptions]) -> None:
        self._base = base_of(url, options.get("allow_plain_http", False))
        self._token = token
        self._options = options
        self._client = httpx.Client(timeout=None, **client_options(self._base, options.get("ssl_context")))

    def close(self) -> None:
        """Closes all connections."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _call(
        self,
        operation: str,
        path: Mapping[str, str],
        *,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        idempotency_key: str | None = None,
        etag: str | None = None,
    ) -> Any:
        op = OPERATIONS[operation]
        call = _Call(self._base, op, path, query, body, idempotency_key, etag, self._options)
        while True:
            try:
                return self._send(op, call)
            except PatdError as err:
                time.sleep(call.pause_after(err))

    def _send(self, op: Operation, call: _Call) -> Any:
        headers = call.headers_with(self._token if isinstance(self._token, str) else self._token())
        out = bytearray()
        try:
            with self._client.stream(
                op.method, call.url, content=call.content, headers=headers, timeout=call.left()
            ) as response:
                for chunk in response.iter_raw():
                    out += chunk
                    if len(out) > _MAX_ANSWER:
                        raise _too_long(response.status_code)
                    if time.monotonic() > call.until:
                        raise _late()
        except httpx.TimeoutException:
            raise _late() from None
        except httpx.HTTPError as err:
            raise _lost(err) from None
        return call.result(response, bytes(out))

    def _list(
        self, operation: str, path: Mapping[str, str], *, query: Mapping[str, Any] | None = None
    ) -> Iterator[Any]:
        op, position = OPERATIONS[operation], None
        while True:
            page = self._call(operation, path, query={**(query or {}), op.ask: position})
            yield from page.get(op.items) or ()
            position = page.get(op.next)
            if not position:
                return


class AsyncManage(AsyncOperations):
    """Is Manage for asyncio."""

    def __init__(self, url: str, token: TokenSource, **options: Unpack[ManageOptions]) -> None:
        self._base = base_of(url, options.get("allow_plain_http", False))
        self._token = token
        self._options = options
        self._client = httpx.AsyncClient(timeout=None, **client_options(self._base, options.get("ssl_context")))

    async def close(self) -> None:
        """Closes all connections."""
        await self._client.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _call(
        self,
        operation: str,
        path: Mapping[str, str],
        *,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        idempotency_key: str | None = None,
        etag: str | None = None,
    ) -> Any:
        op = OPERATIONS[operation]
        call = _Call(self._base, op, path, query, body, idempotency_key, etag, self._options)
        while True:
            try:
                async with asyncio.timeout(call.left()):
                    return await self._send(op, call)
            except TimeoutError:
                raise _late() from None
            except PatdError as err:
                await asyncio.sleep(call.pause_after(err))

    async def _send(self, op: Operation, call: _Call) -> Any:
        token = self._token if isinstance(self._token, str) else self._token()
        headers = call.headers_with(token if isinstance(token, str) else await token)
        out = bytearray()
        try:
            async with self._client.stream(op.method, call.url, content=call.content, headers=headers) as response:
                async for chunk in response.aiter_raw():
                    out += chunk
                    if len(out) > _MAX_ANSWER:
                        raise _too_long(response.status_code)
        except httpx.HTTPError as err:
            raise _lost(err) from None
        return call.result(response, bytes(out))

    async def _list(
        self, operation: str, path: Mapping[str, str], *, query: Mapping[str, Any] | None = None
    ) -> AsyncIterator[Any]:
        op, position = OPERATIONS[operation], None
        while True:
            page = await self._call(operation, path, query={**(query or {}), op.ask: position})
            for item in page.get(op.items) or ():
                yield item
            position = page.get(op.next)
            if not position:
                return


def _path_of(path: str, values: Mapping[str, str], query: Mapping[str, Any] | None) -> str:
    def fill(found: re.Match[str]) -> str:
        value = values[found[1]]
        # A segment of dots is folded away on the way, and the call would be another one.
        if not isinstance(value, str) or value in ("", ".", ".."):
            raise ValueError(f"{found[1]} cannot be {value!r} in a path")
        return quote(value, safe="")

    filled = re.sub(r"\{(\w+)\}", fill, path)
    pairs: list[tuple[str, str]] = []
    for name, value in (query or {}).items():
        for one in value if isinstance(value, (list, tuple)) else [value]:
            if one is not None:
                pairs.append((name, str(one).lower() if isinstance(one, bool) else _text_of(one)))
    return f"{filled}?{urlencode(pairs, quote_via=quote)}" if pairs else filled


def _text_of(value: object) -> str:
    """Returns a value as JSON and queries have it."""
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError("a time needs a zone: datetime.now(UTC)")
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, timedelta):
        seconds, rest = divmod(value // timedelta(microseconds=1), 1_000_000)
        if seconds < 0:
            raise ValueError("a duration is not negative")
        return f"{seconds}.{rest:06}".rstrip("0").rstrip(".") + "s" if rest else f"{seconds}s"
    if isinstance(value, (str, int, float)):
        return str(value)
    raise TypeError(f"a {type(value).__name__} is nothing that patd takes")


def _decoded(value: Any, shape: str | None) -> Any:
    """Makes values of Python of those of JSON."""
    if shape is None or value is None:
        return value
    if shape == "Timestamp":
        return read_time(value)
    if shape == "Duration":
        return timedelta(seconds=float(cast(str, value).removesuffix("s")))
    if shape == "Count":
        return int(value)
    if shape.startswith("["):
        return [_decoded(one, shape[1:]) for one in value]
    if shape.startswith("{"):
        return {name: _decoded(one, shape[1:]) for name, one in value.items()}
    for name, inner in SHAPES[shape[1:]].items():
        if name in value:
            value[name] = _decoded(value[name], inner)
    return value
