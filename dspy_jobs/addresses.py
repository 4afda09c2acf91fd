"""What a host's name or address says of who can reach it."""

from __future__ import annotations

from ipaddress import ip_address


def is_loopback(host: str) -> bool:
    """Whether only this machine can be meant by it."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_wildcard(host: str) -> bool:
    """Whether a server that listens there listens on every address of this machine."""
    try:
        return ip_address(host).is_unspecified
    except ValueError:
        return not host
