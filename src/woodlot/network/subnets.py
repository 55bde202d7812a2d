"""Subnets of networks: read from what people write, or chosen from those that are free."""

import ipaddress
from collections.abc import Iterable, Mapping

from woodlot.errors import ConfigError, LimitError

# The first one of each pool is the default network's unless that is set otherwise.
_POOL = ipaddress.IPv4Network("10.86.0.0/16")
_POOL_PREFIX = 24
# Unique local addresses, with 40 bits that were chosen at random once (RFC 4193, 3.2).
_POOL_V6 = ipaddress.IPv6Network("fd01:4579:e05::/48")
_PREFIX_V6 = 64
_UNIQUE_LOCAL = ipaddress.IPv6Network("fc00::/7")
# As the switch: the gateway and the host take one address each.
_PREFIXES = range(8, 29)


def parse(text: str, *, what: str) -> str:
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


def parse_v6(text: str, *, what: str) -> str:
    """An IPv6 subnet in its canonical form.

    Raises:
        ConfigError: It is none that a network can have.
    """
    hint = "give one as fd12:3456:789a::/64"
    try:
        subnet = ipaddress.IPv6Network(text)
    except ValueError as error:
        raise ConfigError(f"{what} cannot be {text!r}: {error}", hint=hint) from error
    if subnet.prefixlen != _PREFIX_V6 or not subnet.subnet_of(_UNIQUE_LOCAL):
        raise ConfigError(f"{what} must be a /64 of unique local addresses, got {text}", hint=hint)
    return str(subnet)


def choose(wanted: str | None, taken: Mapping[str, str]) -> str:
    """The IPv4 subnet of ``--subnet``, or a free one.

    Args:
        wanted: As people write it.
        taken: Subnets that it must not overlap, and whose they are: "network back".

    Raises:
        ConfigError: It cannot be that one.
        LimitError: None is free.
    """
    if wanted is None:
        return _find_free(_POOL.subnets(new_prefix=_POOL_PREFIX), taken)
    return _check_free(parse(wanted, what="--subnet"), taken, flag="--subnet")


def choose_v6(wanted: str | None, taken: Mapping[str, str]) -> str:
    """The IPv6 subnet of ``--subnet-v6``, or a free one; as `choose`."""
    if wanted is None:
        return _find_free(_POOL_V6.subnets(new_prefix=_PREFIX_V6), taken)
    return _check_free(parse_v6(wanted, what="--subnet-v6"), taken, flag="--subnet-v6")


def _find_free(
    pool: Iterable[ipaddress.IPv4Network | ipaddress.IPv6Network], taken: Mapping[str, str]
) -> str:
    ranges = [ipaddress.ip_network(range_) for range_ in taken]
    for candidate in pool:
        if not any(candidate.overlaps(range_) for range_ in ranges):
            return str(candidate)
    raise LimitError(
        "no subnet is free", hint="delete networks with `container network prune`, or name a subnet"
    )


def _check_free(wanted: str, taken: Mapping[str, str], *, flag: str) -> str:
    for range_, owner in taken.items():
        if ipaddress.ip_network(wanted).overlaps(ipaddress.ip_network(range_)):
            raise ConfigError(
                f"the subnet {wanted} overlaps that of {owner}, {range_}",
                hint=f"choose another {flag}, or leave it out",
            )
    return wanted
