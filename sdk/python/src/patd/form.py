"""The form of a token."""

from __future__ import annotations

import re
import secrets
import zlib

MAX_TOKEN = 256
"""The longest text that can be a token, in bytes."""

_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_PATTERN = re.compile(r"([a-z][a-z0-9]{1,15})_([0-9A-Za-z]{11})_([0-9A-Za-z]{43})([0-9A-Za-z]{6})")

# The digits stand in the order of their codes, so that numbers of one length compare as texts do.
_ZERO_ID = "0" * 11
_LARGEST_ID = "LygHa16AHYF"  # 2^64 - 1
_LARGEST_SECRET = "yhjskwdA6OZ1AL1YmHWZWm8LLG7HjnuCA2j5rOw8Xp1"  # 2^256 - 1


def checksum(text: str) -> str:
    """Returns the CRC-32 (IEEE) of an ASCII text, as 6 base62 digits."""
    n = zlib.crc32(text.encode("ascii"))
    out = ""
    for _ in range(6):
        n, digit = divmod(n, 62)
        out = _DIGITS[digit] + out
    return out


def is_plausible(text: str) -> bool:
    """
    Reports whether a text has the form of a token that may be introspected, checksum included. Any prefix but those of
    service and refresh tokens is good: patd decides which ones it uses.
    """
    found = _PATTERN.fullmatch(text)
    if found is None:
        return False
    prefix, token_id, secret, check = found.groups()
    if prefix in ("pats", "patr") or token_id == _ZERO_ID or token_id > _LARGEST_ID or secret > _LARGEST_SECRET:
        return False
    return checksum(text[:-6]) == check


def random_token(prefix: str = "pat") -> tuple[str, str]:
    """Returns a new token text of random bits, and its id, for tests. Nothing else knows it."""

    def digits(n: int) -> str:
        return "".join(secrets.choice(_DIGITS) for _ in range(n))

    token_id = "1" + digits(10)
    body = f"{prefix}_{token_id}_0{digits(42)}"
    return body + checksum(body), token_id
