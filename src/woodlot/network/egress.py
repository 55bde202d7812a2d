"""What a container may reach beyond its network, as people write it: ``all``, ``none`` or ``allow=`` and a list.

    allow=example.org,*.example.com:443,198.51.100.0/24,[2001:db8::1]:53

A name allows the addresses that it resolves to. ``*.example.com`` is all names below example.com, and not itself.
"""

import ipaddress
import re
from collections.abc import Iterable

from woodlot.errors import ConfigError
from woodlot.values import dataclass

MAX_RULES = 256
# Names without a dot are containers', which are always reached.
_NAME = re.compile(
    r"(\*\.)?([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.)+[a-z]([a-z0-9-]{0,61}[a-z0-9])?"
)
_HINT = "give it as all, none or allow=example.org:443,*.example.org,198.51.100.0/24"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Addresses or a name, and a port."""

    host: str
    """CIDR notation, or a name in lower case."""
    is_name: bool
    port: int = 0
    """0 for every port."""

    def __str__(self) -> str:
        if not self.port:
            return self.host
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Egress:
    """A policy; as text it is what `parse` reads."""

    rules: tuple[Rule, ...] | None = None
    """What is allowed; None is everything."""

    def __str__(self) -> str:
        if self.rules is None:
            return "all"
        return "allow=" + ",".join(map(str, self.rules)) if self.rules else "none"


def parse(text: str, *, what: str = "--egress") -> Egress:
    """The policy that a text stands for.

    Raises:
        ConfigError: It cannot be read.
    """
    return join((text,), what=what)


def join(texts: Iterable[str], *, what: str = "--egress") -> Egress:
    """The policy of several texts: what any ``allow=`` of them allows; ``all`` and ``none`` stand alone.

    Raises:
        ConfigError: One cannot be read.
    """
    texts = tuple(texts)
    if texts in {("all",), ("none",)}:
        return Egress(rules=None if texts == ("all",) else ())
    rules: dict[Rule, None] = {}
    for text in texts:
        listed = text.removeprefix("allow=")
        if text in {"all", "none"}:
            raise ConfigError(f"{what} {text} cannot be combined with anything")
        if listed == text or not listed:
            raise ConfigError(f"{what} cannot be {text!r}", hint=_HINT)
        rules.update(dict.fromkeys(_parse_rule(part, what) for part in listed.split(",")))
    if len(rules) > MAX_RULES:
        raise ConfigError(f"{what} allows {len(rules)} things, more than {MAX_RULES}")
    return Egress(rules=tuple(rules))


def _parse_rule(text: str, what: str) -> Rule:
    host, port = text, ""
    if text.startswith("["):
        host, closed, rest = text[1:].partition("]")
        if not closed or (rest and not rest.startswith(":")):
            raise ConfigError(f"{what}: {text!r} is neither an address nor a name", hint=_HINT)
        port = rest[1:]
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    if text.endswith(":") or (port and not (port.isascii() and port.isdecimal())):
        raise ConfigError(f"{what}: {port!r} of {text!r} is no port", hint=_HINT)
    number = int(port or 0)
    if port and not 1 <= number <= 65535:
        raise ConfigError(f"{what}: ports are from 1 to 65535, got {port}")
    name = host.lower().removesuffix(".")
    if len(name) <= 253 and _NAME.fullmatch(name):
        return Rule(host=name, is_name=True, port=number)
    return Rule(host=_parse_addresses(host, what), is_name=False, port=number)


def _parse_addresses(text: str, what: str) -> str:
    try:
        addresses = ipaddress.ip_network(text)
    except ValueError as error:
        if "/" in text and "host bits" in str(error):
            raise ConfigError(f"{what}: {error}") from error
        raise ConfigError(
            f"{what}: {text!r} is neither an address nor a name", hint=_HINT
        ) from None
    if addresses.is_loopback or addresses.is_link_local or addresses.is_multicast:
        raise ConfigError(
            f"{what}: {text} is never reached from a container",
            hint="what listens on the host's loopback is reached as host.container.internal, "
            "for the ports of the setting network.host_ports",
        )
    return str(addresses)
