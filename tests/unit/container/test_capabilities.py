import pytest

from woodlot.container.capabilities import ALL, DEFAULT, build_set, parse_names
from woodlot.errors import ConfigError


def mask(names: tuple[str, ...]) -> int:
    """As /proc/PID/status shows a set: the bit of each capability is its place in linux/capability.h."""
    return sum(1 << ALL.index(name) for name in names)


def chosen(add: tuple[str, ...] = (), drop: tuple[str, ...] = ()) -> tuple[str, ...]:
    return build_set(parse_names(add, flag="--cap-add"), parse_names(drop, flag="--cap-drop"))


def test_masks_are_the_kernels() -> None:
    # CapEff of a container under Docker, and CapBnd of root on Linux 6.1.
    assert mask(chosen()) == 0xA80425FB
    assert mask(chosen(add=("ALL",))) == 0x1FFFFFFFFFF


@pytest.mark.parametrize(
    ("add", "drop", "expected"),
    [
        (("NET_ADMIN",), (), DEFAULT | {"CAP_NET_ADMIN"}),
        ((), ("chown", "CAP_KILL"), DEFAULT - {"CAP_CHOWN", "CAP_KILL"}),
        ((), ("BPF",), DEFAULT),
        ((), ("ALL",), set()),
        (("KILL",), ("ALL",), {"CAP_KILL"}),
        (("ALL",), ("SYS_ADMIN",), set(ALL) - {"CAP_SYS_ADMIN"}),
        (("ALL",), ("ALL",), set(ALL)),
        # Apple's order, drops last; Docker's would give it.
        (("KILL",), ("KILL",), DEFAULT - {"CAP_KILL"}),
    ],
)
def test_adds_and_drops(
    add: tuple[str, ...], drop: tuple[str, ...], expected: set[str] | frozenset[str]
) -> None:
    names = chosen(add, drop)
    assert set(names) == expected
    assert list(names) == sorted(names, key=ALL.index)


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("NET_ADMIN", "CAP_NET_ADMIN"),
        ("cap_net_admin", "CAP_NET_ADMIN"),
        (" Net_Admin ", "CAP_NET_ADMIN"),
        ("all", "ALL"),
        ("CAP_ALL", "ALL"),
    ],
)
def test_spellings(written: str, name: str) -> None:
    assert parse_names([written], flag="--cap-add") == (name,)


@pytest.mark.parametrize("written", ["", "CAP_", "NET-ADMIN", "CAP_CAP_KILL", "KILL,CHOWN"])
def test_unknown_names(written: str) -> None:
    with pytest.raises(ConfigError, match="--cap-drop: there is no capability"):
        parse_names(["KILL", written], flag="--cap-drop")
