"""Pulling: from a name to a root filesystem that can be mounted.

    reference ─▶ index ─▶ manifest of the platform ─▶ configuration and layers ─▶ rootfs ─▶ record

Each step is skipped when its result is there. The record comes last, so a name never stands for something that
is not whole, whenever the pull ends.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import TYPE_CHECKING, cast

from woodlot import settings
from woodlot.errors import ConfigError, IntegrityError, LimitError, NotFoundError, WoodlotError
from woodlot.image.image import Image, make_image
from woodlot.image.local import Variant, read_config
from woodlot.image.rootfs import build, building
from woodlot.oci.config import MAX_CONFIG_BYTES, ImageConfig
from woodlot.oci.descriptor import Descriptor
from woodlot.oci.digest import Digest, short
from woodlot.oci.manifest import (
    INDEX_TYPES,
    MANIFEST_TYPES,
    MAX_INDEX_DEPTH,
    MAX_MANIFEST_BYTES,
    Document,
    Index,
    Manifest,
    parse_manifest,
)
from woodlot.oci.platform import Platform, choose, host, rank
from woodlot.oci.reference import Reference, parse_reference
from woodlot.progress import NoProgress, Progress
from woodlot.store.store import Store
from woodlot.units import format_size

if TYPE_CHECKING:
    from woodlot.oci.registry import RegistryClient
    from woodlot.oci.transport import Timeouts

# An index of indexes may ask for many documents before the platform is found.
MAX_DOCUMENTS = 64


async def pull(
    store: Store,
    reference: Reference | str,
    *,
    platform: Platform | None = None,
    scheme: str = "auto",
    progress: Progress | None = None,
    max_concurrent: int | None = None,
    timeouts: "Timeouts | None" = None,
) -> Image:
    """Fetch an image, make its root filesystem, and record it.

    Many pulls of one image, also in several processes, fetch and build everything once. After a failure or the
    end of the process nothing partial is visible, and the next pull goes on where this one ended.

    Args:
        store: Where to.
        reference: Its name; one with a digest that is whole here is not asked for again.
        platform: None is the host's.
        scheme: ``auto``, ``http`` or ``https``.
        progress: Told of each blob and of the unpacking.
        max_concurrent: Blobs fetched at once; None takes the setting ``image.concurrent_downloads``.
        timeouts: How long the registry may take.

    Raises:
        ConfigError: The name, the scheme or a setting is not valid.
        NotFoundError: The registry has no such image, or not for this platform.
        AuthError: The registry wants credentials, or others.
        RegistryError: The registry cannot be reached, or fails.
        IntegrityError: It sends something else than it says.
        LimitError: The image is larger than allowed, or the disk is full.
        UnsupportedError: Not a container image that we can read.
    """
    # Only who pulls pays for the HTTP client.
    from woodlot.oci.registry import RegistryClient

    if isinstance(reference, str):
        reference = parse_reference(reference)
    if reference.is_unnamed:
        raise NotFoundError(f"no such image here: {reference}, and no registry has what is unnamed")
    slots = (
        settings.get_int("image.concurrent_downloads") if max_concurrent is None else max_concurrent
    )
    if slots < 1:
        raise ConfigError(f"at least one download at a time is needed, got {slots}")
    async with store.using():
        async with RegistryClient(reference, scheme=scheme, timeouts=timeouts) as client:
            work = _Pull(
                store,
                reference,
                platform=platform or host(),
                client=client,
                progress=progress or NoProgress(),
                slots=slots,
            )
            return await work.run()


class _Pull:
    """One pull."""

    def __init__(
        self,
        store: Store,
        reference: Reference,
        *,
        platform: Platform,
        client: "RegistryClient",
        progress: Progress,
        slots: int,
    ) -> None:
        self._store, self._content = store, store.content
        self._reference, self._platform = reference, platform
        self._what = reference.familiar
        self._client, self._progress = client, progress
        self._slots = asyncio.Semaphore(slots)
        self._documents = 0

    async def run(self) -> Image:
        self._progress.start("image", f"Fetching image {self._what}")
        root, document, size = await self._root()
        digest, manifest, manifest_size, platform = await self._select(root, document, size)
        config = await self._fetch_all(manifest, platform)
        self._progress.finish("image")
        variant = Variant(
            digest=digest,
            manifest=manifest,
            manifest_size=manifest_size,
            platform=platform or config.platform,
            config=config,
        )
        image = make_image(self._store, self._reference, root, variant)
        await self._unpack(image)
        self._store.images.put(
            reference=str(self._reference),
            digest=root,
            media_type=document.media_type,
            size=size,
        )
        return image

    # --- documents ---

    async def _root(self) -> tuple[Digest, Document, int]:
        """What the reference stands for now, its digest and size."""
        wanted = self._reference.digest
        if wanted is not None and (data := self._local(wanted, MAX_MANIFEST_BYTES)) is not None:
            return wanted, parse_manifest(data, media_type=None, what=self._what), len(data)
        fetched = await self._client.fetch_manifest()
        document = parse_manifest(fetched.data, media_type=fetched.media_type, what=self._what)
        await asyncio.to_thread(self._content.put, fetched.data, fetched.digest)
        return fetched.digest, document, len(fetched.data)

    async def _child(self, descriptor: Descriptor) -> Document:
        """An index or manifest that an index names."""
        self._documents += 1
        if self._documents > MAX_DOCUMENTS:
            raise IntegrityError(
                f"index of {self._what} leads to more than {MAX_DOCUMENTS} other documents"
            )
        if descriptor.size > MAX_MANIFEST_BYTES:
            raise IntegrityError(
                f"manifest {short(descriptor.digest)} of {self._what} is larger than "
                f"{MAX_MANIFEST_BYTES} bytes"
            )
        data = self._local(descriptor.digest, descriptor.size)
        if data is None:
            fetched = await self._client.fetch_manifest(
                descriptor.digest, max_bytes=descriptor.size
            )
            data = fetched.data
            if len(data) != descriptor.size:
                raise IntegrityError(
                    f"manifest {short(descriptor.digest)} of {self._what} has {len(data)} bytes, "
                    f"but {descriptor.size} by its index"
                )
        document = parse_manifest(data, media_type=descriptor.media_type, what=self._what)
        await asyncio.to_thread(self._content.put, data, descriptor.digest)
        return document

    def _local(self, digest: Digest, max_bytes: int) -> bytes | None:
        try:
            return self._content.read(digest, max_bytes=max_bytes)
        except NotFoundError:
            return None
        except (IntegrityError, LimitError):
            self._content.delete(digest)
            return None

    async def _select(
        self, digest: Digest, document: Document, size: int
    ) -> tuple[Digest, Manifest, int, Platform | None]:
        """The manifest of the wanted platform: digest, itself, size, and the platform its index names."""
        if isinstance(document, Manifest):
            return digest, document, size, None
        found = await self._search(document, depth=1)
        if found is None:
            offered = sorted({str(item) for item in await self._offered(document)})
            raise NotFoundError(
                f"image {self._what} is not available for {self._platform}",
                details=f"available: {', '.join(offered)}" if offered else None,
                hint=f"choose another one with --platform, such as {offered[0]}"
                if offered
                else None,
            )
        descriptor, manifest = found
        return descriptor.digest, manifest, descriptor.size, descriptor.platform

    async def _search(self, index: Index, *, depth: int) -> tuple[Descriptor, Manifest] | None:
        if depth > MAX_INDEX_DEPTH:
            raise IntegrityError(
                f"index of {self._what} is nested deeper than {MAX_INDEX_DEPTH} levels"
            )
        candidates = [item for item in index.manifests if _is_document(item)]
        position = choose(self._platform, (item.platform for item in candidates))
        # Those that do not say what they are for are looked into only when no other one fits.
        tried = (
            [candidates[position]]
            if position is not None
            else [item for item in candidates if item.platform is None]
        )
        for descriptor in tried:
            document = await self._child(descriptor)
            if isinstance(document, Index):
                if (found := await self._search(document, depth=depth + 1)) is not None:
                    return found
            elif position is not None or await self._fits(document):
                return descriptor, document
        return None

    async def _fits(self, manifest: Manifest) -> bool:
        config = await self._fetch_config(manifest)
        return rank(self._platform, config.platform) is not None

    async def _offered(self, index: Index, depth: int = 1) -> list[Platform]:
        offered: list[Platform] = []
        for item in index.manifests:
            if item.platform is not None:
                # The builders' attestations are of this platform.
                if item.platform.os != "unknown":
                    offered.append(item.platform)
            elif item.media_type in INDEX_TYPES and depth < MAX_INDEX_DEPTH:
                nested = await self._child(item)
                if isinstance(nested, Index):
                    offered += await self._offered(nested, depth + 1)
        return offered

    # --- blobs ---

    async def _fetch_all(self, manifest: Manifest, platform: Platform | None) -> ImageConfig:
        layers = list({layer.digest: layer for layer in manifest.layers}.values())
        total, limit = sum(layer.size for layer in layers), settings.get_int("image.max_size")
        if total > limit:
            raise LimitError(
                f"image {self._what} has {format_size(total)} of layers, more than the "
                f"{format_size(limit)} allowed",
                hint="raise the setting image.max_size (WOODLOT_IMAGE_MAX_SIZE)",
            )
        async with _unwrapped(), asyncio.TaskGroup() as group:
            # First, so that what is wrong with it ends the downloads soon.
            config = group.create_task(self._checked_config(manifest, platform))
            for number, layer in enumerate(layers, start=1):
                label = f"layer {number}/{len(layers)} {short(layer.digest)}"
                group.create_task(self._fetch_blob(layer, label))
        return config.result()

    async def _checked_config(self, manifest: Manifest, platform: Platform | None) -> ImageConfig:
        config = await self._fetch_config(manifest)
        unsaid = config.platform.architecture == "unknown"
        if platform is None and not unsaid and rank(self._platform, config.platform) is None:
            raise NotFoundError(
                f"image {self._what} is for {config.platform}, not for {self._platform}",
                hint=f"choose --platform {config.platform}",
            )
        return config

    async def _fetch_config(self, manifest: Manifest) -> ImageConfig:
        descriptor = manifest.config
        if descriptor.size > MAX_CONFIG_BYTES:
            raise IntegrityError(
                f"configuration of {self._what} is larger than {MAX_CONFIG_BYTES} bytes"
            )
        # Looked at first for its bytes: a damaged one is fetched again.
        if self._local(descriptor.digest, descriptor.size) is None:
            await self._fetch_blob(descriptor, f"config {short(descriptor.digest)}")
        return read_config(self._content, manifest, what=self._what)

    async def _fetch_blob(self, descriptor: Descriptor, label: str) -> None:
        key = descriptor.digest
        async with self._slots:
            self._progress.start(key, label, total=descriptor.size)
            async with self._content.ingest(descriptor.digest, descriptor.size) as ingest:
                if ingest is None:
                    self._progress.advance(key, descriptor.size)
                    self._progress.finish(key, "already here")
                    return
                advance = self._advancer(key)
                advance(ingest.offset)
                await self._client.fetch_blob(descriptor, ingest, advance=advance)
                try:
                    await ingest.commit()
                except IntegrityError:
                    if not ingest.resumed:
                        raise
                    # The part from before may have been bad: once more from the start.
                    advance(-descriptor.size)
                    await ingest.restart()
                    await self._client.fetch_blob(descriptor, ingest, advance=advance)
                    await ingest.commit()
            self._progress.finish(key)

    def _advancer(self, key: str) -> Callable[[int], None]:
        return lambda amount: self._progress.advance(key, amount)

    # --- rootfs ---

    async def _unpack(self, image: Image) -> None:
        async with building(image) as needed:
            if not needed:
                return
            try:
                await build(self._content, image, self._progress)
            except IntegrityError:
                damaged = await asyncio.to_thread(self._drop_damaged, image.layers)
                if not damaged:
                    raise
                for layer in damaged:
                    await self._fetch_blob(layer, f"layer {short(layer.digest)} again")
                await build(self._content, image, self._progress)

    def _drop_damaged(self, layers: Sequence[Descriptor]) -> list[Descriptor]:
        """Remove the layers whose bytes changed on disk since they were fetched."""
        unique = {layer.digest: layer for layer in layers}.values()
        damaged = [layer for layer in unique if not self._content.verify(layer.digest)]
        for layer in damaged:
            self._content.delete(layer.digest)
        return damaged


def _is_document(descriptor: Descriptor) -> bool:
    return descriptor.media_type in INDEX_TYPES | MANIFEST_TYPES


@contextlib.asynccontextmanager
async def _unwrapped() -> AsyncGenerator[None]:
    """Raise the first error of a task group by itself, bugs before errors of ours; the others become notes."""
    try:
        yield
    except BaseExceptionGroup as group:
        errors = sorted(_leaves(group), key=lambda error: isinstance(error, WoodlotError))
        for other in errors[1:]:
            errors[0].add_note(f"also: {other}")
        raise errors[0] from errors[0].__cause__


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            found += _leaves(cast("BaseExceptionGroup[BaseException]", error))
        else:
            found.append(error)
    return found
