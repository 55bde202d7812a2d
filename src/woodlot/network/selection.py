"""Which networks a list shows."""

import time
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, cast

from woodlot import filters

if TYPE_CHECKING:
    from woodlot.filters import Given, Maker, Test
    from woodlot.network.network import Network
    from woodlot.store.store import Store

KEYS = ("dangling", "driver", "id", "label", "label!", "name", "type")
PRUNE_KEYS = ("label", "label!", "until")
TYPES = ("builtin", "custom")


def select(store: "Store", given: "Given | None" = None) -> "list[Network]":
    """The networks that meet all conditions: the default network, then those that were made, oldest first.

    Raises:
        ConfigError: A condition is none.
    """
    from woodlot.network.network import DEFAULT, find_all

    used = used_names(store)
    makers: dict[str, Maker[Network]] = {
        "dangling": filters.flag(
            lambda one: one.name not in {*used, DEFAULT}, what="--filter dangling"
        ),
        "driver": filters.pattern(lambda one: (one.driver.value,)),
        "id": filters.pattern(lambda one: (one.id,)),
        "label": filters.label(_labels),
        "label!": filters.no_label(_labels),
        "name": filters.pattern(lambda one: (one.name,)),
        "type": filters.choice(
            lambda one: "builtin" if one.name == DEFAULT else "custom", TYPES, what="--filter type"
        ),
    }
    meets = filters.build(given or {}, makers, what="networks")
    return [one for one in find_all(store) if meets(one)]


def build_prune_test(given: "Given") -> "Test[Network]":
    """What tells which networks a prune may remove, by `PRUNE_KEYS`; raises as `filters.build`."""
    makers: dict[str, Maker[Network]] = {
        "label": filters.label(_labels),
        "label!": filters.no_label(_labels),
        "until": filters.until(lambda one: one.created_at, time.time()),
    }
    return filters.build(given, makers, what="networks to prune")


def used_names(store: "Store") -> Collection[str]:
    """Names of the networks that containers name, also those that are stopped."""
    found: set[str] = set()
    for container in store.containers.list():
        # Any version's record: what it does not tell, it does not use.
        networks = cast("Sequence[Mapping[str, object]]", container.spec.get("networks", ()))
        found.update(str(network.get("network")) for network in networks)
    return found


def _labels(one: "Network") -> dict[str, str]:
    return dict(one.labels)
