"""Docker's fields of networks."""

import ipaddress
from typing import TYPE_CHECKING

from woodlot.cli.fields import label_of, short_id, show_labels, show_local_time
from woodlot.units import format_time

if TYPE_CHECKING:
    from woodlot.aio import Network
    from woodlot.cli.listing import Fields

_SCOPE = "local"


def listed(*, truncate: bool) -> "Fields[Network]":
    """Those of ``docker network ls``."""
    return {
        "CreatedAt": lambda one: show_local_time(one.created_at) if one.created_at else "",
        "Driver": lambda one: one.driver.value,
        "ID": lambda one: short_id(one.id, truncate=truncate),
        "IPv4": lambda _: "true",
        "IPv6": lambda one: str(bool(one.subnet_v6)).lower(),
        "Internal": lambda one: str(one.internal).lower(),
        "Label": lambda one: label_of(one.labels),
        "Labels": lambda one: show_labels(one.labels),
        "Name": lambda one: one.name,
        "Scope": lambda _: _SCOPE,
    }


def inspected() -> "Fields[Network]":
    """The most used ones of ``docker network inspect``, in its structure."""
    return {
        "Created": lambda one: format_time(one.created_at) if one.created_at else "",
        "Driver": lambda one: one.driver.value,
        "EnableIPv6": lambda one: bool(one.subnet_v6),
        "IPAM": lambda one: {
            "Config": [
                {"Subnet": subnet, "Gateway": str(ipaddress.ip_network(subnet)[1])}
                for subnet in (one.subnet, one.subnet_v6)
                if subnet
            ]
        },
        "Id": lambda one: one.id,
        "Internal": lambda one: one.internal,
        "Labels": lambda one: dict(one.labels),
        "Name": lambda one: one.name,
        "Scope": lambda _: _SCOPE,
    }
