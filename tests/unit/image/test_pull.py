"""Pulling from a registry that fails, lies and dawdles."""

import asyncio
import contextlib
import gzip
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.unit.image.conftest import (
    AMD64,
    GZIP_LAYER,
    QUICK,
    Reply,
    Stub,
    make_tar,
    sha256,
)
from woodlot.errors import (
    AuthError,
    IntegrityError,
    LimitError,
    NotFoundError,
    RegistryError,
    UnsupportedError,
    WoodlotError,
)
from woodlot.image.image import Image, find_image, inspect, list_images, load
from woodlot.image.pull import pull
from woodlot.oci.digest import Digest
from woodlot.oci.manifest import MAX_MANIFEST_BYTES, OCI_INDEX, OCI_MANIFEST
from woodlot.oci.platform import parse_platform
from woodlot.oci.transport import Timeouts
from woodlot.paths import Paths
from woodlot.rootfs import build
from woodlot.store.store import Store

# Does not compress, so that a blob has about this size.
NOISE = make_tar({"noise": os.urandom(300_000)})


async def fetch(stub: Stub, store: Store, name: str = "app:1", timeouts: Timeouts = QUICK) -> Image:
    return await pull(store, f"{stub.host}/{name}", platform=AMD64, timeouts=timeouts)


def layer_of(stub: Stub, tar: bytes = NOISE) -> str:
    digest = sha256(gzip.compress(tar, 1, mtime=0))
    assert digest in stub.blobs
    return digest


def nothing_visible(store: Store) -> bool:
    return not store.images.list() and not list(store.paths.rootfs.glob("*.erofs"))


async def test_pull_then_load(stub: Stub, store: Store) -> None:
    stub.add_image()
    image = await fetch(stub, store)
    assert image == load(store, f"{stub.host}/app:1", AMD64)
    assert image.rootfs.stat().st_size > 0
    assert image.config.cmd == ("sh",)
    assert not list(store.content.ingest_directory.iterdir())
    [listed] = list_images(store)
    shown = inspect(store, listed)
    assert json.dumps(shown)
    assert shown["id"] == image.digest
    before = len(stub.requests)
    await fetch(stub, store)
    assert len(stub.requests) == before + 1  # the tag may have moved; everything else is here


async def test_a_digest_that_is_here_is_not_asked_for_again(stub: Stub, store: Store) -> None:
    digest = stub.add_image()["digest"]
    await fetch(stub, store, f"app@{digest}")
    await stub.stop()
    await fetch(stub, store, f"app@{digest}")
    await stub.start()


async def test_missing_image(stub: Stub, store: Store) -> None:
    with pytest.raises(
        NotFoundError, match=rf"no such image: {stub.host}/app:1 is not on"
    ) as caught:
        await fetch(stub, store)
    assert caught.value.hint
    assert nothing_visible(store)
    with pytest.raises(NotFoundError) as missing:
        load(store, f"{stub.host}/app:1")
    assert missing.value.hint == f"container pull {stub.host}/app:1"


async def test_refused_connection_is_told_at_once(stub: Stub, store: Store) -> None:
    await stub.stop()
    start = time.monotonic()
    with pytest.raises(RegistryError, match="refuses connections"):
        await fetch(stub, store, timeouts=Timeouts())
    assert time.monotonic() - start < 2
    await stub.start()


async def test_unknown_host(store: Store) -> None:
    with pytest.raises(RegistryError, match="cannot be resolved"):
        await pull(store, "registry.invalid/app", platform=AMD64, timeouts=QUICK)


@pytest.mark.parametrize("what", ["layer", "config"])
async def test_wrong_digest(stub: Stub, store: Store, what: str) -> None:
    stub.add_image(NOISE)
    digest = next(d for d in stub.blobs if (d == layer_of(stub)) == (what == "layer"))
    data = stub.blobs[digest]
    stub.blobs[digest] = bytes([data[0] ^ 1]) + data[1:]
    with pytest.raises(IntegrityError, match="does not match its digest"):
        await fetch(stub, store)
    assert nothing_visible(store)
    assert not store.content.has(Digest(digest))
    stub.blobs[digest] = data
    await fetch(stub, store)


async def test_manifest_that_does_not_match(stub: Stub, store: Store) -> None:
    digest = str(stub.add_image()["digest"])
    data, media_type = stub.manifests[digest]
    stub.manifests[digest] = (data + b" ", media_type)
    with pytest.raises(IntegrityError, match="does not match its digest"):
        await fetch(stub, store, f"app@{digest}")
    stub.on("/manifests/1", Reply(body=data, headers={"Docker-Content-Digest": sha256(b"other")}))
    with pytest.raises(IntegrityError, match="does not match its digest"):
        await fetch(stub, store)


async def test_truncated_body_is_resumed(stub: Stub, store: Store) -> None:
    stub.add_image(NOISE)
    digest = layer_of(stub)
    stub.on(digest, Reply(body=stub.blobs[digest], cut=100_000), Reply(status=500))
    await fetch(stub, store)
    ranges = [r.headers.get("range") for r in stub.requests if digest in r.path]
    assert ranges == [None, "bytes=100000-", "bytes=100000-"]


async def test_always_truncated_body(stub: Stub, store: Store) -> None:
    stub.add_image(NOISE)
    digest = layer_of(stub)
    half = stub.blobs[digest][:1000]
    stub.ranges = False
    stub.on(digest, Reply(body=half, chunked=True), times=10)
    with pytest.raises(IntegrityError, match="ended after 1000 of"):
        await fetch(stub, store)
    stub.script.clear()
    stub.on(digest, Reply(body=half))
    with pytest.raises(IntegrityError, match="has 1000 bytes"):
        await fetch(stub, store)
    assert nothing_visible(store)


@pytest.mark.parametrize("chunked", [False, True])
async def test_body_longer_than_size(stub: Stub, store: Store, chunked: bool) -> None:
    stub.add_image(NOISE)
    digest = layer_of(stub)
    stub.on(digest, Reply(body=stub.blobs[digest] + b"x", chunked=chunked))
    with pytest.raises(IntegrityError, match=r"is longer than|but \d+ by its manifest"):
        await fetch(stub, store)
    assert nothing_visible(store)


async def test_server_that_ignores_range(stub: Stub, store: Store) -> None:
    stub.add_image(NOISE)
    digest = layer_of(stub)
    stub.ranges = False
    stub.on(digest, Reply(body=stub.blobs[digest], cut=100_000))
    await fetch(stub, store)
    assert stub.count(digest) == 2


@pytest.mark.parametrize(
    ("status", "span"),
    [(416, ""), (206, ""), (206, "bytes 0-5/300"), (206, "bytes 7-*/*")],
)
async def test_range_answers_that_make_no_sense(
    stub: Stub, store: Store, status: int, span: str
) -> None:
    stub.add_image(NOISE)
    digest = layer_of(stub)
    stub.on(
        digest,
        Reply(body=stub.blobs[digest], cut=100_000),
        Reply(status=status, headers={"Content-Range": span.replace("300", str(len(NOISE)))}),
    )
    if "300" in span:
        with pytest.raises(IntegrityError):
            await fetch(stub, store)
    else:
        await fetch(stub, store)
        assert stub.requests[-1].headers.get("range") is None


async def test_damaged_partial_file_is_fetched_again(stub: Stub, store: Store) -> None:
    stub.add_image(NOISE)
    digest = layer_of(stub)
    partial = store.content.ingest_directory / digest.replace(":", "-")
    partial.parent.mkdir(parents=True)
    partial.write_bytes(b"x" * 1000)
    await fetch(stub, store)
    assert [r.headers.get("range") for r in stub.requests if digest in r.path] == [
        "bytes=1000-",
        None,
    ]


async def test_server_errors_then_success(stub: Stub, store: Store) -> None:
    stub.add_image()
    stub.on("/manifests/", Reply(status=503), Reply(status=500))
    stub.on("/blobs/", Reply(status=502))
    await fetch(stub, store)


async def test_server_errors_only(stub: Stub, store: Store) -> None:
    stub.add_image()
    said = b'{"errors":[{"code":"UNKNOWN","message":"all \\u001b[31m broken"}]}'
    stub.on("/manifests/", Reply(status=500, body=said), times=9)
    with pytest.raises(RegistryError) as caught:
        await fetch(stub, store)
    assert stub.count("/manifests/") == QUICK.attempts
    assert caught.value.details == "HTTP 500 from 127.0.0.1: UNKNOWN all ?[31m broken"


async def test_retry_after(stub: Stub, store: Store) -> None:
    stub.add_image()
    stub.on("/manifests/", Reply(status=429, headers={"Retry-After": "1"}))
    start = time.monotonic()
    await fetch(stub, store)
    assert 1 <= time.monotonic() - start < 5
    stub.on("/manifests/", Reply(status=429, headers={"Retry-After": "3600"}))
    with pytest.raises(RegistryError, match="limits how often") as caught:
        await fetch(stub, store)
    assert "3600 s" in (caught.value.hint or "")


async def test_bearer_flow(stub: Stub, store: Store) -> None:
    stub.add_image()
    stub.auth = "bearer"
    await fetch(stub, store, "org/app:1")
    [token] = [r for r in stub.requests if r.path.startswith("/token")]
    assert "service=stub" in token.path
    # What is asked for is what we need, not what the registry proposes.
    assert "scope=repository%3Aorg%2Fapp%3Apull" in token.path
    assert "push" not in token.path


async def test_bearer_with_credentials(
    stub: Stub, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub.add_image()
    stub.auth = "bearer-private"
    with pytest.raises(AuthError, match="wants credentials") as caught:
        await fetch(stub, store)
    assert "WOODLOT_REGISTRY_TOKEN" in (caught.value.hint or "")
    monkeypatch.setenv("CONTAINER_REGISTRY_HOST", stub.host)
    monkeypatch.setenv("CONTAINER_REGISTRY_USER", "joe")
    monkeypatch.setenv("CONTAINER_REGISTRY_TOKEN", "wrong")
    with pytest.raises(AuthError, match="does not accept the credentials from CONTAINER"):
        await fetch(stub, store)
    monkeypatch.setenv("CONTAINER_REGISTRY_TOKEN", "secret")
    await fetch(stub, store)
    sent = [r.headers.get("authorization", "") for r in stub.requests if "/v2/" in r.path]
    assert not any(value.startswith("Basic") for value in sent)


async def test_expired_token_is_renewed(stub: Stub, store: Store) -> None:
    stub.add_image(NOISE)
    stub.auth = "bearer"
    digest = layer_of(stub)
    stub.on(digest, Reply(status=401, headers={"WWW-Authenticate": stub._challenge()}))
    await fetch(stub, store)
    assert stub.count("/token") == 2


async def test_basic(stub: Stub, store: Store, tmp_path: Path) -> None:
    stub.add_image()
    stub.auth = "basic"
    with pytest.raises(AuthError):
        await fetch(stub, store)
    config = tmp_path / "docker/config.json"
    config.parent.mkdir()
    config.write_text(json.dumps({"auths": {stub.host: {"auth": "am9lOnNlY3JldA=="}}}))
    await fetch(stub, store)
    config.write_text(json.dumps({"auths": {stub.host: {"auth": "am9lOndyb25n"}}}))
    with pytest.raises(AuthError, match="does not accept"):
        await fetch(stub, store)


async def test_token_larger_than_allowed(stub: Stub, store: Store) -> None:
    stub.add_image()
    stub.auth = "bearer"
    stub.on("/token", Reply(body=b'{"token":"' + b"x" * (2 << 20)))
    with pytest.raises(RegistryError, match=r"token from .* is larger than"):
        await fetch(stub, store)


async def test_redirect_does_not_carry_authorization(
    stub: Stub, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Stub()
    await other.start()
    stub.add_image(NOISE)
    stub.auth = "basic"
    for name, value in (("HOST", stub.host), ("USER", "joe"), ("TOKEN", "secret")):
        monkeypatch.setenv(f"WOODLOT_REGISTRY_{name}", value)
    digest = layer_of(stub)
    target = f"http://eve:pw@{other.host}/storage/{digest}?sig=1"
    other.blobs = stub.blobs
    redirect = Reply(status=307, headers={"Location": target})
    stub.on("/manifests/", Reply(status=401, headers={"WWW-Authenticate": 'Basic realm="x"'}))
    stub.on(digest, redirect)
    await fetch(stub, store)
    [request] = other.requests
    assert "authorization" not in request.headers
    # A challenge of that other host is not answered.
    other.requests.clear()
    store.content.delete(Digest(digest))
    stub.on(digest, redirect)
    other.on("/storage", Reply(status=401, headers={"WWW-Authenticate": 'Basic realm="x"'}))
    with pytest.raises(AuthError):
        await fetch(stub, store)
    assert all("authorization" not in request.headers for request in other.requests)
    await other.stop()


async def test_redirect_loop(stub: Stub, store: Store) -> None:
    stub.add_image()
    stub.on("/blobs/", Reply(status=302, headers={"Location": "/v2/x/blobs/y"}), times=100)
    with pytest.raises(RegistryError, match=r"redirects .* more than 5 times"):
        await fetch(stub, store)
    assert stub.count("/blobs/") < 20


@pytest.mark.parametrize("location", ["ftp://x/y", "file:///etc/passwd", ""])
async def test_redirect_to_nowhere(stub: Stub, store: Store, location: str) -> None:
    stub.add_image()
    headers = {"Location": location} if location else {}
    stub.on("/manifests/", Reply(status=302, headers=headers))
    with pytest.raises(RegistryError, match="no valid address"):
        await fetch(stub, store)


@pytest.mark.parametrize("reply", [Reply(hang=True), Reply(body=b"x" * 99, drip_s=0.1)])
async def test_manifest_that_never_ends(stub: Stub, store: Store, reply: Reply) -> None:
    stub.on("/manifests/", reply, times=9)
    start = time.monotonic()
    with pytest.raises(RegistryError, match="stopped answering"):
        await fetch(stub, store)
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("drip_s", [5, 0.1])
async def test_blob_that_trickles(stub: Stub, store: Store, drip_s: float) -> None:
    stub.add_image(NOISE)
    digest = layer_of(stub)
    stub.on(digest, Reply(body=stub.blobs[digest], drip_s=drip_s), times=9)
    start = time.monotonic()
    with pytest.raises(RegistryError, match="stopped answering"):
        await fetch(stub, store)
    assert time.monotonic() - start < 5
    assert nothing_visible(store)


@pytest.mark.parametrize("chunked", [False, True])
async def test_huge_manifest(stub: Stub, store: Store, chunked: bool) -> None:
    stub.on("/manifests/", Reply(body=b" " * (MAX_MANIFEST_BYTES + 1), chunked=chunked))
    with pytest.raises(IntegrityError, match="larger than"):
        await fetch(stub, store)


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"[" * 100_000, b"\xff", b'{"schemaVersion":2}', b"9" * 9999]
)
async def test_nonsense_manifest(stub: Stub, store: Store, data: bytes) -> None:
    stub.on("/manifests/", Reply(body=data))
    with pytest.raises(IntegrityError):
        await fetch(stub, store)


async def test_encoded_body_is_refused(stub: Stub, store: Store) -> None:
    stub.add_image()
    bomb = gzip.compress(b"{}" * 1000)
    stub.on("/manifests/", Reply(body=bomb, headers={"Content-Encoding": "gzip"}))
    with pytest.raises(RegistryError, match="encoding gzip"):
        await fetch(stub, store)
    assert stub.requests[0].headers["accept-encoding"] == "identity"


async def test_index(stub: Stub, store: Store) -> None:
    arm = stub.add_image(make_tar({"arm": b""}), tag=None, platform="linux/arm64")
    amd = stub.add_image(make_tar({"amd": b""}), tag=None)
    unknown = {"platform": {"os": "unknown", "architecture": "unknown"}}
    attestation = stub.add_image(make_tar({"x": b""}), tag=None) | unknown
    stub.add_index(
        attestation,
        arm | {"platform": {"os": "linux", "architecture": "arm64", "variant": "v8"}},
        amd | {"platform": {"os": "linux", "architecture": "amd64"}},
    )
    image = await fetch(stub, store)
    assert (image.manifest_digest, image.platform) == (amd["digest"], AMD64)
    with pytest.raises(NotFoundError, match="not here for linux/arm64") as caught:
        load(store, f"{stub.host}/app:1", parse_platform("linux/arm64"))
    assert "--platform linux/arm64" in (caught.value.hint or "")
    arm64 = await pull(
        store, f"{stub.host}/app:1", platform=parse_platform("aarch64"), timeouts=QUICK
    )
    assert arm64.manifest_digest == arm["digest"]
    assert len(find_image(store, f"{stub.host}/app:1").variants) == 2
    with pytest.raises(NotFoundError, match="not available for linux/s390x") as missing:
        await pull(store, f"{stub.host}/app:1", platform=parse_platform("s390x"), timeouts=QUICK)
    assert missing.value.details == "available: linux/amd64, linux/arm64"


async def test_index_that_does_not_say_its_platforms(stub: Stub, store: Store) -> None:
    arm = stub.add_image(make_tar({"arm": b""}), tag=None, platform="linux/arm64")
    amd = stub.add_image(make_tar({"amd": b""}), tag=None)
    stub.add_index(stub.add_index(arm, amd, tag=None))
    assert (await fetch(stub, store)).manifest_digest == amd["digest"]
    assert load(store, f"{stub.host}/app:1", AMD64).manifest_digest == amd["digest"]


async def test_single_manifest_of_another_platform(stub: Stub, store: Store) -> None:
    stub.add_image(platform="linux/arm64")
    with pytest.raises(NotFoundError, match="is for linux/arm64, not for linux/amd64"):
        await fetch(stub, store)


async def test_nested_index_bomb(stub: Stub, store: Store) -> None:
    deep = stub.add_index(tag=None)
    for _ in range(10):
        deep = stub.add_index(deep, tag="1")
    with pytest.raises(IntegrityError, match="nested deeper"):
        await fetch(stub, store)
    wide = [
        stub.add_manifest(
            {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [], "n": n}, tag=None
        )
        for n in range(500)
    ]
    stub.add_index(*wide)
    with pytest.raises(IntegrityError, match="leads to more than"):
        await fetch(stub, store)
    assert stub.count("/manifests/") < 100


async def test_count_mismatch(stub: Stub, store: Store) -> None:
    stub.add_image(diff_ids=[sha256(b"1"), sha256(b"2")])
    with pytest.raises(IntegrityError, match="has 1 layers, but its configuration names 2"):
        await fetch(stub, store)


async def test_diff_id_mismatch(stub: Stub, store: Store) -> None:
    stub.add_image(diff_ids=[sha256(b"other")])
    with pytest.raises(IntegrityError):
        await fetch(stub, store)
    assert nothing_visible(store)


@pytest.mark.parametrize(
    ("layer_type", "said"),
    [
        ("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", "foreign"),
        ("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", "foreign"),
        (GZIP_LAYER + "+encrypted", "encrypted"),
        ("text/plain", "unknown type"),
    ],
)
async def test_layers_we_do_not_read(stub: Stub, store: Store, layer_type: str, said: str) -> None:
    stub.add_image(layer_type=layer_type)
    with pytest.raises(UnsupportedError, match=said):
        await fetch(stub, store)


async def test_not_an_image(stub: Stub, store: Store) -> None:
    chart = "application/vnd.cncf.helm.config.v1+json"
    config = stub.add_blob(b"{}", chart)
    stub.add_manifest(
        {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": []}, tag="1"
    )
    with pytest.raises(UnsupportedError, match=re.escape(f"artifact of type {chart}")):
        await fetch(stub, store)


async def test_layers_larger_than_allowed(
    stub: Stub, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub.add_image(NOISE)
    monkeypatch.setenv("WOODLOT_IMAGE_MAX_SIZE", "100k")
    with pytest.raises(LimitError, match="more than the"):
        await fetch(stub, store)
    assert not stub.count(layer_of(stub))


async def test_concurrent_pulls_fetch_and_build_once(
    stub: Stub, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[Path] = []
    real = build.build_rootfs

    async def counted(*args: object, **named: object) -> object:
        built.append(Path(str(args[1])))
        return await real(*args, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(build, "build_rootfs", counted)
    stub.add_image(NOISE)
    stores = [Store(paths) for _ in range(4)]
    images = await asyncio.gather(*(fetch(stub, store) for store in stores))
    assert len({image.rootfs for image in images}) == 1
    assert stub.count(layer_of(stub)) == 1
    assert len(built) == 1
    for store in stores:
        store.close()


async def test_cancelled_pull_is_resumed(stub: Stub, store: Store) -> None:
    stub.add_image(NOISE)
    digest = layer_of(stub)
    gate = asyncio.Event()
    patient = Timeouts(read_idle_s=30)
    stub.on(digest, Reply(body=stub.blobs[digest], gate=gate))
    task = asyncio.create_task(fetch(stub, store, timeouts=patient))
    while not stub.count(digest):
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert nothing_visible(store)
    await fetch(stub, store)
    size = len(stub.blobs[digest])
    assert stub.requests[-1].headers.get("range") == f"bytes={size - 1}-"


PULL = """
import asyncio, sys
from pathlib import Path
from woodlot.image.pull import pull
from woodlot.oci.platform import parse_platform
from woodlot.paths import Paths
from woodlot.store.store import Store
store = Store(Paths(data=Path(sys.argv[1]), runtime=Path(sys.argv[1])))
asyncio.run(pull(store, sys.argv[2], platform=parse_platform("linux/amd64")))
"""


async def test_killed_pull_leaves_nothing_partial(stub: Stub, store: Store) -> None:
    big = make_tar({"noise": os.urandom(3_000_000)})
    stub.add_image(big)
    digest = layer_of(stub, big)
    stub.on(digest, Reply(body=stub.blobs[digest], gate=asyncio.Event()))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [sys.executable, "-c", PULL, str(store.paths.data), f"{stub.host}/app:1"], env=environment
    )
    partial = store.content.ingest_directory / digest.replace(":", "-")
    async with asyncio.timeout(20):
        while not partial.exists() or partial.stat().st_size < 1 << 20:
            await asyncio.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert nothing_visible(store)
    assert not store.content.has(Digest(digest))
    image = await fetch(stub, store)
    assert image.rootfs.exists()
    offset = int((stub.requests[-1].headers["range"]).removeprefix("bytes=").removesuffix("-"))
    assert offset >= 1 << 20


async def test_damaged_layer_is_fetched_again(stub: Stub, store: Store) -> None:
    stub.add_image(NOISE)
    digest = Digest(layer_of(stub))
    image = await fetch(stub, store)
    image.rootfs.unlink()
    with pytest.raises(NotFoundError, match=r"root filesystem of image .* is missing"):
        load(store, image.reference, AMD64)
    await fetch(stub, store)  # the layer is here
    assert stub.count(digest) == 1
    image.rootfs.unlink()
    path = store.content.path(digest)
    path.write_bytes(b"\0" * path.stat().st_size)
    await fetch(stub, store)
    assert stub.count(digest) == 2
    assert image.rootfs.exists()


async def test_damaged_documents_are_fetched_again(stub: Stub, store: Store) -> None:
    stub.add_image()
    image = await fetch(stub, store)
    for digest in store.content.list():
        path = store.content.path(digest)
        path.write_bytes(b"x" * path.stat().st_size)
    with pytest.raises(NotFoundError) as caught:
        load(store, image.reference, AMD64)
    assert "container pull" in (caught.value.hint or "")
    image.rootfs.unlink()
    await fetch(stub, store)
    assert load(store, image.reference, AMD64) == image


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
async def test_full_disk(stub: Stub, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "woodlot-test", str(small)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"cannot mount a tmpfs here: {mounted.stderr.strip()}")
    store = Store(Paths(data=small, runtime=tmp_path))
    try:
        big = make_tar({"noise": os.urandom(3_000_000)})
        stub.add_image(big)
        with pytest.raises(LimitError, match=rf"disk at {small} is full \(.* free\)"):
            await fetch(stub, store)
        assert nothing_visible(store)
        assert not list(store.content.ingest_directory.iterdir())
    finally:
        store.close()
        subprocess.run(["umount", str(small)], check=True)


async def test_every_error_is_ours(stub: Stub, store: Store) -> None:
    """Whatever byte of a small manifest is wrong, what comes out is an error of ours or an image."""
    stub.add_image()
    data, media_type = stub.manifests["1"]
    for position in range(0, len(data), 7):
        broken = data[:position] + b"\x01" + data[position + 1 :]
        stub.manifests["1"] = (broken, media_type)
        with contextlib.suppress(WoodlotError):
            await fetch(stub, store)
