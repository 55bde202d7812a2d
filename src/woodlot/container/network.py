"""The network of a container: the VMM's user mode, which turns its packets into connections of the host user.

The constants are those of QEMU's ``-netdev user`` (qemu-options, "user mode network stack").
"""

import hashlib
from dataclasses import dataclass
from typing import Literal

NetworkName = Literal["default", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Interface:
    """How the guest sets up its network device."""

    mac: str
    address: str
    """IPv4 address without prefix."""
    prefix_length: int
    gateway: str
    nameserver: str


def build_interface(network: str, container_id: str) -> Interface | None:
    """The container's interface, or None for a container without network.

    The address is the same in every container: each VM has a network of its own. The MAC differs, so that what a
    program derives from it differs too.
    """
    if network == "none":
        return None
    digest = hashlib.sha256(container_id.encode()).digest()
    return Interface(
        mac="52:54:00:" + ":".join(f"{byte:02x}" for byte in digest[:3]),
        address="10.0.2.15",
        prefix_length=24,
        gateway="10.0.2.2",
        nameserver="10.0.2.3",
    )
