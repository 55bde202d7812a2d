"""Volumes in containers: shared, filled with what the image has, with one writer, and gone when they should be."""

import contextlib
import json
import os
import signal
import time
from pathlib import Path

import pytest

from tests.cli import Cli
from tests.leaks import find_processes
from tests.programs import skip_or_fail
from tests.registry.server import Registry
from tests.user import User
from woodlot.errors import NotFoundError
from woodlot.files.virtiofsd import find_virtiofsd

pytestmark = pytest.mark.vm

LIST = "find %s -printf '%%P %%m %%U %%G %%s %%n\\n' | sort"


@pytest.fixture(autouse=True)
def _server() -> None:
    try:
        find_virtiofsd()
    except NotFoundError:
        skip_or_fail("there is no virtiofsd; `make setup` installs it")


@pytest.fixture
def image(registry: Registry) -> str:
    return registry.reference("busybox:1.35")


@pytest.fixture
def python(registry: Registry) -> str:
    return registry.reference("python:3.11")


@pytest.fixture(autouse=True)
def _clean(container: Cli) -> None:
    # Of the test before: volumes outlive containers.
    container("volume", "prune", "--all")


def names(container: Cli) -> list[str]:
    return container.ok("volume", "list", "--quiet").split()


def test_a_volume_outlives_its_containers(container: Cli, image: str) -> None:
    assert container.ok("volume", "create", "-l", "who=me", "data") == "data\n"
    container.ok(
        "run", "--name", "w", "-v", "data:/d", image, "sh", "-c",
        "echo kept > /d/f; chown 70:71 /d/f; chmod 4750 /d/f",
    )  # fmt: skip
    refused = container("volume", "rm", "data")
    assert refused.returncode == 1
    assert "volume data is used by container w" in refused.stderr
    container.ok("rm", "w")
    shown = container.ok(
        "run", "--rm", "--mount", "source=data,target=/d,readonly", image, "sh", "-c",
        "cat /d/f; stat -c '%a %u %g' /d/f; touch /d/x || echo refused",
    )  # fmt: skip
    assert shown == "kept\n4750 70 71\nrefused\n"
    (found,) = json.loads(container.ok("volume", "inspect", "data"))
    assert found["labels"] == {"who": "me"}
    assert (Path(found["source"]) / "f").read_text() == "kept\n"
    assert container.ok("volume", "rm", "data") == "data\n"
    assert not Path(found["source"]).exists()


@pytest.mark.parametrize("kind", ["directory", "block"])
def test_a_new_volume_has_what_the_image_has_there(container: Cli, python: str, kind: str) -> None:
    container.ok("volume", "create", "--opt", f"type={kind}", "etc")
    inside = container.ok(
        "run", "--rm", "-v", "etc:/mnt/etc", "-v", "etc:/etc", python, "sh", "-c", LIST % "/mnt/etc"
    )
    own = container.ok("run", "--rm", python, "sh", "-c", LIST % "/etc")
    # The container's own three files are mounted there; in the volume, their mount points.
    skip = ("hosts ", "hostname ", "resolv.conf ", "mtab ", " ")

    def lines(text: str) -> list[str]:
        # A directory's size and links are the filesystem's business.
        found = [line.rsplit(" ", 2) for line in text.splitlines() if not line.startswith(skip)]
        return [f"{rest} {size}" if links == "1" else rest for rest, size, links in found]

    assert len(lines(own)) > 50
    assert lines(inside) == lines(own)
    # Filled once: what is removed stays removed.
    container.ok("run", "--rm", "-v", "etc:/etc", python, "rm", "/etc/passwd")
    container.ok("run", "--rm", "-v", "etc:/etc", python, "test", "!", "-e", "/etc/passwd")


def test_a_copy_that_was_cut_short_is_made_again(container: Cli, python: str) -> None:
    container.ok("volume", "create", "lib")
    directory = container.root / "volumes/lib"
    process = container.popen("run", "--rm", "-v", "lib:/etc", python, "true")
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and len(list((directory / "data").iterdir())) < 3:
        time.sleep(0.01)
    for pid in find_processes(container.root / "containers"):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.communicate()
    assert (directory / "filling").exists(), "it was over before it could be cut short"
    count = "find /etc | wc -l"
    own = container.ok("run", "--rm", python, "sh", "-c", count)
    again = container.ok("run", "--rm", "-v", "lib:/etc", python, "sh", "-c", count)
    assert again == own
    assert not (directory / "filling").exists()


def test_two_containers_use_a_volume_at_once(container: Cli, image: str) -> None:
    wait = "while [ ! -e /s/{0} ]; do sleep 0.1; done; cat /s/{0}"
    first = f"echo one > /s/.one; mv /s/.one /s/one; {wait.format('two')}"
    second = f"{wait.format('one')}; echo two > /s/.two; mv /s/.two /s/two"
    one = container.popen("run", "--rm", "-v", "shared:/s", image, "sh", "-c", first)
    try:
        assert container.ok("run", "--rm", "-v", "shared:/s", image, "sh", "-c", second) == "one\n"
        assert one.communicate(timeout=60)[0] == b"two\n"
    finally:
        one.kill()
        one.communicate()
    assert names(container) == ["shared"]


def test_a_disk_has_one_writer_or_many_readers(container: Cli, image: str) -> None:
    container.ok("volume", "create", "--opt", "type=block,size=64m", "disk")
    container.ok("run", "-d", "--name", "w", "-v", "disk:/d", image, "sh", "-c", "echo x > /d/f; sleep 1000")  # fmt: skip
    refused = container("run", "--rm", "-v", "disk:/d", image, "true")
    assert refused.returncode == 125
    assert "volume disk is in use by another container" in refused.stderr
    container.ok("rm", "-f", "w")
    # That one was killed: its writer has to close it in order once.
    assert container.ok("run", "--rm", "-v", "disk:/d", image, "sh", "-c", "df /d | wc -l") == "2\n"
    container.ok("run", "-d", "--name", "r", "-v", "disk:/d:ro", image, "sleep", "1000")
    shown = container.ok(
        "run", "--rm", "-v", "disk:/d:ro", image, "sh", "-c", "ls /d; touch /d/x || echo ro"
    )
    assert shown.endswith("ro\n")


def test_what_is_deleted_in_a_disk_is_given_back(container: Cli, image: str) -> None:
    container.ok("volume", "create", "--opt", "type=block,size=256m", "disk")
    disk = container.root / "volumes/disk/disk.ext4"
    container.ok(
        "run", "--rm", "-v", "disk:/d", image, "sh", "-c", "head -c 64m /dev/urandom > /d/f; sync"
    )
    full = disk.stat().st_blocks * 512
    assert full > 64 << 20
    container.ok("run", "--rm", "-v", "disk:/d", image, "sh", "-c", "rm /d/f; sync; sleep 1; sync")
    assert disk.stat().st_blocks * 512 < full - (60 << 20)


def test_anonymous_volumes_go_with_rm_and_stay_without(container: Cli, image: str) -> None:
    script = "echo x > /a/f && grep -c ' /a ext4' /proc/mounts"
    assert container.ok("run", "--rm", "-v", "/a", image, "sh", "-c", script) == "1\n"
    assert names(container) == []
    container.ok("run", "--name", "keep", "-v", "/a", image, "sh", "-c", script)
    (name,) = names(container)
    assert len(name) == 64
    container.ok("rm", "keep")
    assert names(container) == [name]
    assert container.ok("volume", "prune") == f"{name}\n"
    assert list((container.root / "volumes").glob("[0-9a-f]*")) == []


def test_a_user_has_volumes(user: User, pulled: str) -> None:
    script = "echo x > /v/new; echo y > /a/g; cat /a/g"
    out = user("run", "--rm", "-v", "mine:/v", "-v", "/a", pulled, "sh", "-c", script)
    assert out == "y\n"
    assert user("volume", "ls", "-q") == "mine\n"
    assert (user.data / "volumes/mine/data/new").stat().st_uid == user.uid
    assert user("volume", "rm", "mine") == "mine\n"
    assert [p.name for p in (user.data / "volumes").iterdir()] == [".lock"]
