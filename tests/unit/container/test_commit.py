"""Images of containers, whose guest is scripted."""

import contextlib
from collections.abc import AsyncGenerator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.unit.container.images import add_image
from tests.unit.container.specs import WEB
from tests.unit.image.conftest import make_tar
from woodlot.container import commit as commit_module
from woodlot.container import sockets, state
from woodlot.container.commit import CommitRequest, commit, describe
from woodlot.container.create import Request, build_spec
from woodlot.container.health import HealthRequest
from woodlot.container.lifecycle import Container
from woodlot.container.spec import ContainerSpec
from woodlot.errors import ConfigError, LimitError, NotFoundError, StateError
from woodlot.image.image import find_image, load
from woodlot.oci.config import ImageConfig
from woodlot.oci.platform import parse_platform
from woodlot.store.store import Store

AMD64 = parse_platform("linux/amd64")
IMAGE: Mapping[str, object] = {
    "Cmd": ["serve"], "Entrypoint": ["/entry", "--"], "Env": ["PATH=/bin", "A=1"], "WorkingDir": "/srv", "User": "www",
    "Labels": {"tier": "front"}, "Volumes": {"/data": {}}, "ExposedPorts": {"80/tcp": {}}, "StopSignal": "15",
    "Healthcheck": {"Test": ["CMD", "true"], "Interval": 10**9},
}  # fmt: skip


def made(
    store: Store, config: Mapping[str, object], **asked: Any
) -> tuple[ContainerSpec, ImageConfig]:
    """A container of an image with this configuration, and its image's."""
    add_image(store, "app:1", config)
    image = load(store, "app:1", AMD64)
    return build_spec(image, Request(**asked)), image.config


def test_a_container_that_asks_for_nothing_is_as_its_image(store: Store) -> None:
    spec, base = made(store, IMAGE)
    config = describe(spec, base, CommitRequest(author="Ann"))
    assert config.created is not None
    assert config == replace(base, author="Ann", created=config.created)


def test_a_bare_image_gets_nothing_that_every_container_has(store: Store) -> None:
    spec, base = made(store, {"Cmd": ["sh"]}, tty=True)
    assert {text.split("=")[0] for text in spec.process.env} == {"PATH", "HOSTNAME", "TERM"}
    agent = f"{sockets.SSH_VARIABLE}={sockets.SSH_SOCKET}"
    process = replace(spec.process, env=(*spec.process.env, agent))
    spec = replace(spec, ssh=True, process=process)
    config = describe(spec, base, CommitRequest())
    assert config == replace(base, created=config.created)


def test_what_a_container_was_made_with_is_its_images(store: Store) -> None:
    spec, base = made(
        store,
        IMAGE,
        args=("go", "now"),
        env=("A=2", "HOSTNAME=mine", "B="),
        user="root",
        workdir="/",
        labels=("own=x",),
        volumes=("/anonymous", "named:/named"),
        ports=("8080:90", "53:53/udp"),
        health=HealthRequest(command="probe", retries=2),
    )
    config = describe(spec, base, CommitRequest())
    assert config.entrypoint == ("/entry", "--")
    assert config.cmd == ("go", "now")
    assert config.env == ("PATH=/bin", "HOSTNAME=mine", "A=2", "B=")
    assert (config.user, config.workdir) == ("root", "/")
    assert config.labels == {"tier": "front", "own": "x"}
    assert config.volumes == ("/anonymous", "/data")
    assert config.exposed_ports == ("53/udp", "80/tcp", "90/tcp")
    assert config.healthcheck == {
        "Test": ["CMD-SHELL", "probe"], "Interval": 10**9, "Timeout": 30 * 10**9, "StartPeriod": 0,
        "StartInterval": 5 * 10**9, "Retries": 2,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "entrypoint", "command"),
    [
        ({"entrypoint": "x"}, ("x",), ()),
        ({"entrypoint": "x", "args": ("y",)}, ("x",), ("y",)),
        ({"entrypoint": "", "args": ("y",)}, (), ("y",)),
    ],
)
def test_entrypoints(
    store: Store, asked: dict[str, Any], entrypoint: tuple[str, ...], command: tuple[str, ...]
) -> None:
    spec, base = made(store, IMAGE, **asked)
    config = describe(spec, base, CommitRequest())
    assert (config.entrypoint, config.cmd) == (entrypoint, command)


def test_no_health_check_is_told_too(store: Store) -> None:
    spec, base = made(store, IMAGE, health=HealthRequest(disabled=True))
    config = describe(spec, base, CommitRequest())
    assert config.healthcheck == {"Test": ["NONE"]}
    assert describe(replace(spec, health=None), config, CommitRequest()).healthcheck == {
        "Test": ["NONE"]
    }


def test_changes_come_last(store: Store) -> None:
    spec, base = made(store, IMAGE, args=("go",), env=("B=2",))
    changes = ('ENTRYPOINT ["e"]', "ENV C=$B$A", "WORKDIR sub")
    config = describe(spec, base, CommitRequest(changes=changes))
    assert (config.entrypoint, config.cmd, config.workdir) == (("e",), (), "/srv/sub")
    assert config.env[-1] == "C=21"


@pytest.mark.parametrize(
    "request_",
    [
        CommitRequest(reference="Upper:1"),
        CommitRequest(reference="app@sha256:" + "0" * 64),
        CommitRequest(message="\udcff"),
        CommitRequest(author="\0"),
        CommitRequest(changes=("RUN x",)),
    ],
)
async def test_what_cannot_be_asked(store: Store, request_: CommitRequest) -> None:
    spec, _ = made(store, IMAGE)
    with pytest.raises(ConfigError):
        await commit(store, Container(spec=spec, state=state.Created()), request_)


class Guest:
    """In place of a container's files."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = pieces
        self.gone_on: list[bool] = []
        self.error: Exception | None = None

    @contextlib.asynccontextmanager
    async def reach(self, store: Store, container: Container) -> AsyncGenerator["Guest"]:
        assert store.containers.name_taken(container.spec.id)
        yield self

    async def export_layer(self, *, going: bool) -> AsyncGenerator[bytes]:
        self.gone_on.append(going)
        for piece in self.pieces:
            yield piece
        if self.error is not None:
            raise self.error


@pytest.fixture
def guest(monkeypatch: pytest.MonkeyPatch) -> Guest:
    guest = Guest(make_tar({"new": b"1"}))
    monkeypatch.setattr(commit_module, "reach", guest.reach)
    return guest


@pytest.fixture
def web(store: Store) -> Container:
    """One of an image whose layer is no tar: it is read only when another above it is unpacked."""
    add_image(store, "app:1", IMAGE)
    image = load(store, "app:1", AMD64)
    spec = replace(WEB, image=str(image.reference), image_digest=image.manifest_digest)
    store.containers.insert(spec.id, spec.name, spec.to_json(), state.to_json(state.Created()))
    return Container(spec=spec, state=state.Created())


async def test_commit(store: Store, guest: Guest, web: Container) -> None:
    guest.pieces = (bytes(1024),)
    image = await commit(
        store, web, CommitRequest(reference="made", message="m", author="Ann", pause=False)
    )
    assert guest.gone_on == [True]
    assert load(store, "made", AMD64).config == image.config
    (entry,) = image.config.history
    assert (entry.comment, entry.author, entry.empty_layer) == ("m", "Ann", True)
    assert entry.created_by == "sh -c echo é"
    (told,) = [one for one in store.events.read() if one.action == "commit"]
    assert told.attributes["imageID"] == image.digest
    assert told.attributes["comment"] == "m"
    unnamed = await commit(store, web)
    assert guest.gone_on == [True, False]
    assert unnamed.reference.is_unnamed
    tagged = [one.id for one in store.events.read() if one.action == "tag"]
    assert tagged == [image.digest]


@pytest.mark.parametrize("error", [StateError("it is being stopped"), ZeroDivisionError()])
async def test_a_guest_that_breaks_off(
    store: Store, guest: Guest, web: Container, error: Exception
) -> None:
    guest.error = error
    before = set(store.content.list())
    with pytest.raises(type(error)):
        await commit(store, web, CommitRequest(reference="made"))
    with pytest.raises(NotFoundError):
        find_image(store, "made")
    assert set(store.content.list()) == before
    assert not list(store.content.ingest_directory.iterdir())


async def test_a_guest_that_never_ends(
    store: Store, guest: Guest, web: Container, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("WOODLOT_IMAGE_MAX_SIZE", "1m")
    guest.pieces = (bytes(1 << 19),) * 100
    with pytest.raises(LimitError, match="container web has changed is larger"):
        await commit(store, web)
    assert not list(store.content.ingest_directory.iterdir())
