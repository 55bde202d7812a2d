"""Networks in the store, without a switch."""

import dataclasses
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.container.specs import quiet
from woodlot.cli.app import run_command
from woodlot.errors import (
    AlreadyExistsError,
    ConfigError,
    IntegrityError,
    NotFoundError,
    UnsupportedError,
    WoodlotError,
)
from woodlot.network import egress, interfaces, network
from woodlot.network.switch import Port, build_argv, find_program
from woodlot.paths import Paths
from woodlot.store.store import Store

HOST = [
    ("lo", "127.0.0.0/8"),
    ("lan0", "10.86.8.0/22"),
    ("lan0", "fd01:4579:e05:4::/64"),
    ("lan0", "fe80::/64"),
]


@pytest.fixture(autouse=True)
def quiet_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    quiet(monkeypatch, tmp_path)
    monkeypatch.setattr(interfaces, "find_subnets", lambda: HOST)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(Paths(data=tmp_path / "data", runtime=tmp_path))
    yield store
    store.close()


def test_the_default_network_is_always_there(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    assert network.find(store, "default").subnet == "10.86.0.0/24"
    monkeypatch.setenv("WOODLOT_NETWORK_SUBNET", "192.168.7.0/24")
    assert [one.subnet for one in network.find_all(store)] == ["192.168.7.0/24"]
    monkeypatch.setenv("WOODLOT_NETWORK_SUBNET", "8.8.8.0/24")
    with pytest.raises(ConfigError, match="the setting network.subnet must be of private"):  # noqa: RUF043
        network.find(store, "default")


def test_networks_are_made_with_subnets_of_their_own(store: Store) -> None:
    first = network.create(store, "one", internal=True, labels={"a": "b"})
    assert (first.subnet, first.internal, first.labels) == ("10.86.1.0/24", True, {"a": "b"})
    assert first.subnet_v6 == "fd01:4579:e05:1::/64"
    network.create(store, "two", subnet="10.86.2.0/23")
    assert network.create(store, "three").subnet == "10.86.4.0/24"
    assert [one.name for one in network.find_all(store)] == ["default", "one", "two", "three"]
    assert network.find(store, "one") == first
    assert len({one.id for one in network.find_all(store)}) == 4
    store.networks.delete(first.id)
    assert network.create(store, "four").subnet == "10.86.1.0/24"


@pytest.mark.parametrize(
    ("name", "subnet", "kind", "said"),
    [
        ("default", None, ConfigError, "is there always"),
        ("none", None, ConfigError, "is there always"),
        ("one", None, AlreadyExistsError, "there is a network one already"),
        ("", None, ConfigError, "cannot be named ''"),
        ("a/b", None, ConfigError, "cannot be named 'a/b'"),
        ("a,b", None, ConfigError, "cannot be named"),
        ("two", "10.86.0.128/25", ConfigError, "overlaps that of network default"),
        ("two", "10.0.0.0/8", ConfigError, "overlaps"),
        (
            "two",
            "10.86.9.0/24",
            ConfigError,
            "overlaps that of this host's interface lan0, 10.86.8.0/22",
        ),
        ("two", "10.1.0.1/24", ConfigError, "has host bits set"),
        ("two", "10.1.0.0/30", ConfigError, "from /8 to /28"),
        ("two", "fd00::/64", ConfigError, "cannot be 'fd00::/64'"),
        ("two", "127.1.0.0/16", ConfigError, "private"),
        ("two", "169.254.0.0/16", ConfigError, "private"),
        ("two", "93.184.0.0/16", ConfigError, "private"),
    ],
)
def test_networks_that_cannot_be(
    store: Store, name: str, subnet: str | None, kind: type[WoodlotError], said: str
) -> None:
    network.create(store, "one")
    with pytest.raises(kind) as caught:
        network.create(store, name, subnet=subnet)
    assert said in caught.value.message
    assert len(store.networks.list()) == 1


def test_free_subnets_are_not_the_hosts(store: Store) -> None:
    made = [network.create(store, f"n{n}") for n in range(12)]
    assert [one.subnet.split(".")[2] for one in made] == [
        "1", "2", "3", "4", "5", "6", "7", "12", "13", "14", "15", "16",
    ]  # fmt: skip
    assert [one.subnet_v6 for one in made[2:4]] == ["fd01:4579:e05:3::/64", "fd01:4579:e05:5::/64"]


def test_ipv6(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    network.create(store, "one", subnet_v6="FD01:4579:e05:1:0::/64")
    network.create(store, "two")
    network.create(store, "three", ipv6=False)
    assert [one.subnet_v6 for one in network.find_all(store)] == [
        "fd01:4579:e05::/64",
        "fd01:4579:e05:1::/64",
        "fd01:4579:e05:2::/64",
        "",
    ]
    monkeypatch.setenv("WOODLOT_NETWORK_SUBNET_V6", "none")
    assert network.find(store, "default").subnet_v6 == ""
    assert network.create(store, "four").subnet_v6 == "fd01:4579:e05::/64"
    with pytest.raises(ConfigError, match="contradict"):
        network.create(store, "five", ipv6=False, subnet_v6="fd02::/64")


@pytest.mark.parametrize(
    ("subnet", "said"),
    [
        ("fd01:4579:e05::/64", "overlaps that of network default"),
        ("fd01:4579:e05:4::/64", "overlaps that of this host's interface lan0"),
        ("fd02::1/64", "has host bits set"),
        ("fd02::/56", "must be a /64"),
        ("2001:db8::/64", "of unique local addresses"),
        ("fe80::/64", "of unique local addresses"),
        ("10.0.0.0/8", "cannot be '10.0.0.0/8'"),
    ],
)
def test_ipv6_subnets_that_cannot_be(store: Store, subnet: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        network.create(store, "one", subnet_v6=subnet)
    assert said in caught.value.message
    assert store.networks.list() == []


def test_what_may_be_reached_beyond_a_network(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    network.create(store, "said", egress=egress.parse("allow=Example.org"))
    network.create(store, "unsaid")
    assert [one.egress for one in network.find_all(store)] == ["all", "allow=example.org", "all"]
    monkeypatch.setenv("WOODLOT_NETWORK_EGRESS", "none")
    assert [one.egress for one in network.find_all(store)] == ["none", "allow=example.org", "none"]
    monkeypatch.setenv("WOODLOT_NETWORK_EGRESS", "some")
    with pytest.raises(ConfigError, match=r"the setting network\.egress cannot be 'some'"):
        network.find(store, "default")


@pytest.mark.parametrize(
    ("platform", "uid", "tun", "said"),
    [
        ("linux", 1000, "/dev/null", "the network driver bridge needs root"),
        ("linux", 0, "/nowhere", "needs /nowhere, which is not there"),
        ("darwin", 0, "/dev/null", "is Linux's alone"),
    ],
)
def test_a_bridge_is_not_for_everybody(
    store: Store, monkeypatch: pytest.MonkeyPatch, *, platform: str, uid: int, tun: str, said: str
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    monkeypatch.setattr(network, "_TUN", Path(tun))
    with pytest.raises(UnsupportedError) as caught:
        network.create(store, "fast", driver=network.Driver.BRIDGE)
    assert said in caught.value.message
    assert store.networks.list() == []


def test_the_driver_is_remembered(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "check_driver", lambda _: None)
    network.create(store, "fast", driver=network.Driver.BRIDGE)
    assert network.find(store, "fast").driver is network.Driver.BRIDGE
    # Of a version that knew no drivers.
    store.networks.insert("1" * 64, "old", {"subnet": "10.99.0.0/24", "labels": {}})
    assert network.find(store, "old").driver is network.Driver.SWITCH
    store.networks.insert("2" * 64, "odd", {"subnet": "10.98.0.0/24", "labels": {}, "driver": 7})
    with pytest.raises(IntegrityError, match="network odd is damaged"):
        network.find(store, "odd")


def test_one_that_is_not_there(store: Store) -> None:
    with pytest.raises(NotFoundError) as caught:
        network.find(store, "back")
    assert caught.value.hint is not None
    assert "container network create back" in caught.value.hint


def test_the_switchs_command_line(tmp_path: Path) -> None:
    paths = Paths(data=tmp_path / "d", runtime=tmp_path / "r")
    one = network.Network(id="ab" * 32, name="back", subnet="10.86.1.0/24", internal=True)
    assert build_argv(Path("/bin/switch"), paths, one, 7) == [
        "/bin/switch",
        "-network", "back",
        "-subnet", "10.86.1.0/24",
        "-internal=true",
        "-driver", "switch",
        "-listen-fd", "7",
        "-socket", f"{tmp_path}/r/nabababababab.sock",
        "-lock", f"{tmp_path}/d/networks/{'ab' * 32}/lock",
    ]  # fmt: skip
    six = dataclasses.replace(one, subnet_v6="fd00:86::/64")
    assert build_argv(Path("/bin/switch"), paths, six, 7)[5:7] == ["-subnet-v6", "fd00:86::/64"]


def test_the_switch_is_part_of_the_installation() -> None:
    if sys.platform == "linux":
        assert find_program().name == "woodlot-switch"


def test_a_port_as_people_write_it() -> None:
    assert str(Port(container_port=80, host_port=8080)) == "*:8080/tcp"
    assert str(Port(container_port=80, host_ip="::1", host_port=1)) == "[::1]:1/tcp"


def run(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *argv: str
) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["container", "--root", str(root), *argv])
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/tmp")
    status = run_command()
    printed = capsys.readouterr()
    return status, printed.out, printed.err


def test_the_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def command(*argv: str) -> tuple[int, str, str]:
        return run(tmp_path / "root", monkeypatch, capsys, *argv)

    assert command("network", "create", "back", "--internal", "--label", "a=b") == (0, "back\n", "")
    assert command("network", "create", "front", "--subnet", "10.99.0.0/16")[0] == 0
    assert command("n", "ls") == (
        0,
        (
            "NETWORK  STATE  DRIVER  SUBNET        INTERNAL\n"
            "default  idle   switch  10.86.0.0/24  false\n"
            "back     idle   switch  10.86.1.0/24  true\n"
            "front    idle   switch  10.99.0.0/16  false\n"
        ),
        "",
    )
    assert command("network", "list", "-q")[1] == "default\nback\nfront\n"
    status, out, _ = command("network", "inspect", "back")
    [found] = json.loads(out)
    assert (status, found["name"], found["labels"], found["containers"]) == (
        0,
        "back",
        {"a": "b"},
        [],
    )
    assert json.loads(command("network", "list", "--format", "json")[1])[1]["id"] == found["id"]
    assert command("network", "create", "back")[0] == 1
    assert command("network", "create", "x", "--subnet", "nonsense")[0] == 64
    assert command("network", "delete", "default")[0] == 64
    assert command("network", "delete", "gone")[0] == 1
    assert command("network", "rm", "back", "gone")[:2] == (1, "back\n")
    assert command("network", "prune") == (0, "front\n", "")
    assert command("network", "list", "-q")[1] == "default\n"
    assert command("port", "web")[0] == 1
    assert command("run", "--network", "back", "127.0.0.1:1/busybox", "true")[0] == 125
