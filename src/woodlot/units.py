"""Sizes and times as people write them."""

import re
from datetime import UTC, datetime

from woodlot.errors import ConfigError

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30

_SIZE = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>[kmgtp]?)i?b?", re.IGNORECASE)
_AGE = re.compile(r"(?:\d+(?:\.\d+)?[smhd])+")
_AGE_PART = re.compile(r"(\d+(?:\.\d+)?)([smhd])")
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


_DURATION = re.compile(r"(?P<number>\d+(?:\.\d+)?)(?P<unit>ns|us|µs|ms|s|m|h)")
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_duration(text: str, *, what: str = "duration") -> float:
    """Seconds in a duration such as ``30s``, ``1m30s`` or ``500ms``, as Go writes them; ``0`` needs no unit.

    Raises:
        ConfigError: ``text`` is no such duration, or negative.
    """
    if text == "0":
        return 0.0
    parts = list(_DURATION.finditer(text))
    if not parts or "".join(part[0] for part in parts) != text:
        raise ConfigError(
            f"{what} must be a duration such as 30s or 1m30s, got {text!r}",
            hint="use numbers with the units h, m, s or ms",
        )
    return sum(float(part["number"]) * _SECONDS[part["unit"]] for part in parts)


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


def format_age(seconds: float) -> str:
    """How long something took or lasts, roughly, in Docker's words: ``About a minute``, ``3 weeks``."""
    whole = int(seconds)
    hours = round(whole / 3600)
    days = hours // 24
    for fits, text in (
        (whole < 1, "Less than a second"),
        (whole == 1, "1 second"),
        (whole < 60, f"{whole} seconds"),
        (whole < 120, "About a minute"),
        (whole < 3600, f"{whole // 60} minutes"),
        (hours == 1, "About an hour"),
        (hours < 48, f"{hours} hours"),
        (days < 14, f"{days} days"),
        (days < 60, f"{days // 7} weeks"),
        (days < 730, f"{days // 30} months"),
    ):
        if fits:
            return text
    return f"{days // 365} years"


def parse_moment(text: str, now: float) -> float:
    """Seconds since 1970 of an age before ``now`` such as ``1h30m``, a date of ISO 8601, or a number of such seconds.

    Raises:
        ConfigError: ``text`` is none of these.
    """
    try:
        if _AGE.fullmatch(text):
            parts = _AGE_PART.findall(text)
            return now - sum(float(number) * _SECONDS[unit] for number, unit in parts)
        if re.fullmatch(r"\d{1,12}(\.\d{1,9})?", text):
            return float(text)
        # Without a zone it is local time, as Docker takes it.
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        raise ConfigError(
            f"{text!r} is no time", hint="write 10m, 2026-01-31T10:00:00Z or seconds since 1970"
        ) from None
