"""What a network is: a name, a subnet, and whether there is a way out. Two always exist: ``default`` and ``none``."""

import ipaddress
import os
import re
import secrets
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum, auto
from pathlib import Path

from woodlot import settings
from woodlot.errors import (
    ConfigError,
    IntegrityError,
    LimitError,
    NotFoundError,
    UnsupportedError,
)
from woodlot.network.egress import Egress
from woodlot.network.egress import parse as parse_egress
from woodlot.store.networks import NetworkRecord
from woodlot.store.store import Store

DEFAULT = "default"
NONE = "none"
# Subnets of networks that ask for none; the first one is the default network's unless that is set otherwise.
_POOL = ipaddress.IPv4Network("10.86.0.0/16")
_POOL_PREFIX = 24
# As the switch: the gateway and the host take one address each.
_PREFIXES = range(8, 29)
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
    internal: bool = False
    """Nothing beyond it can be reached."""
    egress: str = "all"
    """What containers that do not say otherwise may reach beyond it, as `woodlot.network.egress`."""
    driver: Driver = Driver.SWITCH
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    created_at: float = 0.0
    """Seconds since 1970; 0 for the default network."""


def find(store: Store, name: str) -> Network:
    """The network of that name.

    Raises:
        NotFoundError: There is none.
    """
    if name == DEFAULT:
        return default()
    record = store.networks.get(name)
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
    subnet = parse_subnet(settings.get_str("network.subnet"), what="the setting network.subnet")
    return Network(id=DEFAULT, name=DEFAULT, subnet=subnet, egress=_default_egress())


def _default_egress() -> str:
    text = settings.get_str("network.egress")
    return str(parse_egress(text, what="the setting network.egress"))


def create(
    store: Store,
    name: str,
    *,
    subnet: str | None = None,
    internal: bool = False,
    egress: Egress | None = None,
    driver: Driver = Driver.SWITCH,
    labels: Mapping[str, str] | None = None,
) -> Network:
    """Make a network; nothing runs until a container is attached.

    Without ``egress`` it has that of the setting ``network.egress``.

    Raises:
        AlreadyExistsError: The name is taken.
        ConfigError: The name or the subnet cannot be used.
        UnsupportedError: The driver is none for this user or this host.
    """
    check_name(name)
    check_driver(driver)
    if name in {DEFAULT, NONE}:
        raise ConfigError(f"the network {name} is there always", hint="choose another name")
    taken = [(other.name, ipaddress.IPv4Network(other.subnet)) for other in find_all(store)]
    chosen = parse_subnet(subnet, what="--subnet") if subnet else _free_subnet(taken)
    for other, range_ in taken:
        if ipaddress.IPv4Network(chosen).overlaps(range_):
            raise ConfigError(
                f"the subnet {chosen} overlaps that of network {other}, {range_}",
                hint="choose another --subnet, or leave it out",
            )
    network_id = secrets.token_hex(32)
    spec: dict[str, object] = {
        "subnet": chosen,
        "internal": internal,
        "driver": driver.value,
        "labels": dict(labels or {}),
    }
    if egress is not None:
        spec["egress"] = str(egress)
    store.networks.insert(network_id, name, spec)
    return find(store, name)


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


def parse_subnet(text: str, *, what: str) -> str:
    """An IPv4 subnet in its canonical form.

    Raises:
        ConfigError: It is none that a network can have.
    """
    try:
        subnet = ipaddress.IPv4Network(text)
    except ValueError as error:
        raise ConfigError(
            f"{what} cannot be {text!r}: {error}", hint="give one as 192.168.50.0/24"
        ) from error
    if subnet.prefixlen not in _PREFIXES:
        raise ConfigError(f"{what} must be from /8 to /28, got {text}")
    if not subnet.is_private or subnet.is_loopback or subnet.is_link_local:
        raise ConfigError(
            f"{what} must be of private addresses, got {text}",
            hint="give one below 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16",
        )
    return str(subnet)


def _free_subnet(taken: Iterable[tuple[str, ipaddress.IPv4Network]]) -> str:
    ranges = [range_ for _, range_ in taken]
    for candidate in _POOL.subnets(new_prefix=_POOL_PREFIX):
        if not any(candidate.overlaps(range_) for range_ in ranges):
            return str(candidate)
    raise LimitError(
        f"no subnet of {_POOL} is free", hint="delete networks with `container network prune`"
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
        internal=spec.get("internal") is True,
        egress=str(spec["egress"]) if "egress" in spec else _default_egress(),
        driver=Driver(str(driver)),
        labels={str(key): str(value) for key, value in labels.items()},  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        created_at=record.created_at.timestamp(),
    )
