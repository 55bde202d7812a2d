"""Ports to publish, as Docker reads them."""

import re

import pytest

from woodlot.container.ports import parse_exposed, parse_publish
from woodlot.container.spec import PortSpec
from woodlot.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "ports"),
    [
        ("80", [PortSpec(container_port=80)]),
        ("8080:80", [PortSpec(container_port=80, host_port=8080)]),
        ("8080:80/tcp", [PortSpec(container_port=80, host_port=8080)]),
        ("53:53/UDP", [PortSpec(container_port=53, host_port=53, protocol="udp")]),
        (
            "127.0.0.1:8080:80",
            [PortSpec(container_port=80, host_port=8080, host_ip="127.0.0.1")],
        ),
        ("127.0.0.1::80", [PortSpec(container_port=80, host_ip="127.0.0.1")]),
        ("[::1]:8080:80", [PortSpec(container_port=80, host_port=8080, host_ip="::1")]),
        ("::1:8080:80", [PortSpec(container_port=80, host_port=8080, host_ip="::1")]),
        ("[::1]::80", [PortSpec(container_port=80, host_ip="::1")]),
        ("8000-8001:80-81", [PortSpec(container_port=80 + n, host_port=8000 + n) for n in (0, 1)]),
        ("80-81", [PortSpec(container_port=80), PortSpec(container_port=81)]),
        ("8000-8009:80", [PortSpec(container_port=80, host_port=8000, last_host_port=8009)]),
    ],
)
def test_ports(text: str, ports: list[PortSpec]) -> None:
    assert parse_publish([text]) == tuple(ports)
    assert parse_publish([text, text]) == tuple(ports)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "'' is no port"),
        ("http", "'http' is no port"),
        ("0:80", "from 1 to 65535"),
        ("80:70000", "from 1 to 65535"),
        ("9-8:9-8", "from 1 to 65535"),
        ("8000-8002:80-81", "3 ports of the host for 2"),
        ("80/sctp", "must be tcp or udp"),
        ("80/", "must be tcp or udp"),
        ("localhost:80:80", "'localhost' is no address"),
        ("1.2.3:80:80", "'1.2.3' is no address"),
        ("1-2000", "more than 1024"),
    ],
)
def test_ports_that_are_none(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        parse_publish([text])


def test_exposed_ports_that_are_not_published_yet() -> None:
    published = parse_publish(["8080:80"])
    exposed = ["80/tcp", "443", "53/udp", "80/udp", "99999", "x", "1/sctp", "90-91/tcp"]
    assert parse_exposed(exposed, published) == (
        PortSpec(container_port=443),
        PortSpec(container_port=53, protocol="udp"),
        PortSpec(container_port=80, protocol="udp"),
        PortSpec(container_port=90),
        PortSpec(container_port=91),
    )
