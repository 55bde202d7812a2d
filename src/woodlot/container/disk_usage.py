"""What everything takes on the disk, and what of it nothing needs."""

from collections.abc import Iterable

from woodlot.container import lifecycle
from woodlot.image import collect
from woodlot.store.disk import used_bytes
from woodlot.store.store import Store
from woodlot.template import template
from woodlot.values import dataclass
from woodlot.volume import volume


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One thing."""

    name: str
    size_bytes: int
    """Room on the disk, with what it shares with others."""
    active: bool
    """Something needs it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """All things of a kind."""

    items: tuple[Item, ...]
    size_bytes: int
    """Of all together; what they share counts once."""
    reclaimable_bytes: int
    """What pruning all of it would free."""

    @property
    def total(self) -> int:
        """How many there are."""
        return len(self.items)

    @property
    def active(self) -> int:
        """How many of them something needs."""
        return sum(item.active for item in self.items)


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskUsage:
    """What everything takes."""

    images: Usage
    containers: Usage
    """What they have written; active are those that run."""
    volumes: Usage
    templates: Usage
    """Saved machines; active are those in use lately. They are made again when they are wanted."""
    kernels: Usage
    """Active are those that new containers get."""
    caches: Usage
    """What is made from the rest, and used at each start."""


def measure(store: Store) -> DiskUsage:
    """What everything takes on the disk at this moment; reads directories, not files."""
    containers = [
        Item(
            name=one.spec.name,
            size_bytes=used_bytes(store.paths.container(one.spec.id)),
            active=one.is_live,
        )
        for one in lifecycle.find_all(store)
    ]
    used = volume.used_names(store)
    volumes = [
        Item(name=one.name, size_bytes=one.used_bytes, active=one.name in used)
        for one in volume.list_volumes(store)
    ]
    templates = [
        Item(name=one.id, size_bytes=one.size_bytes, active=not template.is_old(one))
        for one in template.list_templates(store.paths)
    ]
    return DiskUsage(
        images=_images(store),
        containers=_sum(containers),
        volumes=_sum(volumes),
        templates=_sum(templates),
        kernels=_kernels(store),
        caches=_caches(store),
    )


def _sum(items: Iterable[Item], *, reclaimable: bool = True) -> Usage:
    every = tuple(items)
    return Usage(
        items=every,
        size_bytes=sum(item.size_bytes for item in every),
        reclaimable_bytes=sum(item.size_bytes for item in every if not item.active)
        if reclaimable
        else 0,
    )


def _images(store: Store) -> Usage:
    stored = collect.stored_bytes(store)
    needed = collect.needed_by_containers(store)
    items: list[Item] = []
    for record in store.images.list():
        parts = collect.parts_of(store, record.digest)
        items.append(
            Item(
                name=record.reference,
                size_bytes=sum(stored.get(part, 0) for part in parts),
                active=bool(collect.digests_of(store, record) & needed),
            )
        )
    return Usage(
        items=tuple(items),
        size_bytes=sum(stored.values()),
        reclaimable_bytes=sum(size for part, size in stored.items() if part not in needed),
    )


def _kernels(store: Store) -> Usage:
    from woodlot.kernel import catalog

    chosen = {
        found.name
        for arch in ("amd64", "arm64")
        if (found := catalog.default_kernel(store.paths, arch)) is not None
    }
    items = (
        Item(
            name=one.name,
            size_bytes=used_bytes(store.paths.kernels / one.name),
            active=one.name in chosen,
        )
        for one in catalog.list_kernels(store.paths)
    )
    # Only their user knows who still wants them.
    return _sum(items, reclaimable=False)


def _caches(store: Store) -> Usage:
    directories = (store.paths.initramfs, store.paths.disks)
    return _sum(
        (
            Item(name=directory.name, size_bytes=used_bytes(directory), active=True)
            for directory in directories
            if directory.is_dir()
        ),
        reclaimable=False,
    )
