"""Docker's fields of volumes."""

from typing import TYPE_CHECKING

from woodlot.cli.fields import label_of, show_labels
from woodlot.units import format_size, format_time

if TYPE_CHECKING:
    from woodlot.aio import Volume
    from woodlot.aio.volumes import Volumes
    from woodlot.cli.listing import Fields

_SCOPE = "local"


def listed(volumes: "Volumes") -> "Fields[Volume]":
    """Those of ``docker volume ls``."""
    return {
        "Driver": lambda one: one.driver,
        "Label": lambda one: label_of(one.record.labels),
        "Labels": lambda one: show_labels(one.record.labels),
        "Links": lambda one: str(len(volumes.users(one.name))),
        "Mountpoint": lambda one: str(one.source),
        "Name": lambda one: one.name,
        "Scope": lambda _: _SCOPE,
        "Size": lambda one: format_size(one.used_bytes),
    }


def inspected() -> "Fields[Volume]":
    """Those of ``docker volume inspect``."""
    return {
        "CreatedAt": lambda one: format_time(one.record.created_at.timestamp()),
        "Driver": lambda one: one.driver,
        "Labels": lambda one: dict(one.record.labels),
        "Mountpoint": lambda one: str(one.source),
        "Name": lambda one: one.name,
        "Scope": lambda _: _SCOPE,
    }
