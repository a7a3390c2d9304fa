"""Acknowledging what was applied."""

from __future__ import annotations

import asyncio
import contextlib

from .transport import Transport

_TIMEOUT = 5.0
"""Bounds one call, in seconds. It is longer than patd waits for it."""


class Acknowledger:
    """
    Tells patd what was applied, where patd asks for it, so that a call which revokes can return early. The watch never
    waits for it. A failure is ignored: patd then waits until this memory would be closed by its own rule.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._newest: dict[str, str] | None = None  # a later position includes an earlier one
        self._there_is = asyncio.Event()

    def applied(self, watch_id: str, sequence: int) -> None:
        """Records that everything up to a position of a watch has been applied."""
        self._newest = {"watch_id": watch_id, "sequence": str(sequence)}
        self._there_is.set()

    async def run(self) -> None:
        """Sends what was recorded, one call at a time, until it is cancelled."""
        while True:
            await self._there_is.wait()
            self._there_is.clear()
            with contextlib.suppress(Exception):
                await self._transport.post("/v1/invalidations:acknowledge", self._newest, _TIMEOUT)
