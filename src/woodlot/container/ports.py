"""Ports to publish, from what people write: ``[IP:][HOST[-LAST]:]PORT[-LAST][/PROTOCOL]``, as Docker takes it."""

import ipaddress
import re
from collections.abc import Iterable, Sequence

from woodlot.container.spec import PortSpec
from woodlot.errors import ConfigError

PROTOCOLS = ("tcp", "udp")
MAX_PORTS = 1024
_RANGE = re.compile(r"(?P<first>[0-9]{1,5})(?:-(?P<last>[0-9]{1,5}))?")
_HINT = "give it as 8080:80, 127.0.0.1:8080:80, [::1]:8080:80, 8000-8010:8000-8010 or 5353:53/udp"


def parse_publish(texts: Iterable[str]) -> tuple[PortSpec, ...]:
    """The ports of all ``--publish``, each once.

    Raises:
        ConfigError: One cannot be read, or is published twice.
    """
    ports = tuple(dict.fromkeys(port for text in texts for port in _parse(text)))
    if len(ports) > MAX_PORTS:
        raise ConfigError(f"--publish names {len(ports)} ports, more than {MAX_PORTS}")
    return ports


def parse_exposed(exposed: Iterable[str], published: Sequence[PortSpec]) -> tuple[PortSpec, ...]:
    """For ``--publish-all``: the ports an image exposes that are not published yet; what is no port is left out."""
    taken = {(port.container_port, port.protocol) for port in published}
    found: list[PortSpec] = []
    for text in exposed:
        spans, _, protocol = text.partition("/")
        protocol = protocol.lower() or "tcp"
        if protocol not in PROTOCOLS or _RANGE.fullmatch(spans) is None:
            continue
        try:
            numbers = _range(spans, text)
        except ConfigError:
            continue
        found += [
            PortSpec(container_port=number, protocol=protocol)
            for number in numbers
            if (number, protocol) not in taken
        ]
    return tuple(found[:MAX_PORTS])


def _parse(text: str) -> list[PortSpec]:
    rest, slash, protocol = text.partition("/")
    protocol = protocol.lower() if slash else "tcp"
    if protocol not in PROTOCOLS:
        raise ConfigError(
            f"--publish {text!r}: the protocol must be tcp or udp, not {protocol!r}", hint=_HINT
        )
    head, _, container_text = rest.rpartition(":")
    containers = _range(container_text, text)
    # What is before the last colon of the rest is an address, which may hold colons in brackets.
    ip_text, colon, host_text = head.rpartition(":")
    if head.endswith("]"):
        ip_text, colon, host_text = head, ":", ""
    ip = _address(ip_text, text) if colon else ""
    if not host_text:
        return [
            PortSpec(container_port=number, protocol=protocol, host_ip=ip) for number in containers
        ]
    hosts = _range(host_text, text)
    if len(containers) == 1 and len(hosts) > 1:
        return [
            PortSpec(
                container_port=containers[0],
                protocol=protocol,
                host_ip=ip,
                host_port=hosts[0],
                last_host_port=hosts[-1],
            )
        ]
    if len(hosts) != len(containers):
        raise ConfigError(
            f"--publish {text!r}: {len(hosts)} ports of the host for {len(containers)} of the container",
            hint="give ranges of one length",
        )
    return [
        PortSpec(container_port=container, protocol=protocol, host_ip=ip, host_port=host)
        for host, container in zip(hosts, containers, strict=True)
    ]


def _range(span: str, text: str) -> range:
    found = _RANGE.fullmatch(span)
    if found is None:
        raise ConfigError(f"--publish {text!r}: {span!r} is no port", hint=_HINT)
    first = int(found["first"])
    last = int(found["last"] or first)
    if not 1 <= first <= last <= 65535:
        raise ConfigError(f"--publish {text!r}: ports are from 1 to 65535, got {span}", hint=_HINT)
    return range(first, last + 1)


def _address(ip: str, text: str) -> str:
    if ip.startswith("[") and ip.endswith("]"):
        ip = ip[1:-1]
    if not ip:
        return ""
    try:
        return str(ipaddress.ip_address(ip))
    except ValueError:
        raise ConfigError(
            f"--publish {text!r}: {ip!r} is no address of this host", hint=_HINT
        ) from None
