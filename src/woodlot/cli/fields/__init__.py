"""The fields that Docker's templates name, one module for each kind of thing.

Lists and `inspect` have fields of their own, as Docker's have: ``.Labels`` of a list is a text, that of `inspect` a map.
"""

from collections.abc import Callable, Mapping
from datetime import datetime


def show_labels(labels: Mapping[str, str]) -> str:
    """``a=1,b=2``."""
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items()))


def label_of(labels: Mapping[str, str]) -> Callable[[str], str]:
    """What ``{{.Label "KEY"}}`` calls."""
    return lambda key: labels.get(key, "")


def show_local_time(seconds: float) -> str:
    """``2026-01-31 13:00:00 +0100 CET``."""
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S %z %Z")


def short_id(whole: str, *, truncate: bool) -> str:
    """The first twelve digits, or all."""
    return whole.rpartition(":")[2][:12] if truncate else whole
