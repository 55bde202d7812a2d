"""An ordinary user: installs from this checkout, pulls, runs and deletes, and owns all that this makes."""

import grp
import json
import os
import pwd
import shutil
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.leaks import SETTLE_S, find_sockets
from tests.programs import require_root
from tests.user import User

pytestmark = pytest.mark.vm


@pytest.fixture
def runtime_directory(directory: Path, user: User) -> Iterator[Path]:
    """What a login manager gives as XDG_RUNTIME_DIR."""
    path = directory / "run"
    path.mkdir(mode=0o700)
    os.chown(path, user.uid, -1)
    yield path
    shutil.rmtree(path)


def expect_private(path: Path, user: User) -> None:
    status = path.lstat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid) == (0o700, user.uid), path


def test_a_user_fetches_a_kernel_and_learns_what_is_used(user: User) -> None:
    status = json.loads(user("system", "status", "--format", "json"))
    assert status["ready"] is True, status
    assert status["kernel"].startswith("debian-")
    assert status["accelerator"] in {"kvm", "tcg"}
    assert Path(status["dataRoot"]) == user.data
    assert Path(status["runtimeRoot"]) == user.runtime
    expect_private(user.data, user)
    expect_private(user.runtime, user)


def test_without_the_right_to_kvm_it_is_said_and_done_without(user: User) -> None:
    require_root()
    group = closed_group(user)
    status = json.loads(user("system", "status", "--format", "json", kvm_group=group))
    assert status["ready"] is True
    assert status["accelerator"] == "tcg"
    reason = status["acceleratorReason"]
    assert "no permission to open /dev/kvm" in reason
    assert f"sudo usermod -aG {group} $USER" in reason


def closed_group(user: User) -> str:
    """A group that the user is not in: the one of /dev/kvm where there is one."""
    groups = {entry.gr_name: entry.gr_gid for entry in grp.getgrall()}
    theirs = os.getgrouplist(user.name, pwd.getpwuid(user.uid).pw_gid)
    return next(name for name in ("kvm", "adm", "daemon") if groups.get(name, -1) not in {-1, *theirs})  # fmt: skip


def test_a_user_runs_containers(user: User, pulled: str) -> None:
    assert user("run", "--rm", pulled, "id").startswith("uid=0(root) gid=0(root)")
    assert user("run", "--rm", "-i", pulled, "cat", input="woodlot\n") == "woodlot\n"
    assert user("list", "--all", "--quiet") == ""


def test_a_user_has_containers_in_the_background(
    user: User, pulled: str, runtime_directory: Path
) -> None:
    # Where /dev/kvm can be closed to the user, the container runs all the same.
    group = closed_group(user) if user.become else None
    published = runtime_directory / "published.sock"
    user(
        "run", "-d", "--name", "web", "--publish-socket", f"{published}:/run/web.sock", pulled, "sleep", "1000",
        runtime=runtime_directory, kvm_group=group,
    )  # fmt: skip
    assert (published.lstat().st_uid, published.lstat().st_mode & 0o777) == (user.uid, 0o600)
    (listed,) = json.loads(user("ls", "--format", "json", runtime=runtime_directory))
    assert (listed["name"], listed["status"]["state"]) == ("web", "running")
    assert group is None or listed["status"]["accelerator"] == "tcg"
    expect_private(runtime_directory / "woodlot", user)
    assert find_sockets(runtime_directory)
    directory = user.data / "containers" / listed["id"]
    expect_private(directory, user)
    assert {path.lstat().st_uid for path in user.data.rglob("*")} == {user.uid}
    assert user("rm", "-f", "web", runtime=runtime_directory) == "web\n"
    assert not directory.exists()
    assert not published.exists()
    # The switch of the network stays for some seconds, in case another container comes.
    deadline = time.monotonic() + 2 * SETTLE_S
    while find_sockets(runtime_directory):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_nothing_is_left_but_data_and_caches(user: User, pulled: str) -> None:
    assert user("ls", "--all", "--quiet") == ""
    assert list((user.data / "containers").iterdir()) == []
    deadline = time.monotonic() + 2 * SETTLE_S
    while list(user.runtime.iterdir()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert list(user.home.glob(".local/**/.*.tmp")) == []
    if user.become:
        deadline = time.monotonic() + SETTLE_S
        while user.processes() and time.monotonic() < deadline:
            time.sleep(0.1)
        assert user.processes() == []
        assert user.temporary() == {user.runtime}
        given = {path.name for path in Path("/etc/skel").iterdir()}
        assert {path.name for path in user.home.iterdir()} - given == {".local"}
    user("image", "rm", pulled)
    assert user("images", "--quiet") == ""
    assert list((user.data / "rootfs").iterdir()) == []
