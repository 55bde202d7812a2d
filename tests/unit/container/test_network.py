"""From what people write about networks to values."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from tests.unit.container.specs import WEB
from woodlot.container.network import (
    build_mac,
    host_search_domains,
    names_of,
    parse_dns,
    parse_host_ports,
    parse_networks,
)
from woodlot.container.spec import DnsSpec, NetworkSpec
from woodlot.errors import ConfigError


@pytest.mark.parametrize(
    ("texts", "networks"),
    [
        ([], [NetworkSpec(network="default")]),
        (["none"], []),
        (["back"], [NetworkSpec(network="back")]),
        (["name=back"], [NetworkSpec(network="back")]),
        (
            ["a,alias=x,alias=y.z,ip=10.86.1.7,mac=52-54-00-00-00-0A", "b"],
            [
                NetworkSpec(
                    network="a", aliases=("x", "y.z"), ip="10.86.1.7", mac="52:54:00:00:00:0a"
                ),
                NetworkSpec(network="b"),
            ],
        ),
    ],
)
def test_networks(texts: list[str], networks: list[NetworkSpec]) -> None:
    assert parse_networks(texts) == tuple(networks)


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        ([""], "cannot be ''"),
        (["host"], "network of its own"),
        (["none", "a"], "cannot be combined"),
        (["none,alias=x"], "cannot be combined"),
        (["a", "a"], "twice"),
        ([f"n{number}" for number in range(9)], "at most 8"),
        (["a,alias="], "alias of --network cannot be ''"),
        (["a,alias=x y"], "'x y'"),
        (["a,ip=10.86.1"], "'10.86.1' is no IPv4"),
        (["a,ip=fd00::1"], "'fd00::1' is no IPv4"),
        (["a,ip=10.0.0.1,ip=10.0.0.2"], "'ip=10.0.0.2' is no option"),
        (["a,mac=01:00:5e:00:00:01"], "no address of one device"),
        (["a,mac=x"], "no address of one device"),
        (["a,color=blue"], "'color=blue' is no option"),
    ],
)
def test_networks_that_are_none(texts: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        parse_networks(texts)


def test_dns() -> None:
    assert parse_dns(
        hosts=["db:192.0.2.7", "six=[fd00::1]", "v6:fd00::2", "me:host-gateway"],
        nameservers=["192.0.2.53", "fd00::53"],
        search=["corp.example."],
        options=["ndots:2"],
        enabled=True,
    ) == DnsSpec(
        nameservers=("192.0.2.53", "fd00::53"),
        search=("corp.example",),
        options=("ndots:2",),
        hosts=(("db", "192.0.2.7"), ("six", "fd00::1"), ("v6", "fd00::2"), ("me", "host-gateway")),
    )
    nothing = parse_dns(hosts=[], nameservers=[], search=["."], options=[], enabled=False)
    assert nothing == DnsSpec(search=(), enabled=False)


@pytest.mark.parametrize(
    "wrong",
    [
        {"hosts": ["db"]},
        {"hosts": ["db:"]},
        {"hosts": ["a\nb:192.0.2.1"]},
        {"hosts": ["db:192.0.2.1\n127.0.0.1 bank"]},
        {"nameservers": ["dns.example"]},
        {"nameservers": ["192.0.2.1"] * 9},
        {"search": ["a b"]},
        {"options": ["ndots:2 rotate"]},
        {"options": [""]},
    ],
)
def test_dns_that_is_none(wrong: dict[str, list[str]]) -> None:
    lists: dict[str, list[str]] = {"hosts": [], "nameservers": [], "search": [], "options": []}
    with pytest.raises(ConfigError):
        parse_dns(**{**lists, **wrong}, enabled=True)


def test_ports_of_the_hosts_loopback() -> None:
    assert parse_host_ports("") == ()
    assert parse_host_ports(" 5432, 8000-8010 ,") == ((5432, 5432), (8000, 8010))
    for wrong in ("0", "70000", "9-8", "x", "1-2-3"):
        with pytest.raises(ConfigError, match=r"network\.host_ports"):
            parse_host_ports(wrong)


def test_each_container_has_a_mac_of_its_own_in_each_network_and_keeps_it() -> None:
    keys = [(f"{number:064x}", network) for number in range(25) for network in ("default", "back")]
    macs = [build_mac(*key) for key in keys]
    assert len(set(macs)) == 50
    assert all(re.fullmatch(r"52:54:00(:[0-9a-f]{2}){3}", mac) for mac in macs)
    assert [build_mac(*key) for key in keys] == macs
    # SHA-256("abc") begins with ba7816.
    assert build_mac("abc", "default") == "52:54:00:ba:78:16"


def test_names_others_may_use() -> None:
    spec = replace(WEB, hostname="web.example")
    network = NetworkSpec(network="default", aliases=("www", "web"))
    assert names_of(spec, network) == ("web", "www", "ab" * 6, "web.example")


def test_search_domains_of_the_host(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    assert host_search_domains(path) == ()
    path.write_text("domain a\nnameserver 192.0.2.1\nsearch b c\n# search d\nsearch\n")
    assert host_search_domains(path) == ("b", "c")
    path.write_text("search .\n")
    assert host_search_domains(path) == ()
