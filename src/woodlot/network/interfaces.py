"""The subnets that the host's own interfaces are in: a network of ours that had one would hide the machines there."""

import contextlib
import fcntl
import ipaddress
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

# linux/sockios.h and linux/if.h: a name of 16 bytes, then an address.
_SIOCGIFADDR, _SIOCGIFNETMASK = 0x8915, 0x891B
_IFREQ = struct.Struct("16s4x4s16x")
_IF_INET6 = Path("/proc/net/if_inet6")


def find_subnets() -> list[tuple[str, str]]:
    """Names of interfaces, each with a subnet of either family; none where this is not known how to be asked."""
    if sys.platform != "linux":
        return []
    return [*_find_v4(), *_find_v6()]


def _find_v4() -> Iterator[tuple[str, str]]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:

        def ask(request: int, name: str) -> str:
            answer = fcntl.ioctl(any_socket, request, _IFREQ.pack(name.encode(), b""))
            return socket.inet_ntoa(_IFREQ.unpack(answer)[1])

        for _, name in socket.if_nameindex():
            # It has no address, or is gone by now.
            with contextlib.suppress(OSError):
                address = f"{ask(_SIOCGIFADDR, name)}/{ask(_SIOCGIFNETMASK, name)}"
                yield name, str(ipaddress.IPv4Network(address, strict=False))


def _find_v6() -> Iterator[tuple[str, str]]:
    try:
        lines = _IF_INET6.read_text().splitlines()
    except OSError:
        # The kernel has no IPv6.
        return
    for line in lines:
        # proc(5): address, index, length of the prefix, scope, flags, name; all but the name hexadecimal.
        digits, _, length, _, _, name = line.split()
        address = ipaddress.IPv6Address(bytes.fromhex(digits))
        yield name, str(ipaddress.IPv6Network((address, int(length, 16)), strict=False))
