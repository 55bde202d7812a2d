"""Which containers a list shows."""

import re
import time
from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING

from woodlot import filters
from woodlot.container import state
from woodlot.errors import ConfigError, WoodlotError

if TYPE_CHECKING:
    from woodlot.container.lifecycle import Container
    from woodlot.container.spec import ContainerSpec
    from woodlot.filters import Given, Maker, Test
    from woodlot.store.store import Store

KEYS = (
    "ancestor", "before", "exited", "expose", "health", "id", "label", "label!", "name", "network", "publish", "since", "status",
    "volume",
)  # fmt: skip
PRUNE_KEYS = ("label", "label!", "until")
# What only those that do not run can meet, or what names a state: all are looked at then.
_OF_ALL = frozenset(("exited", "status"))
HEALTHS = ("none", "starting", "healthy", "unhealthy")
_EXITED = "exited"
"""Docker's word for stopped."""
STATUSES = (*state.LABELS, _EXITED)
_PORTS = re.compile(r"(?P<first>\d{1,5})(?:-(?P<last>\d{1,5}))?(?:/(?P<protocol>tcp|udp|sctp))?")


def select(
    store: "Store",
    *,
    everything: bool = False,
    given: "Given | None" = None,
    last: int | None = None,
) -> "list[Container]":
    """The containers that meet all conditions, oldest first: the running ones, or all.

    Args:
        store: Where.
        everything: Those that do not run, too; so do conditions on ``status`` and ``exited``.
        given: Conditions, by `KEYS`.
        last: Only so many, the last made, whether or not they run.

    Raises:
        ConfigError: A condition is none.
        NotFoundError: ``before`` or ``since`` names no container.
    """
    from woodlot.container import lifecycle

    conditions = given or {}
    meets = filters.build(conditions, _makers(store), what="containers")
    everything = everything or last is not None or bool(_OF_ALL & conditions.keys())
    found = [one for one in lifecycle.find_all(store) if (everything or one.is_live) and meets(one)]
    return found if last is None else sorted(found, key=_made_at)[max(0, len(found) - last) :]


def build_prune_test(given: "Given") -> "Test[Container]":
    """What tells which containers `prune` may remove, by `PRUNE_KEYS`; raises as `filters.build`."""
    makers: dict[str, Maker[Container]] = {
        "label": filters.label(_labels),
        "label!": filters.no_label(_labels),
        "until": filters.until(_made_at, time.time()),
    }
    return filters.build(given, makers, what="containers to prune")


def _makers(store: "Store") -> "dict[str, Maker[Container]]":
    from woodlot.container import lifecycle

    def before(text: str) -> "Test[Container]":
        other = lifecycle.find(store, text).spec
        return lambda one: (one.spec.created_at, one.spec.id) < (other.created_at, other.id)

    def since(text: str) -> "Test[Container]":
        other = lifecycle.find(store, text).spec
        return lambda one: (one.spec.created_at, one.spec.id) > (other.created_at, other.id)

    return {
        "ancestor": lambda text: _made_from(store, text),
        "before": before,
        "exited": _exited,
        "expose": lambda text: _ports(text, lambda one: _exposed(store, one)),
        "health": filters.choice(_health, HEALTHS, what="--filter health"),
        "id": filters.pattern(lambda one: (one.spec.id,)),
        "label": filters.label(_labels),
        "label!": filters.no_label(_labels),
        # With a slash before it, as Docker's own names are.
        "name": filters.pattern(lambda one: (one.spec.name, f"/{one.spec.name}")),
        "network": lambda text: _attached(store, text),
        "publish": lambda text: _ports(text, _published),
        "since": since,
        "status": _has_status,
        "volume": _mounts,
    }


def _labels(one: "Container") -> dict[str, str]:
    return dict(one.spec.labels)


def _made_at(one: "Container") -> float:
    return one.spec.created_at


def _health(one: "Container") -> str:
    health = one.state.health if isinstance(one.state, state.Running) else None
    return health.status if health else "none"


def _has_status(text: str) -> "Test[Container]":
    make: Maker[Container] = filters.choice(
        lambda one: state.label(one.state), STATUSES, what="--filter status"
    )
    make(text)
    return make("stopped" if text == _EXITED else text)


def _exited(text: str) -> "Test[Container]":
    if not re.fullmatch(r"\d{1,3}", text):
        raise ConfigError(f"--filter exited cannot be {text!r}", hint="give an exit status")
    code = int(text)
    return lambda one: isinstance(one.state, state.Stopped) and one.state.exit_code == code


def _made_from(store: "Store", text: str) -> "Test[Container]":
    from woodlot.image.image import find_image
    from woodlot.oci.reference import parse_reference

    digests: set[str] = set()
    names: set[str] = set()
    try:
        image = find_image(store, text)
        names.add(image.record.reference)
        digests |= {image.record.digest, *(variant.digest for variant in image.variants)}
    except WoodlotError:
        # Containers outlive the name of their image.
        try:
            names.add(str(parse_reference(text)))
        except ConfigError:
            digests.add(text)
    return lambda one: one.spec.image in names or one.spec.image_digest in digests


def _attached(store: "Store", text: str) -> "Test[Container]":
    from woodlot.network.network import NONE, find

    if text == NONE:
        return lambda one: not one.spec.networks
    try:
        name = find(store, text).name
    except WoodlotError:
        name = text
    return lambda one: any(network.network == name for network in one.spec.networks)


def _mounts(text: str) -> "Test[Container]":
    return lambda one: any(text in {mount.source, mount.destination} for mount in one.spec.mounts)


def _ports(text: str, of: "Callable[[Container], Iterable[tuple[int, str]]]") -> "Test[Container]":
    match = _PORTS.fullmatch(text)
    if match is None:
        raise ConfigError(f"{text!r} is no port", hint="give it as 80, 53/udp or 8000-8010/tcp")
    first = int(match["first"])
    wanted = range(first, int(match["last"] or first) + 1)
    protocol = match["protocol"] or "tcp"
    return lambda one: any(port in wanted and name == protocol for port, name in of(one))


def _published(one: "Container") -> Collection[tuple[int, str]]:
    if not isinstance(one.state, state.Running):
        return ()
    return [(int(port["host_port"]), str(port["protocol"])) for port in one.state.ports]


def _exposed(store: "Store", one: "Container") -> Collection[tuple[int, str]]:
    named = [(port.container_port, port.protocol) for port in one.spec.ports]
    for text in _image_ports(store, one.spec):
        number, _, protocol = text.partition("/")
        named.append((int(number), protocol or "tcp"))
    return named


def _image_ports(store: "Store", spec: "ContainerSpec") -> list[str]:
    from woodlot.image.local import find_variants
    from woodlot.oci.digest import Digest

    variants = find_variants(store.content, Digest(spec.image_digest), what=spec.image)
    ports = (port for variant in variants for port in variant.config.exposed_ports)
    return [port for port in ports if port.partition("/")[0].isdecimal()]
