"""
Verifiers of personal access tokens of patd, for programs that accept them: Verifier, and AsyncVerifier for asyncio.

The other modules: patd.fastapi, patd.asgi, patd.django and patd.wsgi are middleware, patd.manage is the client that
manages users and tokens, patd.testing has a fake for tests.
"""

from .decision import AsyncChecker, Checker, Decision, Result, Token
from .engine import Options, Stats
from .fault import Fault, FaultKind
from .form import is_plausible
from .routes import RouteTable
from .transport import TokenSource, token_file
from .verifier import AsyncVerifier, Verifier

__all__ = [
    "AsyncChecker",
    "AsyncVerifier",
    "Checker",
    "Decision",
    "Fault",
    "FaultKind",
    "Options",
    "Result",
    "RouteTable",
    "Stats",
    "Token",
    "TokenSource",
    "Verifier",
    "is_plausible",
    "token_file",
]
