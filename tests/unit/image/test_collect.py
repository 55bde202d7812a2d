import asyncio
import json
from types import SimpleNamespace

import click
import pytest
from click.testing import CliRunner

from tests.unit.image.conftest import AMD64, QUICK, Stub, make_tar
from woodlot.aio.images import Images
from woodlot.cli.image import image as image_group
from woodlot.errors import ConfigError, NotFoundError, StateError, WoodlotError
from woodlot.image.collect import delete, sweep
from woodlot.image.image import Image, load
from woodlot.image.pull import pull
from woodlot.oci.digest import Digest
from woodlot.store.store import Store


async def fetch(stub: Stub, store: Store, name: str) -> Image:
    return await pull(store, f"{stub.host}/{name}", platform=AMD64, timeouts=QUICK)


def record(store: Store, image: Image, *, state: str = "stopped", name: str = "web") -> None:
    spec = {
        "image": str(image.reference),
        "image_digest": image.manifest_digest,
        "rootfs": str(image.rootfs),
    }
    store.containers.insert(f"id-{name}", name, spec, {"state": state})


async def test_sweep_keeps_what_is_shared(stub: Stub, store: Store) -> None:
    base = make_tar({"base": b"1"})
    stub.add_image(base, tag="1")
    stub.add_image(base, make_tar({"more": b"2"}), tag="2")
    one, two = await fetch(stub, store, "app:1"), await fetch(stub, store, "app:2")
    delete(store, two.reference)
    swept = sweep(store)
    assert swept is not None
    assert (swept.blobs, swept.rootfs) == (3, 1)
    assert swept.bytes_freed > 0
    assert load(store, one.reference, AMD64) == one
    assert store.content.has(one.layers[0].digest)
    assert not two.rootfs.exists()
    (store.paths.rootfs / f".{'0' * 64}.erofs.abc.tmp").write_bytes(b"killed build")
    delete(store, one.reference)
    sweep(store)
    assert not list(store.content.list())
    assert not list(store.paths.rootfs.iterdir())
    with pytest.raises(NotFoundError, match="no such image"):
        delete(store, one.reference)


async def test_images_in_use_stay(stub: Stub, store: Store) -> None:
    stub.add_index(
        stub.add_image(tag=None) | {"platform": {"os": "linux", "architecture": "amd64"}}
    )
    image = await fetch(stub, store, "app:1")
    record(store, image)
    with pytest.raises(StateError, match="is used by container web") as caught:
        delete(store, image.reference)
    assert caught.value.hint == "container rm web"
    delete(store, image.reference, force=True)
    sweep(store)
    # What the container was made from is still there, though it has no name.
    assert image.rootfs.exists()
    assert store.content.has(image.layers[0].digest)
    store.containers.delete("id-web")
    sweep(store)
    assert not image.rootfs.exists()
    assert not list(store.content.list())


async def test_force_does_not_touch_a_running_container(stub: Stub, store: Store) -> None:
    stub.add_image()
    image = await fetch(stub, store, "app:1")
    record(store, image, state="running")
    with pytest.raises(StateError, match="which is running"):
        delete(store, image.reference, force=True)


async def test_second_name_may_go(stub: Stub, store: Store) -> None:
    stub.add_image()
    image, other = await fetch(stub, store, "app:1"), await fetch(stub, store, "copy:1")
    record(store, image)
    delete(store, other.reference)
    with pytest.raises(StateError):
        delete(store, image.reference)


async def test_no_sweep_while_somebody_pulls(stub: Stub, store: Store) -> None:
    stub.add_image()
    image = await fetch(stub, store, "app:1")
    async with store.using():
        delete(store, image.reference)
        assert sweep(store) is None
        assert image.rootfs.exists()
    assert sweep(store) is not None
    assert not image.rootfs.exists()


async def test_commands(stub: Stub, store: Store) -> None:
    stub.add_image(tag="1")
    stub.add_image(make_tar({"two": b""}), tag="2")
    images = [await fetch(stub, store, f"app:{tag}") for tag in (1, 2)]
    # Commands have loops of their own.
    await asyncio.to_thread(check_commands, stub, store, images)


def check_commands(stub: Stub, store: Store, images: list[Image]) -> None:
    def run(*args: str) -> str:
        result = CliRunner().invoke(
            image_group,
            args,
            obj=SimpleNamespace(client=SimpleNamespace(images=Images(store))),
            catch_exceptions=True,
        )
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        if result.exit_code:
            raise click.ClickException(result.output)
        return result.stdout

    table = run("ls").splitlines()
    assert table[0].split() == ["NAME", "TAG", "DIGEST"]
    assert table[1].split() == [f"{stub.host}/app", "1", images[0].digest[7:19]]
    assert run("list", "-q").split() == [f"{stub.host}/app:1", f"{stub.host}/app:2"]
    assert "MANIFEST DIGEST" in run("ls", "-v")
    assert [item["id"] for item in json.loads(run("ls", "--format", "json"))] == [
        image.digest for image in images
    ]
    [shown] = json.loads(run("inspect", f"{stub.host}/app:1"))
    assert shown["variants"][0]["config"]["config"]["Cmd"] == ["sh"]
    for wrong in (("ls", "-q", "-v"), ("rm",), ("rm", "-a", "x")):
        with pytest.raises(click.ClickException, match="Usage"):
            run(*wrong)
    with pytest.raises(
        WoodlotError, match=r"2 images were not deleted:\n  no such image"
    ) as caught:
        run("rm", "nope", f"{stub.host}/app:1", "BAD")
    assert caught.value.message.count("\n") == 2
    assert run("ls", "-q").split() == [f"{stub.host}/app:2"]
    assert run("rm", "-f", "nope") == ""
    assert run("rm", "-a").split() == [f"{stub.host}/app:2"]
    assert run("ls", "-q") == ""
    assert not list(store.content.list())


def test_digest_names_are_listed_whole(store: Store) -> None:
    store.images.put(
        reference="docker.io/library/a@sha256:" + "0" * 64,
        digest=Digest("sha256:" + "0" * 64),
        media_type="x",
        size=1,
    )
    result = CliRunner().invoke(
        image_group, ["ls"], obj=SimpleNamespace(client=SimpleNamespace(images=Images(store)))
    )
    assert result.stdout.splitlines()[1].split() == ["a", "<none>", "0" * 12]
    with pytest.raises(ConfigError):
        load(store, "A")
