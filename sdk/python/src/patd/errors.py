"""Errors of the management client."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Violation:
    """What is wrong with a field of a request."""

    field: str
    """In snake_case."""
    description: str
    reason: str | None = None


class PatdError(Exception):
    """
    A call of the management client that failed. Each reason has a class of its own in patd.manage.reasons: catch that,
    or compare ``reason``. They are stable; the message is not.
    """

    http_status: int
    """0: there was no response. Then a change may have happened."""
    status: str
    """The name of the status, such as ``INVALID_ARGUMENT``."""
    reason: str | None
    metadata: Mapping[str, str]
    violations: Sequence[Violation]
    request_id: str | None
    retry_after: float | None
    """How long to wait before the call is repeated, in seconds, if patd says so."""

    def __init__(
        self,
        http_status: int,
        status: str,
        message: str,
        *,
        reason: str | None = None,
        metadata: Mapping[str, str] | None = None,
        violations: Sequence[Violation] = (),
        request_id: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.http_status = http_status
        self.status = status
        self.reason = reason
        self.metadata = metadata or {}
        self.violations = violations
        self.request_id = request_id
        self.retry_after = retry_after


def error_of(http_status: int, headers: Mapping[str, str], body: bytes) -> PatdError:
    """Reads the error of a response. What is not of patd's form has a status and no reason."""
    from .generated.reasons import BY_REASON  # which builds upon PatdError

    try:
        error = _object(_object(json.loads(body)).get("error"))
    except (ValueError, RecursionError):
        error = {}  # a proxy's
    details = [_object(d) for d in _list(error.get("details"))]
    info = next((d for d in details if str(d.get("@type")).endswith("google.rpc.ErrorInfo")), {})
    reason = info.get("reason") if isinstance(info.get("reason"), str) else None
    request_id = next((d["request_id"] for d in details if isinstance(d.get("request_id"), str)), None)
    try:
        retry_after = float(headers.get("retry-after", ""))
    except ValueError:
        retry_after = None
    return BY_REASON.get(reason or "", PatdError)(
        http_status,
        str(error.get("status", "UNKNOWN")),
        str(error.get("message", f"patd answered with status {http_status}")),
        reason=reason,
        metadata={str(k): str(v) for k, v in _object(info.get("metadata")).items()},
        violations=[
            Violation(str(v.get("field", "")), str(v.get("description", "")), v.get("reason"))
            for d in details
            for v in map(_object, _list(d.get("field_violations")))
        ],
        request_id=request_id or headers.get("x-request-id"),
        retry_after=retry_after,
    )


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
