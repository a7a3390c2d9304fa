"""Questions to patd about tokens."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

from .answer import record
from .fault import Fault, closed, nonsense
from .transport import Transport

_ALONE = 16
"""While so many questions are under way by themselves, further ones that come together share a request."""
_TOGETHER = 100

Request = dict[str, Any]


class Asker:
    """
    Asks patd about tokens. Each question has a request of its own, until there are many: of a burst, as after the start
    of a program, those that come at once are asked together. None waits for an answer to another one's request.
    """

    def __init__(
        self, transport: Transport, timeout: float, spawn: Callable[[Coroutine[Any, Any, None]], object]
    ) -> None:
        self._transport = transport
        self._timeout = timeout
        self._spawn = spawn
        self._alone = 0
        self._waiting: list[tuple[Request, asyncio.Future[object]]] = []

    async def ask(self, request: Request) -> object:
        """Returns the answer to a request, as patd sent it. Raises Fault."""
        until = time.monotonic() + self._timeout
        if self._alone >= _ALONE:
            loop = asyncio.get_running_loop()
            answer: asyncio.Future[object] = loop.create_future()
            self._waiting.append((request, answer))
            if len(self._waiting) == 1:
                loop.call_soon(self._flush)
            out = await answer
            if out is not None:
                return out
        self._alone += 1
        try:
            return await self._transport.post("/v1/introspect", request, max(0.001, until - time.monotonic()))
        finally:
            self._alone -= 1

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        for at in range(0, len(waiting), _TOGETHER):
            self._spawn(self._together(waiting[at : at + _TOGETHER]))

    async def _together(self, some: list[tuple[Request, asyncio.Future[object]]]) -> None:
        """Asks several questions. Nothing as an answer means that the question is to be asked by itself."""
        answers: list[object] = [None] * len(some)
        fault: Fault | None = closed()  # if this is cancelled
        try:
            requests = [request for request, _ in some]
            body = await self._transport.post("/v1/introspect:batch", {"requests": requests}, self._timeout)
            got = record(body, "the answer").get("responses")
            if not isinstance(got, list) or len(got) != len(some):
                raise nonsense("the answer of patd has not one part for each question")
            answers, fault = got, None
        except Fault as err:
            # One user's outage fails all: the others are asked about by themselves.
            fault = err if err.kind in ("forbidden", "closed") else None
        finally:
            for (_, future), answer in zip(some, answers, strict=True):
                if future.done():
                    continue
                if fault is not None:
                    future.set_exception(Fault(fault.kind, str(fault)))
                else:
                    future.set_result(answer)
