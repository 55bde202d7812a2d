"""Which volumes a list shows."""

import time
from typing import TYPE_CHECKING

from woodlot import filters

if TYPE_CHECKING:
    from woodlot.filters import Given, Maker, Test
    from woodlot.store.store import Store
    from woodlot.volume.volume import Volume

KEYS = ("dangling", "driver", "label", "label!", "name")
PRUNE_KEYS = ("label", "label!", "until")


def select(store: "Store", given: "Given | None" = None) -> "list[Volume]":
    """The volumes that meet all conditions, by name.

    Raises:
        ConfigError: A condition is none.
    """
    from woodlot.volume.volume import DRIVER, list_volumes, used_names

    used = used_names(store)
    makers: dict[str, Maker[Volume]] = {
        "dangling": filters.flag(lambda one: one.name not in used, what="--filter dangling"),
        "driver": filters.pattern(lambda _: (DRIVER,)),
        "label": filters.label(_labels),
        "label!": filters.no_label(_labels),
        "name": filters.pattern(lambda one: (one.name,)),
    }
    meets = filters.build(given or {}, makers, what="volumes")
    return [one for one in list_volumes(store) if meets(one)]


def build_prune_test(given: "Given") -> "Test[Volume]":
    """What tells which volumes a prune may remove, by `PRUNE_KEYS`; raises as `filters.build`."""
    makers: dict[str, Maker[Volume]] = {
        "label": filters.label(_labels),
        "label!": filters.no_label(_labels),
        "until": filters.until(lambda one: one.record.created_at.timestamp(), time.time()),
    }
    return filters.build(given, makers, what="volumes to prune")


def _labels(one: "Volume") -> dict[str, str]:
    return dict(one.record.labels)
