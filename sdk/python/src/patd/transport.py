"""Requests to patd."""

from __future__ import annotations

import asyncio
import inspect
import ipaddress
import json
import os
import ssl
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx

from .fault import Fault, FaultKind, Missing, closed, nonsense

TokenSource = str | Callable[[], str | Awaitable[str]]
"""A service token, or a function that returns it: it is called before each request, so the token can be rotated."""

_POOL_SIZE = 8
_MAX_ANSWER = 4 << 20
"""The longest answer that is read, in bytes."""


def token_file(path: str | os.PathLike[str]) -> Callable[[], str]:
    """
    Returns a source of the service token in a file. The file is read again for each request, but not more often than
    once a second, so that the token can be rotated without a restart.
    """
    lock = threading.Lock()
    held: tuple[str, float] | None = None

    def read() -> str:
        nonlocal held
        with lock:
            now = time.monotonic()
            if held is None or now >= held[1]:
                with open(path, encoding="utf-8") as file:
                    held = file.read().strip(), now + 1
            return held[0]

    return read


def base_of(url: str, allow_plain_http: bool) -> str:
    """Returns the address that paths are added to. Raises ValueError."""
    u = urlsplit(url)
    if u.scheme not in ("http", "https") or not u.hostname:
        raise ValueError("the address of patd is like https://patd.example.com:8080")
    if u.username or u.password or u.query or u.fragment:
        raise ValueError("the address of patd has no user, query or fragment")
    if u.scheme == "http" and not (allow_plain_http or _is_loopback(u.hostname)):
        raise ValueError(f"the address of patd must be https, unless it is this machine: {u.scheme}://{u.netloc}")
    return f"{u.scheme}://{u.netloc}{u.path.rstrip('/')}"


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def authorization_of(token: str) -> str:
    """Returns the header for a service token. The error for what is none does not say it, as httpx's own would."""
    token = token.strip()
    if not token or not all("!" <= c <= "~" for c in token):
        raise ValueError("the service token is no token: it has no or other characters")
    return f"Bearer {token}"


def parse(body: bytes) -> object:
    """Reads JSON. Raises Fault."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise nonsense("the answer of patd is not JSON") from None  # without its text


def client_options(base: str, ssl_context: ssl.SSLContext | None) -> dict[str, Any]:
    """Returns what all clients of httpx have in common."""
    return {
        "verify": ssl_context if ssl_context is not None else True,
        "follow_redirects": False,  # a redirect would carry tokens to where it points
        # Plain http to this machine never goes to a proxy that the environment names.
        "trust_env": base.startswith("https:"),
        "headers": {"Accept-Encoding": "identity", "User-Agent": "patd-python"},
    }


class _Pool:
    """A few connections."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client
        self.busy = 0


class Transport:
    """Sends requests to patd. All of its methods run in one event loop."""

    def __init__(
        self,
        url: str,
        token: TokenSource,
        *,
        allow_plain_http: bool = False,
        ssl_context: ssl.SSLContext | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        connections: int = 128,
    ) -> None:
        self._base = base_of(url, allow_plain_http)
        self._token = token
        if isinstance(token, str):
            authorization_of(token)
        # A pool of httpx takes time with the square of its connections: many small ones are faster than a large one.
        options = client_options(self._base, ssl_context)
        if self._base.startswith("https:") and ssl_context is None:
            options["verify"] = httpx.create_ssl_context()
        limits = httpx.Limits(max_connections=_POOL_SIZE + 1, max_keepalive_connections=_POOL_SIZE, keepalive_expiry=30)
        self._new_client: Callable[[], httpx.AsyncClient] = lambda: httpx.AsyncClient(
            timeout=None, limits=limits, transport=transport, **options
        )
        self._watching = self._new_client()
        self._pools: list[_Pool] = []
        self._free = asyncio.Semaphore(connections)
        self._closed = False

    async def close(self) -> None:
        """Closes all connections."""
        self._closed = True
        for client in [self._watching, *(pool.client for pool in self._pools)]:
            await client.aclose()

    async def post(self, path: str, body: object, timeout: float) -> object:
        """Posts a JSON body and returns that of the response, whose status must be 200. The timeout is in seconds."""
        content = json.dumps(body, separators=(",", ":")).encode()
        try:
            async with asyncio.timeout(timeout), self._free:
                with self._pool() as client:
                    try:
                        return await self._post(client, path, content)
                    except httpx.TransportError:
                        # A connection that was kept open may have ended. To ask again does no harm.
                        return await self._post(client, path, content)
        except TimeoutError:
            raise Fault("unavailable", "patd did not answer in time") from None
        except httpx.HTTPError as err:
            raise Fault("unavailable", f"the connection to patd failed: {type(err).__name__}") from None

    @contextmanager
    def _pool(self) -> Iterator[httpx.AsyncClient]:
        """Chooses the first pool with a free connection, so that few pools are used."""
        pool = next((p for p in self._pools if p.busy < _POOL_SIZE), None)
        if pool is None:
            pool = _Pool(self._new_client())
            self._pools.append(pool)
        pool.busy += 1
        try:
            yield pool.client
        finally:
            pool.busy -= 1

    async def _post(self, client: httpx.AsyncClient, path: str, content: bytes) -> object:
        async with self._send(client, "POST", path, content, {"Content-Type": "application/json"}) as response:
            out = bytearray()
            async for chunk in response.aiter_raw():
                out += chunk
                if len(out) > _MAX_ANSWER:
                    raise nonsense("the answer of patd is too long")
        return parse(bytes(out))

    @asynccontextmanager
    async def stream(self, path: str) -> AsyncIterator[httpx.Response]:
        """Opens a stream of events."""
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
        async with self._send(self._watching, "GET", path, None, headers) as response:
            kind = response.headers.get("content-type", "").partition(";")[0]
            if kind.strip().lower() != "text/event-stream":
                raise nonsense("patd did not answer with events")
            yield response

    @asynccontextmanager
    async def _send(
        self, client: httpx.AsyncClient, method: str, path: str, content: bytes | None, headers: dict[str, str]
    ) -> AsyncIterator[httpx.Response]:
        headers["Authorization"] = await self._authorization()
        if self._closed:
            raise closed()
        async with client.stream(method, self._base + path, content=content, headers=headers) as response:
            if response.status_code == 404:
                raise Missing("unavailable", "patd answered with status 404")
            if response.status_code != 200:
                raise Fault(_kind_of(response.status_code), f"patd answered with status {response.status_code}")
            yield response

    async def _authorization(self) -> str:
        try:
            token = self._token if isinstance(self._token, str) else self._token()
            return authorization_of(await token if inspect.isawaitable(token) else token)
        except (OSError, ValueError) as err:
            raise Fault("unavailable", f"the service token: {err}") from None


def _kind_of(status: int) -> FaultKind:
    if status in (401, 403):
        return "forbidden"
    return "invalid" if status == 400 else "unavailable"
