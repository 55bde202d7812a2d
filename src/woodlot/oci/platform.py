"""Platforms: operating system, architecture and variant.

Source: OCI image-spec, image-index.md, "Platform Variants".
"""

import os as host_os
import re
from collections.abc import Iterable

from woodlot.errors import ConfigError
from woodlot.values import dataclass

_ALIASES = {
    "x86_64": ("amd64", None),
    "x86-64": ("amd64", None),
    "aarch64": ("arm64", None),
    "armhf": ("arm", "v7"),
    "armel": ("arm", "v6"),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "i386": ("386", None),
    "i686": ("386", None),
}
# The variant that an architecture has when none is given.
_BASELINE = {"amd64": "v1", "arm64": "v8", "arm": "v7"}
_ARCHITECTURES = frozenset(
    ("amd64", "arm64", "arm", "386", "riscv64", "ppc64le", "s390x", "mips64le", "loong64")
)
_WORD = re.compile(r"[a-z0-9_.-]{1,64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """A platform with aliases resolved; made by `make_platform` or `parse_platform`."""

    os: str
    architecture: str
    variant: str | None = None
    """None is the architecture's baseline: ``arm64`` is ``arm64/v8``."""

    def __str__(self) -> str:
        """``os/arch[/variant]``."""
        variant = f"/{self.variant}" if self.variant else ""
        return f"{self.os}/{self.architecture}{variant}"


def make_platform(os: str, architecture: str, variant: str | None = None) -> Platform:
    """The platform with its aliases resolved."""
    os, architecture = os.lower(), architecture.lower()
    variant = variant.lower() if variant else None
    if architecture in _ALIASES:
        architecture, implied = _ALIASES[architecture]
        variant = variant or implied
    if variant and variant.isdecimal():
        variant = f"v{variant}"
    if variant == _BASELINE.get(architecture):
        variant = None
    return Platform(os=os, architecture=architecture, variant=variant)


def parse_platform(text: str) -> Platform:
    """The platform that ``os/arch[/variant]`` names; an architecture alone is of Linux.

    Raises:
        ConfigError: ``text`` names no platform.
    """
    parts = text.lower().split("/")
    if len(parts) == 1 and make_platform("linux", parts[0]).architecture in _ARCHITECTURES:
        parts = ["linux", parts[0]]
    if len(parts) not in {2, 3} or not all(_WORD.fullmatch(part) for part in parts):
        raise ConfigError(
            f"{text[:100]!r} is not a platform", hint="use os/arch[/variant], such as linux/arm64"
        )
    return make_platform(*parts)


def host() -> Platform:
    """The platform that runs here without emulation: Linux on this machine's processor."""
    return make_platform("linux", host_os.uname().machine)


def rank(wanted: Platform, offered: Platform) -> int | None:
    """How well ``offered`` runs on ``wanted``: 0 is exact, more is older, None is not at all."""
    if (wanted.os, wanted.architecture) != (offered.os, offered.architecture):
        return None
    if wanted.variant == offered.variant:
        return 0
    want, have = _level(wanted), _level(offered)
    if want is None or have is None or have > want:
        return None
    return want - have


def choose(wanted: Platform, offered: Iterable[Platform | None]) -> int | None:
    """Index of the best platform of ``offered`` for ``wanted``, the first of equals; None if none fits."""
    best: tuple[int, int] | None = None
    for index, candidate in enumerate(offered):
        score = rank(wanted, candidate) if candidate is not None else None
        if score is not None and (best is None or score < best[0]):
            best = (score, index)
    return best[1] if best else None


def _level(platform: Platform) -> int | None:
    variant = platform.variant or _BASELINE.get(platform.architecture, "v0")
    match = re.fullmatch(r"v([0-9]{1,3})", variant)
    return int(match[1]) if match else None
