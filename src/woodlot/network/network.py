"""What a network is: a name, a subnet, and whether there is a way out. Two always exist: ``default`` and ``none``."""

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import field
from enum import StrEnum, auto
from pathlib import Path

from woodlot import settings
from woodlot.errors import (
    ConfigError,
    IntegrityError,
    NotFoundError,
    UnsupportedError,
)
from woodlot.network import interfaces, subnets
from woodlot.network.egress import Egress
from woodlot.network.egress import parse as parse_egress
from woodlot.store.networks import NetworkRecord
from woodlot.store.store import Store
from woodlot.values import dataclass

DEFAULT = "default"
NONE = "none"
_TUN = Path("/dev/net/tun")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")


class Driver(StrEnum):
    """What carries frames from container to container."""

    SWITCH = auto()
    """The network's switch, a process of the user."""
    BRIDGE = auto()
    """A bridge of the host's kernel, which root alone can make."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """A network that containers can be attached to."""

    id: str
    name: str
    subnet: str
    """CIDR notation, IPv4."""
    subnet_v6: str = ""
    """CIDR notation; empty without IPv6."""
    internal: bool = False
    """Nothing beyond it can be reached."""
    egress: str = "all"
    """What containers that do not say otherwise may reach beyond it, as `woodlot.network.egress`."""
    driver: Driver = Driver.SWITCH
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    created_at: float = 0.0
    """Seconds since 1970; 0 for the default network."""


def find(store: Store, name: str) -> Network:
    """The network of that name, of that id or of the start of one id only; a name comes first.

    Raises:
        NotFoundError: There is none.
        ConfigError: Several ids start so.
    """
    if name == DEFAULT:
        return default()
    record = store.networks.find(name)
    if record is None:
        raise NotFoundError(
            f"there is no network {name}",
            hint=f"make it with `container network create {name}`, or list what there is with"
            " `container network list`",
        )
    return _from_record(record)


def find_all(store: Store) -> list[Network]:
    """The default network, then those that were made, oldest first."""
    return [default(), *(_from_record(record) for record in store.networks.list())]


def default() -> Network:
    """The network of containers that name none."""
    subnet = subnets.parse(settings.get_str("network.subnet"), what="the setting network.subnet")
    text = settings.get_str("network.subnet_v6")
    subnet_v6 = "" if text == NONE else subnets.parse_v6(text, what="the setting network.subnet_v6")
    return Network(
        id=DEFAULT, name=DEFAULT, subnet=subnet, subnet_v6=subnet_v6, egress=_default_egress()
    )


def _default_egress() -> str:
    text = settings.get_str("network.egress")
    return str(parse_egress(text, what="the setting network.egress"))


def create(
    store: Store,
    name: str,
    *,
    subnet: str | None = None,
    ipv6: bool = True,
    subnet_v6: str | None = None,
    internal: bool = False,
    egress: Egress | None = None,
    driver: Driver = Driver.SWITCH,
    labels: Mapping[str, str] | None = None,
) -> Network:
    """Make a network; nothing runs until a container is attached.

    Without ``egress`` it has that of the setting ``network.egress``. Subnets that are not given are free ones.

    Raises:
        AlreadyExistsError: The name is taken.
        ConfigError: The name or a subnet cannot be used.
        UnsupportedError: The driver is none for this user or this host.
    """
    check_name(name)
    check_driver(driver)
    if subnet_v6 and not ipv6:
        raise ConfigError("--subnet-v6 and --no-ipv6 contradict each other")
    if name in {DEFAULT, NONE}:
        raise ConfigError(f"the network {name} is there always", hint="choose another name")
    taken, taken_v6 = _find_taken(store)
    chosen = subnets.choose(subnet, taken)
    network_id = os.urandom(32).hex()
    spec: dict[str, object] = {
        "subnet": chosen,
        "internal": internal,
        "driver": driver.value,
        "labels": dict(labels or {}),
    }
    if ipv6:
        spec["subnet_v6"] = subnets.choose_v6(subnet_v6, taken_v6)
    if egress is not None:
        spec["egress"] = str(egress)
    store.networks.insert(network_id, name, spec)
    return find(store, name)


def _find_taken(store: Store) -> tuple[dict[str, str], dict[str, str]]:
    """Subnets that a new network must not overlap, of IPv4 and of IPv6, and whose they are."""
    others = find_all(store)
    owners = [
        (subnet, f"this host's interface {name}") for name, subnet in interfaces.find_subnets()
    ]
    owners += [(one.subnet, f"network {one.name}") for one in others]
    owners += [(one.subnet_v6, f"network {one.name}") for one in others if one.subnet_v6]
    taken = dict(owners)
    return (
        {subnet: owner for subnet, owner in taken.items() if ":" not in subnet},
        {subnet: owner for subnet, owner in taken.items() if ":" in subnet},
    )


def check_name(name: str) -> None:
    """See that a network can have the name.

    Raises:
        ConfigError: It cannot.
    """
    if _NAME.fullmatch(name) is None:
        raise ConfigError(
            f"a network cannot be named {name!r}",
            hint="use up to 63 letters, digits, '_', '.' and '-', beginning with a letter or digit",
        )


def check_driver(driver: Driver) -> None:
    """See that this user can use the driver here.

    Raises:
        UnsupportedError: They cannot.
    """
    if driver is not Driver.BRIDGE:
        return
    hint = f"leave --driver out: the driver {Driver.SWITCH} does the same for every user"
    if sys.platform != "linux":
        raise UnsupportedError("the network driver bridge is Linux's alone", hint=hint)
    if os.geteuid() != 0:
        raise UnsupportedError("the network driver bridge needs root", hint=hint)
    if not _TUN.exists():
        raise UnsupportedError(
            f"the network driver bridge needs {_TUN}, which is not there", hint="modprobe tun"
        )


def _from_record(record: NetworkRecord) -> Network:
    spec, labels = record.spec, record.spec.get("labels")
    # Networks made by the first versions have no driver.
    driver = spec.get("driver", Driver.SWITCH)
    if (
        not isinstance(spec.get("subnet"), str)
        or not isinstance(labels, dict)
        or driver not in tuple(Driver)
    ):
        raise IntegrityError(f"the record of network {record.name} is damaged")
    return Network(
        id=record.id,
        name=record.name,
        subnet=str(spec["subnet"]),
        subnet_v6=str(spec.get("subnet_v6", "")),
        internal=spec.get("internal") is True,
        egress=str(spec["egress"]) if "egress" in spec else _default_egress(),
        driver=Driver(str(driver)),
        labels={str(key): str(value) for key, value in labels.items()},  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        created_at=record.created_at.timestamp(),
    )
