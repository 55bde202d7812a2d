"""Deleting images, and sweeping away what nothing needs any more."""

import contextlib
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import cast

from woodlot.errors import NotFoundError, StateError
from woodlot.image.image import find_record
from woodlot.image.local import find_variants, reachable, rootfs_path
from woodlot.oci.digest import Digest, short
from woodlot.oci.reference import Reference, parse_reference
from woodlot.store.containers import ContainerRecord
from woodlot.store.images import ImageRecord
from woodlot.store.store import Store
from woodlot.values import dataclass

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")
_ROOTFS = re.compile(r"[0-9a-f]{64}\.erofs")


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """What a sweep removed."""

    blobs: int = 0
    rootfs: int = 0
    bytes_freed: int = 0


def delete(store: Store, reference: Reference | str, *, force: bool = False) -> Reference:
    """Forget an image; `sweep` then frees its space.

    Args:
        store: Where.
        reference: Its name.
        force: Also when stopped containers were made from it; they keep their root filesystem.

    Returns:
        The name that was forgotten.

    Raises:
        NotFoundError: There is no such image.
        StateError: A container was made from it, and from no other name of it, or is being made.
    """
    with store.database.transaction():
        record = find_record(store, reference)
        if record is None:
            name = reference if isinstance(reference, str) else reference.familiar
            raise NotFoundError(
                f"no such image: {name}", hint="list them with `container image list`"
            )
        named = parse_reference(record.reference)
        same = [other.reference for other in store.images.list() if other.digest == record.digest]
        if len(same) > 1 and str(reference) not in {str(named), named.familiar}:
            raise StateError(
                f"image {reference} has several names: {', '.join(same)}",
                hint="delete it by name",
            )
        reference = named
        for container in _users(store, record):
            running = container.state.get("state") not in {"stopped", "created"}
            if running or not force:
                raise StateError(
                    f"image {reference.familiar} is used by container {container.name}"
                    + (", which is running" if running else ""),
                    details=f"container id {container.id}",
                    hint=f"container rm {'--force ' if running else ''}{container.name}",
                )
        with store.try_unleased(record.digest) as unleased:
            if not unleased:
                raise StateError(
                    f"image {reference.familiar} is used by a container that is being made",
                    hint="try again when that is done",
                )
            store.images.delete(record.reference)
    return reference


def sweep(store: Store) -> Swept | None:
    """Remove blobs and root filesystems that no image and no container needs.

    Returns:
        What was removed; None if somebody is pulling or creating, when nothing may be removed. The next sweep
        does it then.
    """
    with store.try_sweeping() as alone:
        if not alone:
            return None
        roots, keep = _roots(store)
        blobs = rootfs = freed = 0
        for root in roots:
            keep |= parts_of(store, root)
        for digest in list(store.content.list()):
            if digest not in keep:
                freed += store.content.delete(digest)
                blobs += 1
        for path in _files(store.paths.rootfs):
            if path.name in keep:
                continue
            with contextlib.suppress(FileNotFoundError):
                freed += path.stat().st_blocks * 512
                path.unlink()
                rootfs += path.suffix == ".erofs"
        # With nobody downloading, what is left there is of pulls that ended early; recent ones may be resumed.
        freed += store.content.clean_ingest()
        store.remove_leases()
        return Swept(blobs=blobs, rootfs=rootfs, bytes_freed=freed)


def stored_bytes(store: Store) -> dict[str, int]:
    """Room on the disk of each blob, by digest, and of each root filesystem, by the name of its file."""
    found: dict[str, int] = {}
    for digest in store.content.list():
        with contextlib.suppress(FileNotFoundError):
            found[digest] = store.content.path(digest).stat().st_blocks * 512
    for path in _files(store.paths.rootfs):
        with contextlib.suppress(FileNotFoundError):
            found[path.name] = path.stat().st_blocks * 512
    return found


def parts_of(store: Store, digest: Digest) -> set[str]:
    """What an index or manifest needs: digests of blobs, and names of root filesystems."""
    parts: set[str] = set(reachable(store.content, digest))
    for variant in find_variants(store.content, digest, what=short(digest)):
        parts.add(rootfs_path(store.paths, variant.config.diff_ids).name)
    return parts


def needed_by_containers(store: Store) -> set[str]:
    """What containers need, as `parts_of`."""
    roots, needed = _of_containers(store)
    for root in roots:
        needed |= parts_of(store, root)
    return needed


def _users(store: Store, record: ImageRecord) -> Iterator[ContainerRecord]:
    """Containers made from the image, unless another name keeps the same bytes."""
    digests = digests_of(store, record)
    others = [other for other in store.images.list() if other.reference != record.reference]
    for other in others:
        digests -= digests_of(store, other)
    for container in store.containers.list():
        if digests & {container.spec.get("image_digest")}:
            yield container


def digests_of(store: Store, record: ImageRecord) -> set[object]:
    """Of the index or manifest of an image, and of the manifests of its platforms."""
    variants = find_variants(store.content, record.digest, what=record.reference)
    return {record.digest, *(variant.digest for variant in variants)}


def _roots(store: Store) -> tuple[set[Digest], set[str]]:
    """Digests and names of root filesystems that a record mentions, anywhere in it."""
    digests, rootfs = _of_containers(store)
    return digests | {record.digest for record in store.images.list()}, rootfs


def _of_containers(store: Store) -> tuple[set[Digest], set[str]]:
    digests: set[Digest] = set()
    rootfs: set[str] = set()
    for container in store.containers.list():
        for text in _strings((container.spec, container.state)):
            digests.update(Digest(match[0]) for match in _DIGEST.finditer(text))
            rootfs.update(match[0] for match in _ROOTFS.finditer(text))
    return digests, rootfs


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for pair in cast("dict[object, object]", value).items():
            yield from _strings(pair)
    elif isinstance(value, list | tuple):
        for item in cast("Iterable[object]", value):
            yield from _strings(item)


def _files(directory: Path) -> list[Path]:
    """Root filesystems, their locks, and what killed builds left behind."""
    if not directory.is_dir():
        return []
    return [
        path
        for path in directory.iterdir()
        if path.suffix in {".erofs", ".lock"} or (path.name[0] == "." and path.suffix == ".tmp")
    ]
