import asyncio
import gzip
import io
import json
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from tests.unit.image.conftest import AMD64, QUICK, Stub, make_tar, sha256
from tests.unit.rootfs.erofs_reader import Image as Disk
from woodlot.errors import ConfigError, IntegrityError, LimitError, NotFoundError, StateError
from woodlot.image.collect import delete, sweep
from woodlot.image.derive import Layer, derive, read_base, write_layer
from woodlot.image.image import Image, find_image, inspect, load
from woodlot.image.pull import pull
from woodlot.image.selection import select
from woodlot.oci.config import History
from woodlot.oci.manifest import DOCKER_CONFIG, DOCKER_MANIFEST, OCI_LAYER_GZIP
from woodlot.oci.reference import Reference, parse_reference
from woodlot.progress import NoProgress
from woodlot.store.store import Store

GIB = 1 << 30
NOW = datetime(2026, 1, 2, 3, tzinfo=UTC)
NAME = parse_reference("made:1")


def write(store: Store, tar: bytes, *, max_bytes: int = GIB) -> Layer | None:
    pieces: Iterator[bytes] = iter([tar[:700], tar[700:]])
    return write_layer(store.content, pieces, max_bytes=max_bytes, what="what web has changed")


async def make(store: Store, image: Image, tar: bytes, name: Reference | None = NAME) -> Image:
    base = read_base(store.content, image.manifest_digest, what="app")
    entry = History(created=NOW, created_by="sh", comment="hi", empty_layer=False, author="Ann")
    config = replace(
        base.config, created=NOW, author="Ann", history=(*base.config.history, entry), cmd=("new",)
    )
    async with store.using():
        layer = write(store, tar)
        return await derive(store, base, config, layer, name, progress=NoProgress())


async def fetch(stub: Stub, store: Store, files: Mapping[str, bytes]) -> Image:
    stub.add_image(make_tar(files))
    return await pull(store, f"{stub.host}/app:1", platform=AMD64, timeouts=QUICK)


async def test_a_layer_above_an_image(stub: Stub, store: Store) -> None:
    image = await fetch(stub, store, {"a": b"1", "d/b": b"2", "d/c": b"3", "gone/x": b"4"})
    # Directories replaced, a file deleted, one changed.
    tar = make_tar({"a": b"11", "d/.wh..wh..opq": b"", "d/new": b"5", ".wh.gone": b""})
    made = await make(store, image, tar)
    assert load(store, "made:1", AMD64) == made
    tree = Disk(made.rootfs).tree()
    assert set(tree) == {b"", b"a", b"d", b"d/new"}
    assert (tree[b"a"].data, tree[b"d/new"].data) == (b"11", b"5")
    # All of it is what a registry could be given.
    layer = made.layers[-1]
    blob = store.content.path(layer.digest).read_bytes()
    assert (sha256(blob), len(blob), layer.media_type) == (layer.digest, layer.size, OCI_LAYER_GZIP)
    assert gzip.decompress(blob) == tar
    assert made.config.diff_ids == (*image.config.diff_ids, sha256(tar))
    assert made.layers[:-1] == image.layers
    described = inspect(store, find_image(store, "made:1"))["variants"]
    assert isinstance(described, list)
    assert described[0]["config"]["history"][-1] == {
        "created": "2026-01-02T03:00:00Z",
        "created_by": "sh",
        "author": "Ann",
        "comment": "hi",
    }
    # The one below can go, and this one goes whole; again above that one.
    delete(store, image.reference)
    sweep(store)
    again = await make(store, made, make_tar({"b": b"7"}), parse_reference("made:2"))
    assert len(again.layers) == 3
    delete(store, "made:1")
    sweep(store)
    assert Disk(again.rootfs).tree()[b"a"].data == b"11"
    delete(store, "made:2")
    sweep(store)
    assert not list(store.content.list())
    assert not list(store.paths.rootfs.iterdir())


async def test_without_changes_there_is_no_layer(stub: Stub, store: Store) -> None:
    image = await fetch(stub, store, {"a": b"1"})
    made = await make(store, image, bytes(1024))
    assert (made.rootfs, made.layers) == (image.rootfs, image.layers)
    assert made.config.cmd == ("new",)
    assert made.digest != image.digest


async def test_an_image_without_a_name(stub: Stub, store: Store) -> None:
    image = await fetch(stub, store, {"a": b"1"})
    made = await make(store, image, make_tar({"b": b"2"}), None)
    digits = made.digest.removeprefix("sha256:")
    for key in (made.digest, digits[:12], str(made.reference)):
        assert load(store, key, AMD64) == made
    assert [one.reference for one in select(store, {"dangling": ["true"]})] == [made.reference]
    assert [one.reference for one in select(store, {"dangling": ["false"]})] == [image.reference]
    assert made.reference.familiar == digits[:12]
    with pytest.raises(NotFoundError, match="unnamed"):
        await pull(store, made.reference)
    sweep(store)
    assert made.rootfs.exists()
    store.containers.insert(
        "id", "web", {"image_digest": made.digest, "rootfs": str(made.rootfs)}, {"state": "stopped"}
    )
    with pytest.raises(StateError, match="used by container web"):
        delete(store, digits[:12])
    store.containers.delete("id")
    delete(store, digits[:12])
    assert select(store, {"dangling": ["true"]}) == []


def test_a_name_that_only_looks_unnamed() -> None:
    for text in ("<none>", "<none>:1", "a/<none>@sha256:" + "0" * 64):
        with pytest.raises(ConfigError):
            parse_reference(text)


async def test_a_stranger_sends_the_layer(stub: Stub, store: Store) -> None:
    image = await fetch(stub, store, {"a": b"1"})
    link = io.BytesIO()
    with tarfile.open(fileobj=link, mode="w") as archive:
        info = tarfile.TarInfo("hard")
        info.type, info.linkname = tarfile.LNKTYPE, "nowhere"
        archive.addfile(info)
    for tar, why in (
        (b"no tar at all" * 100, "checksum"),
        (make_tar({"a": b"1"})[:600], "too early"),
        (make_tar({"../../x": b"1"}), "leaves the root"),
        (link.getvalue(), "does not exist"),
    ):
        with pytest.raises(IntegrityError, match=why):
            await make(store, image, tar)
        with pytest.raises(NotFoundError):
            find_image(store, "made:1")
    with pytest.raises(LimitError, match="what web has changed is larger than 1000 B"):
        write(store, make_tar({"a": b"1"}), max_bytes=1000)
    assert not list(store.content.ingest_directory.iterdir())
    delete(store, image.reference)
    sweep(store)
    assert not list(store.content.list())


async def test_a_docker_image_stays_one(stub: Stub, store: Store) -> None:
    image = await fetch(stub, store, {"a": b"1"})
    base = read_base(store.content, image.manifest_digest, what="app")
    manifest = replace(
        base.manifest,
        media_type=DOCKER_MANIFEST,
        config=replace(base.manifest.config, media_type=DOCKER_CONFIG),
    )
    async with store.using():
        layer = write(store, make_tar({"b": b"2"}))
        docker = replace(base, manifest=manifest)
        made = await derive(store, docker, base.config, layer, NAME, progress=NoProgress())
    written = json.loads(store.content.read(made.digest, max_bytes=1 << 20))
    assert written["mediaType"] == DOCKER_MANIFEST
    assert written["config"]["mediaType"] == DOCKER_CONFIG
    assert written["layers"][-1]["mediaType"].endswith("rootfs.diff.tar.gzip")


async def test_one_that_is_cancelled_leaves_nothing(stub: Stub, store: Store) -> None:
    image = await fetch(stub, store, {"a": b"1"})
    making = asyncio.create_task(make(store, image, make_tar({"b": b"2" * (8 << 20)})))
    while len(list(store.content.list())) < 5:
        await asyncio.sleep(0)
    making.cancel()
    with pytest.raises(asyncio.CancelledError):
        await making
    with pytest.raises(NotFoundError):
        find_image(store, "made:1")
    assert {path.suffix for path in store.paths.rootfs.iterdir()} == {".erofs", ".lock"}
    sweep(store)
    assert len(list(store.content.list())) == 3
