"""Docker's fields of volumes."""

from typing import TYPE_CHECKING

from woodlot.cli.fields import label_of, show_labels
from woodlot.cli.listing import Fields
from woodlot.store.disk import used_bytes
from woodlot.units import format_size, format_time
from woodlot.volume.volume import DRIVER, Volume, users

if TYPE_CHECKING:
    from woodlot.store.store import Store

_SCOPE = "local"


def listed(store: "Store") -> Fields[Volume]:
    """Those of ``docker volume ls``."""
    return {
        "Driver": lambda _: DRIVER,
        "Label": lambda one: label_of(one.record.labels),
        "Labels": lambda one: show_labels(one.record.labels),
        "Links": lambda one: str(len(users(store, one.name))),
        "Mountpoint": lambda one: str(one.source),
        "Name": lambda one: one.name,
        "Scope": lambda _: _SCOPE,
        "Size": lambda one: format_size(used_bytes(one.directory)),
    }


def inspected() -> Fields[Volume]:
    """Those of ``docker volume inspect``."""
    return {
        "CreatedAt": lambda one: format_time(one.record.created_at.timestamp()),
        "Driver": lambda _: DRIVER,
        "Labels": lambda one: dict(one.record.labels),
        "Mountpoint": lambda one: str(one.source),
        "Name": lambda one: one.name,
        "Scope": lambda _: _SCOPE,
    }
