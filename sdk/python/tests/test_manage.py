"""The management client."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from patd.manage import AsyncManage, Manage, PatdError, _decoded, _text_of, reasons

Said = tuple[int, dict[str, str], Any]


class Server(ThreadingHTTPServer):
    """Answers requests as a test says, in order, and notes them."""

    said: list[Said | None]
    heard: list[tuple[str, str, dict[str, str], Any]]


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {k.lower(): v for k, v in self.headers.items()}
        self.server.heard.append((self.command, self.path, headers, json.loads(body) if body else None))
        said = self.server.said.pop(0)
        if said is None:  # a connection that breaks
            self.close_connection = True
            return
        status, more, answer = said
        content = json.dumps(answer).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **more}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server(("127.0.0.1", 0), Handler)
    server.said, server.heard = [], []
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def patd(server: Server) -> Iterator[Manage]:
    with Manage(f"http://127.0.0.1:{server.server_port}", "pats_x", timeout=20) as patd:
        yield patd


def error(reason: str) -> Any:
    info = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "domain": "patd", "reason": reason}
    return {"error": {"status": "PERMISSION_DENIED", "message": "for people", "details": [info]}}


def test_a_call_that_creates_is_repeated_with_one_key(server: Server, patd: Manage) -> None:
    server.said = [None, (503, {"Retry-After": "0"}, {}), (200, {}, {"secret": "s", "token": {"token_id": "t"}})]
    assert patd.create_token("a/b", {"name": "x", "ttl": timedelta(days=30)})["secret"] == "s"
    assert len({headers["idempotency-key"] for _, _, headers, _ in server.heard}) == 1 and len(server.heard) == 3
    method, path, headers, body = server.heard[0]
    assert (method, path, body) == ("POST", "/v1/users/a%2Fb/tokens", {"name": "x", "ttl": "2592000s"})
    assert headers["authorization"] == "Bearer pats_x"


def test_a_change_that_could_happen_twice_is_not_repeated(server: Server, patd: Manage) -> None:
    server.said = [None]
    with pytest.raises(PatdError) as err:
        patd.update_token("alice", "t", {"token": {"name": "new"}, "update_mask": "name"})
    assert (err.value.http_status, len(server.heard)) == (0, 1)
    server.said = [None]
    with pytest.raises(PatdError):
        patd.revoke_token("alice", "t", etag='"e"')
    assert server.heard[1][2]["if-match"] == '"e"' and len(server.heard) == 2


def test_each_reason_is_a_class(server: Server, patd: Manage) -> None:
    server.said = [(403, {"X-Request-Id": "r"}, error("SCOPE_NOT_HELD")), (502, {"Retry-After": "99"}, "a proxy's")]
    with pytest.raises(reasons.ScopeNotHeld) as held:
        patd.create_token("alice", {"name": "x"})
    assert (held.value.reason, held.value.http_status, held.value.request_id) == ("SCOPE_NOT_HELD", 403, "r")
    with pytest.raises(PatdError) as proxy:
        patd.get_user("alice")
    assert (proxy.value.reason, proxy.value.retry_after) == (None, 99)


def test_pages_are_asked_for_when_they_are_needed(server: Server, patd: Manage) -> None:
    first: Said = (200, {}, {"tokens": [{"token_id": "1"}, {"token_id": "2"}], "next_page_token": "n"})
    second: Said = (200, {}, {"tokens": [{"token_id": "3", "issue_time": "2027-01-05T10:00:00Z"}]})
    server.said = [first, second]
    tokens = patd.list_tokens("alice", q="x y", state="ACTIVE")
    assert [next(tokens)["token_id"], next(tokens)["token_id"], len(server.heard)] == ["1", "2", 1]
    assert next(tokens)["issue_time"] == datetime(2027, 1, 5, 10, tzinfo=UTC)
    assert [path for _, path, _, _ in server.heard] == [
        "/v1/users/alice/tokens?state=ACTIVE&q=x%20y",
        "/v1/users/alice/tokens?state=ACTIVE&q=x%20y&page_token=n",
    ]
    assert next(tokens, None) is None


def test_asyncio_has_the_same(server: Server) -> None:
    async def main() -> None:
        async with AsyncManage(f"http://127.0.0.1:{server.server_port}", "pats_x", timeout=20) as patd:
            server.said = [None, (200, {}, {"tokens": [{"token_id": "1"}]}), (403, {}, error("SCOPE_NOT_HELD"))]
            assert [token["token_id"] async for token in patd.list_tokens("alice")] == ["1"]
            with pytest.raises(reasons.ScopeNotHeld):
                await patd.create_token("alice", {"name": "x"})

    asyncio.run(main())


@pytest.mark.parametrize("user", ["", ".", ".."])
def test_a_name_cannot_become_another_path(patd: Manage, user: str) -> None:
    with pytest.raises(ValueError):
        patd.get_user(user)


def test_values_become_those_of_python_and_back() -> None:
    got = _decoded({"default_ttl": "86400s", "max_ttl": "0.5s", "id": "7"}, "@Audience")
    assert got == {"default_ttl": timedelta(days=1), "max_ttl": timedelta(seconds=0.5), "id": "7"}
    assert _decoded({"use_count": "12"}, "@ScopeUse") == {"use_count": 12}
    assert _text_of(timedelta(days=1)) == "86400s" and _text_of(timedelta(milliseconds=1500)) == "1.5s"
    assert _text_of(datetime(2027, 1, 5, 12, tzinfo=UTC)) == "2027-01-05T12:00:00Z"
    for wrong in (datetime(2027, 1, 5), timedelta(-1), object()):
        with pytest.raises((ValueError, TypeError)):
            _text_of(wrong)
