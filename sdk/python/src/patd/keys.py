"""The keys of memory."""

from __future__ import annotations

import hashlib
import secrets
from functools import lru_cache

from .address import Address
from .fault import Fault
from .form import MAX_TOKEN

_MAX_AUDIENCE = 1024


@lru_cache(maxsize=256)
def _audience_bytes(audience: str) -> bytes:
    try:
        out = audience.encode()
    except UnicodeEncodeError:
        raise Fault("invalid", "an audience is Unicode text") from None
    if len(out) > _MAX_AUDIENCE:
        raise Fault("invalid", f"an audience has at most {_MAX_AUDIENCE} bytes")
    return out


def key_material(token: str, audience: str) -> bytes:
    """
    Returns what a key is made of, before it is digested. The length stands before the token, so that no two requests
    have the same encoding. Raises UnicodeEncodeError if the token is not ASCII.
    """
    return len(token).to_bytes(2, "big") + token.encode("ascii") + _audience_bytes(audience)


class Digester:
    """
    Makes the keys of memory: keyed digests of all that an answer depends on. The secrets are random and never leave the
    process: memory holds no token, and nobody can search for two tokens that share a key.
    """

    def __init__(self) -> None:
        secret = secrets.token_bytes(16)
        self._first = tuple(secret + n.to_bytes(2, "big") for n in range(MAX_TOKEN + 1))
        self._second = secrets.token_bytes(16)

    def key(self, token: str, audience: str) -> bytes | None:
        """Returns the key of a token at an audience, for every address; None: it is no token."""
        if len(token) > MAX_TOKEN or not token.isascii():
            return None
        audience_bytes = _audience_bytes(audience) if audience else b""
        return hashlib.sha256(self._first[len(token)] + token.encode() + audience_bytes).digest()[:16]

    def at(self, key: bytes, address: Address | None) -> bytes:
        """Returns the key of an answer that is good for one address; None: of a client whose address is not known."""
        return hashlib.sha256(self._second + key + (address.packed if address else b"")).digest()[:16]
