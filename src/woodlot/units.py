"""Sizes and times as people write them."""

import re
from datetime import UTC, datetime

from woodlot.errors import ConfigError

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30

_SIZE = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>[kmgtp]?)i?b?", re.IGNORECASE)
_FACTOR = {"": 1, "k": KIB, "m": MIB, "g": GIB, "t": 1 << 40, "p": 1 << 50}


def parse_size(text: str, *, what: str = "size") -> int:
    """Bytes in a size such as ``512m``, ``1.5g`` or ``65536``; every unit is binary.

    Args:
        text: A number with an optional unit K, M, G, T or P, which may be followed by ``B`` or ``iB``.
        what: Name of the value, for the error.

    Raises:
        ConfigError: ``text`` is no such size, or negative.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ConfigError(
            f"{what} must be a size such as 512m or 2g, got {text!r}",
            hint="use a number with an optional unit K, M, G, T or P",
        )
    return int(float(match["number"]) * _FACTOR[match["unit"].lower()])


def format_size(size_bytes: float) -> str:
    """A size for people, in binary units with at most one decimal: ``5.2 MiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size_bytes) < 1024:
            return f"{size_bytes:.0f} B" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1024
    return f"{size_bytes:.1f} TiB"


def format_time(seconds: float) -> str:
    """A moment in seconds since 1970, as ``2026-01-31T12:00:00Z``."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
