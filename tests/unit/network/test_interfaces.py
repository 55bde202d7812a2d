"""The subnets of this machine."""

import socket
from pathlib import Path

import pytest

from woodlot.network import interfaces


@pytest.mark.skipif(not Path("/proc/net/dev").exists(), reason="not Linux")
def test_loopback_is_among_them() -> None:
    found = interfaces.find_subnets()
    assert ("lo", "127.0.0.0/8") in found
    assert {name for name, _ in found} <= {name for _, name in socket.if_nameindex()}


def test_ipv6_as_the_kernel_lists_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = tmp_path / "if_inet6"
    monkeypatch.setattr(interfaces, "_IF_INET6", listed)
    monkeypatch.setattr(socket, "if_nameindex", list)
    assert interfaces.find_subnets() == []
    listed.write_text(
        "fd010203000000000000000000000002 02 40 00 02     eth0\n"
        "00000000000000000000000000000001 01 80 10 80       lo\n"
    )
    assert interfaces.find_subnets() == [("eth0", "fd01:203::/64"), ("lo", "::1/128")]
