"""What a guest says, in values that need no gRPC: loading that takes longer than starting a monitor."""

from typing import TypeAlias

from woodlot.values import dataclass

_MAX_TEXT = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """The process runs."""

    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """Bytes the process wrote."""

    data: bytes
    stderr: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Exited:
    """The process has ended, and all its output has been delivered."""

    code: int
    """Its own status, or 128 + signal."""
    signal: int
    oom_killed: bool


Event: TypeAlias = Started | Output | Exited


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """What the guest says of itself."""

    agent_version: str
    kernel_release: str
    machine: str
    features: frozenset[str]


def clean(text: str) -> str:
    """Text from the guest, fit to be shown: one line, printable, bounded."""
    return "".join(char if char.isprintable() else " " for char in text[:_MAX_TEXT]).strip()
