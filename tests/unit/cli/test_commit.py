"""``container commit``, and what lists show of images without a name."""

import pytest

from tests.unit.cli.conftest import Command, add
from tests.unit.container.images import add_image
from woodlot.container import commit as commit_module
from woodlot.container import state
from woodlot.container.commit import CommitRequest
from woodlot.container.lifecycle import Container
from woodlot.image.image import Image, load
from woodlot.oci.platform import parse_platform
from woodlot.oci.reference import unnamed
from woodlot.progress import Progress
from woodlot.store.store import Store


@pytest.fixture
def asked(world: Store, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, CommitRequest]]:
    requests: list[tuple[str, CommitRequest]] = []

    async def commit(
        store: Store, container: Container, request: CommitRequest, progress: Progress
    ) -> Image:
        del progress
        requests.append((container.spec.name, request))
        return load(store, "busybox:1.35", parse_platform("linux/amd64"))

    monkeypatch.setattr(commit_module, "commit", commit)
    return requests


def test_flags(run: Command, world: Store, asked: list[tuple[str, CommitRequest]]) -> None:
    digest = load(world, "busybox:1.35", parse_platform("linux/amd64")).digest
    told = ["-a", "Ann", "-m", "why", "-c", "USER me", "--change", "ENV A=1", "web", "made:1"]
    assert run.ok("commit", *told) == [digest]
    assert asked == [
        (
            "web",
            CommitRequest(
                reference="made:1", author="Ann", message="why", changes=("USER me", "ENV A=1")
            ),
        )
    ]


@pytest.mark.parametrize(
    ("flags", "pause"),
    [
        ((), True),
        (("-p",), True),
        (("--pause",), True),
        (("--pause=true",), True),
        (("-p=false",), False),
        (("--pause=false",), False),
        (("-p=0",), False),
    ],
)
def test_pause(
    run: Command, asked: list[tuple[str, CommitRequest]], flags: tuple[str, ...], pause: bool
) -> None:
    run.ok("commit", *flags, "web")
    assert asked == [("web", CommitRequest(pause=pause))]


def test_mistakes(run: Command, asked: list[tuple[str, CommitRequest]]) -> None:
    assert run("commit").status == 64
    assert run("commit", "--pause=often", "web").status == 64
    assert run("commit", "nobody").status == 1
    assert asked == []


def test_images_without_a_name(run: Command, store: Store) -> None:
    add_image(store, "made:1")
    record = store.images.get("docker.io/library/made:1")
    assert record is not None
    store.images.delete(record.reference)
    store.images.put(
        reference=str(unnamed(record.digest)),
        digest=record.digest,
        media_type=record.media_type,
        size=record.size,
    )
    digits = record.digest.removeprefix("sha256:")
    add_image(store, "busybox:1.35", {"Cmd": ["other"]})
    assert run.ok("image", "ls")[1].split() == ["<none>", "<none>", digits[:12]]
    assert run.ok("image", "ls", "-q", "-f", "dangling=true") == [digits[:12]]
    shown = "{{.Repository}}:{{.Tag}} {{.ID}}"
    assert run.ok("image", "ls", "--format", shown, "-f", "dangling=true") == [
        f"<none>:<none> {digits[:12]}"
    ]
    assert run.ok("image", "inspect", "-f", "{{.RepoTags}} {{.RepoDigests}} {{.Id}}", digits[:12]) == [
        f"[] [] {record.digest}"
    ]  # fmt: skip
    add(store, "a", "web", state.Created(), image=str(unnamed(record.digest)))
    assert run.ok("ls", "-a")[1].split()[:3] == ["a" * 12, "web", digits[:12]]
    store.containers.delete("a" * 64)
    # A prune takes it without --all, too; a name keeps the other.
    assert run.ok("image", "prune", "-f") == [f"<none>@{record.digest}"]
    assert run.ok("image", "ls", "-q") == ["busybox:1.35"]
