"""Pulling from a real registry, with the real builder of root filesystems."""

import base64
import json
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.integration.registry.conftest import PASSWORD, USER, Registry
from woodlot.errors import AuthError, NotFoundError, RegistryError
from woodlot.image.collect import delete, sweep
from woodlot.image.image import find_image, load
from woodlot.image.pull import pull
from woodlot.oci.platform import parse_platform
from woodlot.paths import Paths
from woodlot.store.store import Store

AMD64, ARM64 = parse_platform("amd64"), parse_platform("arm64")


@pytest.fixture
def store(tmp_path: Path) -> Generator[Store]:
    store = Store(Paths(data=tmp_path / "data", runtime=tmp_path))
    yield store
    store.close()


@pytest.mark.parametrize("tag", ["1", "zstd", "docker"])
async def test_plain(plain_registry: Registry, store: Store, tag: str) -> None:
    image = await pull(store, f"{plain_registry.host}/app:{tag}", platform=AMD64)
    assert image.config.cmd == ("sh",)
    # The magic number of EROFS, at 1024.
    assert image.rootfs.read_bytes()[1024:1028] == b"\xe2\xe1\xf5\xe0"
    assert load(store, image.reference, AMD64) == image
    delete(store, image.reference)
    assert sweep(store)
    assert not list(store.content.list())


async def test_platforms_share_layers_and_rootfs(plain_registry: Registry, store: Store) -> None:
    name = f"{plain_registry.host}/app:multi"
    amd = await pull(store, name, platform=AMD64)
    arm = await pull(store, name, platform=ARM64)
    assert amd.digest == arm.digest
    assert amd.manifest_digest != arm.manifest_digest
    assert amd.rootfs == arm.rootfs
    assert len(find_image(store, name).variants) == 2
    pinned = await pull(store, f"{plain_registry.host}/app@{amd.digest}", platform=AMD64)
    assert pinned.manifest_digest == amd.manifest_digest
    with pytest.raises(NotFoundError, match="not available for linux/s390x"):
        await pull(store, name, platform=parse_platform("s390x"))


async def test_missing(plain_registry: Registry, store: Store) -> None:
    for name in ("app:nope", "nope"):
        with pytest.raises(NotFoundError, match="no such image"):
            await pull(store, f"{plain_registry.host}/{name}", platform=AMD64)


async def test_wrong_scheme(
    plain_registry: Registry, secure_registry: Registry, store: Store
) -> None:
    with pytest.raises(RegistryError) as caught:
        await pull(store, f"{plain_registry.host}/app:1", platform=AMD64, scheme="https")
    assert "--scheme http" in (caught.value.hint or "")
    with pytest.raises(RegistryError) as caught:
        await pull(store, f"{secure_registry.host}/app:1", platform=AMD64, scheme="http")
    assert caught.value.hint == "use --scheme https"


async def test_tls_and_password(
    secure_registry: Registry, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"{secure_registry.host}/app:1"
    with pytest.raises(RegistryError, match=r"certificate of .* is not trusted") as untrusted:
        await pull(store, name, platform=AMD64, scheme="https")
    assert "certs.d" in (untrusted.value.hint or "")
    directory = tmp_path / "xdg/woodlot/certs.d" / secure_registry.host
    directory.mkdir(parents=True)
    assert secure_registry.authority is not None
    (directory / "ca.crt").write_bytes(secure_registry.authority.read_bytes())
    with pytest.raises(AuthError, match="wants credentials"):
        await pull(store, name, platform=AMD64, scheme="https")
    monkeypatch.setenv("CONTAINER_REGISTRY_HOST", secure_registry.host)
    monkeypatch.setenv("CONTAINER_REGISTRY_USER", USER)
    monkeypatch.setenv("CONTAINER_REGISTRY_TOKEN", "wrong")
    with pytest.raises(AuthError, match="does not accept"):
        await pull(store, name, platform=AMD64, scheme="https")
    monkeypatch.setenv("CONTAINER_REGISTRY_TOKEN", PASSWORD)
    assert (await pull(store, name, platform=AMD64, scheme="https")).rootfs.exists()


async def test_trust_by_environment_and_docker_login(
    secure_registry: Registry, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(secure_registry.authority))
    config = tmp_path / "docker/config.json"
    config.parent.mkdir()
    auth = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    config.write_text(json.dumps({"auths": {secure_registry.host: {"auth": auth}}}))
    image = await pull(store, f"{secure_registry.host}/app:multi", platform=AMD64, scheme="https")
    assert image.rootfs.exists()
