"""Removing what nothing uses. What somebody comes to use meanwhile stays, and so does what it needs."""

from dataclasses import field

from woodlot import filters
from woodlot.container import lifecycle, pool, selection
from woodlot.errors import ConfigError, NotFoundError, StateError
from woodlot.filters import Given
from woodlot.image import collect
from woodlot.image import selection as image_selection
from woodlot.image.image import list_images
from woodlot.network import network, remove
from woodlot.network import selection as network_selection
from woodlot.store.disk import used_bytes
from woodlot.store.store import Store
from woodlot.template import template
from woodlot.values import dataclass
from woodlot.volume import selection as volume_selection
from woodlot.volume import volume

KEYS = ("label", "label!", "until")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """What was removed."""

    containers: tuple[str, ...] = ()
    """Ids."""
    networks: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    """Names."""
    templates: tuple[str, ...] = ()
    """Ids."""
    freed_bytes: int = 0
    swept: bool = field(default=True)
    """Whether the room of images was freed; not while somebody pulls or makes one ready: later, then."""


async def prune_everything(
    store: Store, given: Given | None = None, *, every_image: bool = False, volumes: bool = False
) -> Pruned:
    """Remove what nothing uses, in this order: containers that do not run, networks, volumes, images, old templates.

    Args:
        store: Where.
        given: Conditions on all of them, by `KEYS`; templates meet none.
        every_image: Images with a name, too.
        volumes: Anonymous volumes, too.

    Raises:
        ConfigError: A condition is none.
    """
    conditions = given or {}
    filters.check(conditions, KEYS, what="what is pruned")
    if volumes and "until" in conditions:
        raise ConfigError(
            "--volumes and --filter until exclude each other",
            hint="a volume's age does not tell whether what is in it is old",
        )
    parts = [
        prune_containers(store, conditions),
        await prune_networks(store, conditions),
        prune_volumes(store, conditions) if volumes else Pruned(),
        prune_images(store, conditions, every=every_image),
        Pruned() if conditions else prune_templates(store),
    ]
    return Pruned(
        containers=parts[0].containers,
        networks=parts[1].networks,
        volumes=parts[2].volumes,
        images=parts[3].images,
        templates=parts[4].templates,
        freed_bytes=sum(part.freed_bytes for part in parts),
        swept=parts[3].swept,
    )


def prune_containers(store: Store, given: Given) -> Pruned:
    """Remove the containers that do not run, and what they wrote."""
    meets = selection.build_prune_test(given)
    removed: list[str] = []
    freed = 0
    for found in lifecycle.find_all(store):
        if found.is_live or not meets(found):
            continue
        size = used_bytes(store.paths.container(found.spec.id))
        try:
            lifecycle.delete(store, found)
        except (StateError, NotFoundError):
            # Started, removed or copied from meanwhile.
            continue
        removed.append(found.spec.id)
        freed += size
    return Pruned(containers=tuple(removed), freed_bytes=freed)


async def prune_networks(store: Store, given: Given) -> Pruned:
    """Remove the networks that no container names, running or stopped."""
    meets = network_selection.build_prune_test(given)
    used = network_selection.used_names(store)
    candidates = [one for one in network.find_all(store) if one.name not in used and meets(one)]
    return Pruned(networks=tuple(await remove.prune(store, candidates)))


def prune_volumes(store: Store, given: Given, *, every: bool = False) -> Pruned:
    """Remove the volumes that no container uses: the anonymous ones, or all."""
    meets = volume_selection.build_prune_test(given)
    names, freed = volume.prune(store, every=every, meets=meets)
    return Pruned(volumes=tuple(names), freed_bytes=freed)


def prune_images(store: Store, given: Given, *, every: bool = False) -> Pruned:
    """Free what no image and no container needs, and unnamed images that no container uses; with ``every``, all such."""
    meets = image_selection.build_prune_test(given)
    removed: list[str] = []
    for image in list_images(store):
        if not (every or image.reference.is_unnamed) or not meets(image):
            continue
        try:
            removed.append(str(collect.delete(store, image.reference)))
        except (StateError, NotFoundError):
            # A container uses it.
            continue
    swept = collect.sweep(store)
    return Pruned(
        images=tuple(removed),
        freed_bytes=swept.bytes_freed if swept else 0,
        swept=swept is not None,
    )


def prune_templates(store: Store) -> Pruned:
    """Remove the saved machines that nobody used for long."""
    sizes = {one.id: one.size_bytes for one in template.list_templates(store.paths)}
    ids = tuple(one.id for one in template.prune(store.paths))
    pool.prune(store.paths)
    return Pruned(templates=ids, freed_bytes=sum(sizes.get(one, 0) for one in ids))
