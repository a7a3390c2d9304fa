"""Why nothing is known about a token."""

from __future__ import annotations

from typing import Literal

FaultKind = Literal["unavailable", "forbidden", "invalid", "timeout", "closed"]
"""
* ``unavailable``: patd did not answer in time, cannot decide now, or its answer made no sense;
* ``forbidden``: patd refuses the service token of this program (401, 403);
* ``invalid``: the arguments of the call are refused;
* ``timeout``: the check's own time was over;
* ``closed``: the verifier was closed.
"""


class Fault(Exception):
    """A check that has no decision. The call at hand must fail with 503, never with 401, and never pass."""

    def __init__(self, kind: FaultKind, message: str) -> None:
        super().__init__(message)
        self.kind: FaultKind = kind

    def __reduce__(self) -> tuple[type[Fault], tuple[str, str]]:
        return type(self), (self.kind, str(self))


class Missing(Fault):
    """The server has no such endpoint: a retry is unlikely to help."""


def closed() -> Fault:
    """Returns the fault of a verifier that was closed."""
    return Fault("closed", "the verifier is closed")


def nonsense(message: str) -> Fault:
    """Returns the fault of an answer that makes no sense."""
    return Fault("unavailable", message)
