"""The networks of a container: from what people write to what its guest is told."""

import contextlib
import hashlib
import ipaddress
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from woodlot.container.spec import HOST_GATEWAY, ContainerSpec, DnsSpec, NetworkSpec
from woodlot.errors import ConfigError, NotFoundError
from woodlot.store.store import Store

NONE = "none"
DEFAULT = "default"
MAX_NETWORKS = 8
MAX_NAMESERVERS = 8
RESOLV_CONF = Path("/etc/resolv.conf")
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_HINT = "give it as NAME, or NAME,alias=WEB,ip=10.86.1.7,mac=52:54:00:00:00:01"
_TWICE = "--network names a network twice"
_TWICE_HINT = "give it several alias= instead"
_MAX_RESOLV_CONF_BYTES = 64 << 10


def parse_networks(texts: Sequence[str]) -> tuple[NetworkSpec, ...]:
    """The networks of all ``--network``; the default one if there is none, nothing for ``none``.

    Raises:
        ConfigError: One cannot be read, is named twice, or ``none`` is not alone.
    """
    networks = tuple(_parse(text) for text in texts or (DEFAULT,))
    names = [network.network for network in networks]
    if NONE in names:
        if len(names) > 1 or networks[0] != NetworkSpec(network=NONE):
            raise ConfigError("--network none cannot be combined with anything")
        return ()
    if len(set(names)) < len(names):
        raise ConfigError(_TWICE, hint=_TWICE_HINT)
    if len(names) > MAX_NETWORKS:
        raise ConfigError(f"a container has at most {MAX_NETWORKS} networks, got {len(names)}")
    return networks


def resolve_networks(store: Store, networks: tuple[NetworkSpec, ...]) -> tuple[NetworkSpec, ...]:
    """The same with the name of each network that was given by its id; one that is not there stays as it is.

    Raises:
        ConfigError: Two are one network.
    """
    from woodlot.network import network

    resolved: list[NetworkSpec] = []
    for wanted in networks:
        name = wanted.network
        with contextlib.suppress(NotFoundError):
            name = network.find(store, name).name
        resolved.append(replace(wanted, network=name))
    if len({wanted.network for wanted in resolved}) < len(resolved):
        raise ConfigError(_TWICE, hint=_TWICE_HINT)
    return tuple(resolved)


def _parse(text: str) -> NetworkSpec:
    name, *options = text.split(",")
    name = name.removeprefix("name=")
    if not name or "=" in name:
        raise ConfigError(f"--network cannot be {text!r}", hint=_HINT)
    if name == "host":
        raise ConfigError(
            "--network host is not possible: a virtual machine has a network of its own",
            hint="publish ports with -p, and reach the host as host.container.internal",
        )
    aliases: list[str] = []
    once: dict[str, str] = {}
    for option in options:
        key, _, value = option.partition("=")
        if key == "alias":
            aliases.append(check_host_name(value, what="an alias of --network"))
        elif key in {"ip", "mac"} and key not in once:
            once[key] = _address(value) if key == "ip" else _mac(value)
        else:
            raise ConfigError(f"--network {text!r}: {option!r} is no option", hint=_HINT)
    return NetworkSpec(network=name, aliases=tuple(aliases), **once)


def _address(text: str) -> str:
    try:
        return str(ipaddress.IPv4Address(text))
    except ValueError:
        raise ConfigError(f"--network: {text!r} is no IPv4 address", hint=_HINT) from None


def _mac(text: str) -> str:
    mac = text.lower().replace("-", ":")
    if _MAC.fullmatch(mac) is None or int(mac[:2], 16) & 1 or mac == "00:00:00:00:00:00":
        raise ConfigError(f"--network: {text!r} is no address of one device", hint=_HINT)
    return mac


def check_host_name(name: str, *, what: str) -> str:
    """A name that can stand in a hosts file and be asked for.

    Raises:
        ConfigError: It cannot.
    """
    labels = name.split(".")
    if len(name) > 253 or any(_LABEL.fullmatch(label) is None for label in labels):
        raise ConfigError(
            f"{what} cannot be {name!r}",
            hint="use letters, digits, '-' and '_' between dots, up to 63 each",
        )
    return name


def parse_dns(
    *,
    hosts: Iterable[str],
    nameservers: Iterable[str],
    search: Sequence[str],
    options: Iterable[str],
    enabled: bool,
) -> DnsSpec:
    """From ``--add-host``, ``--dns``, ``--dns-search``, ``--dns-option`` and ``--no-dns``.

    Raises:
        ConfigError: One cannot be read.
    """
    servers = tuple(_nameserver(text) for text in nameservers)
    if len(servers) > MAX_NAMESERVERS:
        raise ConfigError(f"--dns names {len(servers)} servers, more than {MAX_NAMESERVERS}")
    # As Docker: one dot alone asks for no domain at all.
    domains = tuple(
        check_host_name(domain.removesuffix("."), what="--dns-search")
        for domain in search
        if domain != "."
    )
    flags = tuple(options)
    for flag in flags:
        if not flag or any(char.isspace() for char in flag):
            raise ConfigError(f"--dns-option cannot be {flag!r}", hint="give one, as ndots:2")
    return DnsSpec(
        nameservers=servers,
        search=domains if search else None,
        options=flags,
        enabled=enabled,
        hosts=tuple(_host(text) for text in hosts),
    )


def _nameserver(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise ConfigError(f"--dns must be an address, got {text!r}") from None


def _host(text: str) -> tuple[str, str]:
    # As Docker, "=" or the first colon; an IPv6 address has more of those.
    separator = "=" if "=" in text else ":"
    name, found, address = text.partition(separator)
    if not found:
        raise ConfigError(f"--add-host cannot be {text!r}", hint="give it as NAME:ADDRESS")
    check_host_name(name, what="the name of --add-host")
    if address == HOST_GATEWAY:
        return name, address
    try:
        return name, str(ipaddress.ip_address(address.strip("[]")))
    except ValueError:
        raise ConfigError(
            f"--add-host {text!r}: {address!r} is no address",
            hint=f"give an address, or {HOST_GATEWAY} for the host",
        ) from None


def parse_host_ports(text: str) -> tuple[tuple[int, int], ...]:
    """The setting ``network.host_ports``: ``5432,8000-8010``.

    Raises:
        ConfigError: It is something else.
    """
    spans: list[tuple[int, int]] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        first, _, last = part.partition("-")
        try:
            span = int(first), int(last or first)
        except ValueError:
            span = 0, 0
        if not 1 <= span[0] <= span[1] <= 65535:
            raise ConfigError(
                f"the setting network.host_ports cannot be {text!r}",
                hint="list ports from 1 to 65535, as 5432,8000-8010",
            )
        spans.append(span)
    return tuple(spans)


def build_mac(container_id: str, network: str) -> str:
    """The container's MAC in a network: the same at each start, and like no other's.

    A program that derives something from it (a machine id, a UUID) has something of its own.
    """
    # 52:54:00 is what QEMU uses; the bit for "locally administered" is in it.
    key = container_id if network == DEFAULT else f"{container_id} {network}"
    digest = hashlib.sha256(key.encode()).digest()
    return "52:54:00:" + ":".join(f"{byte:02x}" for byte in digest[:3])


def names_of(spec: ContainerSpec, network: NetworkSpec) -> tuple[str, ...]:
    """What other containers of the network may call the container: its name first."""
    names = (spec.name, *network.aliases, spec.id[:12], spec.hostname)
    return tuple(dict.fromkeys(name for name in names if name))


def host_search_domains(path: Path = RESOLV_CONF) -> tuple[str, ...]:
    """The domains in which the host looks up short names; none if they cannot be read."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            text = file.read(_MAX_RESOLV_CONF_BYTES)
    except OSError:
        return ()
    domains: tuple[str, ...] = ()
    for line in text.splitlines():
        words = line.split()
        # The last line of either kind wins, resolv.conf(5).
        if len(words) > 1 and words[0] in {"search", "domain"}:
            domains = tuple(words[1:])
    return tuple(domain for domain in domains if domain != ".")
