"""Which images a list shows."""

import fnmatch
import time
from typing import TYPE_CHECKING

from woodlot import filters

if TYPE_CHECKING:
    from woodlot.filters import Given, Maker, Test
    from woodlot.image.image import LocalImage
    from woodlot.store.store import Store

KEYS = ("before", "dangling", "label", "label!", "reference", "since")
PRUNE_KEYS = ("dangling", "label", "label!", "until")


def select(store: "Store", given: "Given | None" = None) -> "list[LocalImage]":
    """The images that meet all conditions, by name.

    Raises:
        ConfigError: A condition is none.
        NotFoundError: ``before`` or ``since`` names no image.
    """
    from woodlot.image.image import find_image, list_images

    def before(text: str) -> "Test[LocalImage]":
        moment = find_image(store, text).created_at
        return lambda one: one.created_at < moment

    def since(text: str) -> "Test[LocalImage]":
        moment = find_image(store, text).created_at
        return lambda one: one.created_at > moment

    makers: dict[str, Maker[LocalImage]] = {
        **_makers(),
        "before": before,
        "reference": _matches,
        "since": since,
    }
    meets = filters.build(given or {}, makers, what="images")
    return [one for one in list_images(store) if meets(one)]


def build_prune_test(given: "Given") -> "Test[LocalImage]":
    """What tells which images a prune may remove, by `PRUNE_KEYS`; raises as `filters.build`."""
    makers: dict[str, Maker[LocalImage]] = {
        **_makers(),
        # As Docker: by the age of the image, not of its name.
        "until": filters.until(lambda one: one.created_at, time.time()),
    }
    return filters.build(given, makers, what="images to prune")


def _makers() -> "dict[str, Maker[LocalImage]]":
    return {
        "dangling": filters.flag(lambda one: one.reference.is_unnamed, what="--filter dangling"),
        "label": filters.label(_labels),
        "label!": filters.no_label(_labels),
    }


def _labels(one: "LocalImage") -> dict[str, str]:
    return dict(one.variants[0].config.labels) if one.variants else {}


def _matches(text: str) -> "Test[LocalImage]":
    """A pattern of the shell's for a name, with or without its tag."""
    name, colon, tag = text.rpartition(":")
    # A colon before a slash is a port's.
    tagged = bool(colon) and "/" not in tag

    def meets(one: "LocalImage") -> bool:
        reference = one.reference
        names = (reference.familiar_name, reference.name, reference.repository)
        return any(_fits(whole, name if tagged else text) for whole in names) and (
            not tagged or fnmatch.fnmatchcase(reference.tag or "", tag)
        )

    return meets


def _fits(name: str, pattern: str) -> bool:
    # No star stands for a slash.
    parts, patterns = name.split("/"), pattern.split("/")
    return len(parts) == len(patterns) and all(map(fnmatch.fnmatchcase, parts, patterns))
