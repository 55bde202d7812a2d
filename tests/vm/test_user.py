"""An ordinary user: installs from this checkout, pulls, runs and deletes, and owns all that this makes."""

import contextlib
import grp
import json
import os
import pwd
import secrets
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.leaks import SETTLE_S, find_sockets
from tests.programs import require_programs, require_root, skip_or_fail
from tests.registry.server import Registry

pytestmark = pytest.mark.vm

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 120.0
# In a mount namespace of its own: a /dev whose KVM is there, and is the group's alone.
KVM_OF_GROUP = """
mount -t tmpfs -o mode=0755 dev /dev
mknod -m 666 /dev/null c 1 3
mknod -m 666 /dev/urandom c 1 9
mknod -m 660 /dev/kvm c 10 232
chgrp "$1" /dev/kvm
shift
exec "$@"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """Somebody who is not root, and the command as they installed it."""

    name: str
    uid: int
    home: Path
    program: Path
    become: tuple[str, ...]
    """What runs a command as this user; empty for the user who runs the tests."""

    def __call__(
        self,
        *args: str,
        input: str = "",  # noqa: A002 - as subprocess.run calls it
        runtime: Path | None = None,
        kvm_group: str | None = None,
    ) -> str:
        """Run ``container ARGS``, which must end with 0; what it printed to stdout.

        Args:
            args: Of the command.
            input: For its stdin.
            runtime: XDG_RUNTIME_DIR; None leaves it unset.
            kvm_group: Give it a /dev/kvm that only this group may open; needs root.
        """
        # Nothing is inherited: this is what a login gives.
        env = {"HOME": str(self.home), "USER": self.name, "PATH": "/usr/local/bin:/usr/bin:/bin"}
        if runtime is not None:
            env["XDG_RUNTIME_DIR"] = str(runtime)
        argv = [*self.become, str(self.program), *args]
        if kvm_group is not None:
            argv = ["unshare", "--mount", "sh", "-euc", KVM_OF_GROUP, "sh", kvm_group, *argv]
        done = subprocess.run(
            argv,
            input=input,
            env={**env, "PATH": f"{env['PATH']}:/usr/sbin:/sbin"} if kvm_group else env,
            cwd="/",
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        assert done.returncode == 0, f"{argv!r}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    @property
    def data(self) -> Path:
        """Where woodlot keeps this user's data when it is told nothing."""
        return self.home / ".local/share/woodlot"

    @property
    def runtime(self) -> Path:
        """Where it keeps its sockets when there is no XDG_RUNTIME_DIR."""
        return Path(f"/tmp/woodlot-{self.uid}")

    def processes(self) -> list[int]:
        """What runs as this user."""
        found: list[int] = []
        for process in Path("/proc").iterdir():
            with contextlib.suppress(FileNotFoundError):
                if process.name.isdigit() and process.stat().st_uid == self.uid:
                    found.append(int(process.name))
        return found

    def temporary(self) -> set[Path]:
        """What is this user's in /tmp."""
        found: set[Path] = set()
        for path in Path("/tmp").iterdir():
            with contextlib.suppress(FileNotFoundError):
                if path.lstat().st_uid == self.uid:
                    found.add(path)
        return found


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    """A directory that everyone may read: pytest's own are closed to others."""
    made = Path(tempfile.mkdtemp(prefix="wl-user-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="module")
def user(directory: Path) -> Iterator[User]:
    """A user made for these tests, or whoever runs them if that is not root; woodlot is installed for them."""
    require_programs("apt-get", "qemu-system-x86_64" if os.uname().machine == "x86_64" else "qemu-system-aarch64")  # fmt: skip
    if os.geteuid() != 0:
        home = directory / "home"
        home.mkdir()
        name = pwd.getpwuid(os.geteuid()).pw_name
        program = install(directory, ())
        yield User(name=name, uid=os.geteuid(), home=home, program=program, become=())
        return
    require_programs("useradd", "userdel", "setpriv", "unshare")
    name = f"wl-{secrets.token_hex(4)}"
    subprocess.run(["useradd", "--create-home", name], check=True)
    try:
        entry = pwd.getpwnam(name)
        become = ("setpriv", f"--reuid={name}", f"--regid={entry.pw_gid}", "--init-groups")
        program = install(directory, become)
        made = User(
            name=name, uid=entry.pw_uid, home=Path(entry.pw_dir), program=program, become=become
        )
        yield made
        for path in made.temporary():
            shutil.rmtree(path, ignore_errors=True)
    finally:
        subprocess.run(["userdel", "--remove", name], check=True, capture_output=True)


def install(directory: Path, become: Sequence[str]) -> Path:
    """Install this checkout where the user can run it; the command."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    wheels, place = directory / "wheels", directory / "venv"
    run([*pip, "wheel", "--no-deps", "-w", wheels, ROOT])
    (wheel,) = wheels.iterdir()
    run([find_python(become), "-m", "venv", "--without-pip", place])
    run([*pip, "--python", place / "bin/python", "install", wheel])
    return place / "bin/container"


def run(argv: Sequence[str | os.PathLike[str]]) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, umask=0o022, check=False)
    assert done.returncode == 0, f"{argv!r}\n{done.stdout}{done.stderr}"


def find_python(become: Sequence[str]) -> Path:
    """A Python that the user can run: the one that runs the tests may lie in root's home."""
    script = "import sys; sys.exit(sys.version_info < (3, 11))"
    for python in (f"{sys.base_prefix}/bin/python3", "/usr/bin/python3"):
        command = [*become, python, "-c", script]
        with contextlib.suppress(OSError):
            if subprocess.run(command, cwd="/", capture_output=True, check=False).returncode == 0:
                return Path(python)
    return skip_or_fail("no Python 3.11 that an ordinary user can run")


@pytest.fixture(scope="module")
def pulled(user: User, registry: Registry) -> str:
    """An image that the user has pulled."""
    reference = registry.reference("busybox:1.35")
    assert user("pull", reference).strip() == reference
    return reference


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
    user(
        "run", "-d", "--name", "web", pulled, "sleep", "1000",
        runtime=runtime_directory, kvm_group=group,
    )  # fmt: skip
    (listed,) = json.loads(user("ls", "--format", "json", runtime=runtime_directory))
    assert (listed["name"], listed["status"]["state"]) == ("web", "running")
    assert group is None or listed["status"]["accelerator"] == "tcg"
    expect_private(runtime_directory / "woodlot", user)
    assert find_sockets(runtime_directory)
    directory = user.data / "containers" / listed["id"]
    expect_private(directory, user)
    assert {path.lstat().st_uid for path in user.data.rglob("*")} == {user.uid}
    assert user("rm", "-f", "web", runtime=runtime_directory) == "web\n"
    assert find_sockets(runtime_directory) == []
    assert not directory.exists()


def test_nothing_is_left_but_data_and_caches(user: User, pulled: str) -> None:
    assert user("ls", "--all", "--quiet") == ""
    assert list((user.data / "containers").iterdir()) == []
    assert list(user.runtime.iterdir()) == []
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
