"""IP addresses."""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from typing import NamedTuple

from .fault import Fault


class Address(NamedTuple):
    """An IP address: 16 bytes, IPv4 as ::ffff:a.b.c.d, and its text as patd takes it."""

    packed: bytes
    text: str


def parse_address(text: str) -> Address | None:
    """Reads an IP address. A zone is left out. None: it is none."""
    return _parse(text) if len(text) <= 100 else None


@lru_cache(maxsize=4096)
def _parse(text: str) -> Address | None:
    try:
        ip = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is None:
            return Address(ip.packed, text.partition("%")[0].lower())
        ip = ip.ipv4_mapped
    return Address(b"\0" * 10 + b"\xff\xff" + ip.packed, str(ip))


def read_address(text: str | None) -> Address | None:
    """Reads the address of a client; None or empty: it is not known. Raises Fault."""
    if not text:
        return None
    address = parse_address(text)
    if address is None:
        raise Fault("invalid", "the address of the client is no IP address")
    return address


def known_address(text: object) -> str | None:
    """Returns the address of a connection; None: it is none, as that of a Unix socket."""
    return text if isinstance(text, str) and parse_address(text) is not None else None
