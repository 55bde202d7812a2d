"""Files of the host in containers: what is shared, what is not, and what is left when something dies.

``WOODLOT_TEST_FILES=10000`` makes a tree of that many; the default is a sample.
"""

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli import PROGRAM, Cli
from tests.leaks import find_processes
from tests.programs import require_programs, require_root, skip_or_fail
from tests.registry.server import Registry
from tests.user import User
from woodlot.errors import NotFoundError
from woodlot.files.virtiofsd import PLACES, find_virtiofsd

pytestmark = pytest.mark.vm

FILES = int(os.environ.get("WOODLOT_TEST_FILES", "2000"))
# Runs in the guest, then on the host: makes a tree, and tells what is there, whoever asks.
MAKE = """
import os, random
random.seed(7)
for number in range(count):
    directory = f"d{number % 40}/s{number % 7}"
    os.makedirs(directory, exist_ok=True)
    path = f"{directory}/f{number}"
    with open(path, "wb") as file:
        file.write(random.randbytes(random.choice((0, 1, 100, 5000))))
    if number % 3 == 0:
        os.chown(path, number, number + 1)
    os.chmod(path, random.choice((0o644, 0o600, 0o755, 0o4755, 0o2711, 0o444)))
    os.utime(path, ns=(number * 10**9 + 5, number * 10**9 + 7))
os.symlink("/nowhere", "link"); os.link("d1/s1/f1", "second"); os.mkfifo("pipe", 0o640)
os.setxattr("second", "user.note", b"kept"); os.chmod("d1", 0o2770)
"""
TELL = """
import hashlib, json, os
def tell(path):
    s = os.lstat(path)
    text = ""
    if os.path.islink(path): text = os.readlink(path)
    elif os.path.isfile(path): text = hashlib.sha256(open(path, "rb").read()).hexdigest()
    notes = {n: os.getxattr(path, n, follow_symlinks=False).hex() for n in os.listxattr(path, follow_symlinks=False)}
    return [path, oct(s.st_mode), s.st_uid, s.st_gid, s.st_size if not os.path.isdir(path) else 0, s.st_mtime_ns, s.st_nlink, text, notes]
rows = [tell(os.path.join(d, n)) for d, ds, fs in os.walk(".") for n in ds + fs]
print(json.dumps(sorted(rows)))
"""


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
def tree(tmp_path: Path) -> Path:
    """A secret, and beside it a directory that is shared, with links that lead to the secret."""
    source = tmp_path / "shared"
    (source / "sub").mkdir(parents=True)
    (tmp_path / "secret").write_text("secret\n")
    (source / "file").write_text("file\n")
    (source / "sibling").write_text("sibling\n")
    (source / "absolute").symlink_to(tmp_path / "secret")
    (source / "up").symlink_to("../secret")
    (source / "sub/far").symlink_to("../" * 12 + str(tmp_path / "secret"))
    return source


@contextlib.contextmanager
def ended(process: "subprocess.Popen[bytes]") -> Iterator[None]:
    try:
        yield
    finally:
        process.kill()
        process.communicate()


def test_a_tree_written_by_the_guest_is_the_same_on_the_host(
    container: Cli, registry: Registry, tmp_path: Path
) -> None:
    python = registry.reference("python:3.11")
    script = f"count = {FILES}; import os; os.chdir('/shared')\n{MAKE}\n{TELL}"
    guest = container.ok(
        "run", "--rm", "-v", f"{tmp_path}:/shared", python, "python3", "-c", script,
        timeout_s=240 + FILES / 10,
    )  # fmt: skip
    told = json.loads(guest)
    assert len(told) > FILES + 300
    host = subprocess.run(["python3", "-c", TELL], cwd=tmp_path, capture_output=True, check=True)
    seen = json.loads(host.stdout)
    if os.geteuid() != 0:
        pytest.skip("owners are mapped")
    assert seen == told


def test_what_is_shared_and_what_is_not(container: Cli, image: str, tree: Path) -> None:
    script = """
        cat /dir/file /one/file /etc/hosts /dir/sub/inner/file
        echo new > /dir/new && echo more >> /one/file
        mkdir /one/x && echo the image can be written
        for f in /dir/absolute /dir/up /dir/sub/far /one/sibling /one/../sibling; do cat $f && echo ESCAPED; done
        for f in /ro/x /ro/sub/x /etc/hosts /dir/sub/inner/x; do echo x > $f && echo WRITTEN; done
        rm /ro/file && echo REMOVED
        ls /made; cat /memory/x || touch /memory/x && mount | grep -c ' /memory type tmpfs'
        exit 0
    """
    done = container(
        "run", "--rm",
        "-v", "./shared:/dir",
        "-v", f"{tree}/file:/one/file",
        "-v", f"{tree}:/ro:ro",
        "-v", f"{tree.parent}/made/here:/made",
        "--mount", f"type=bind,source={tree}/file,target=/etc/hosts,readonly",
        "--mount", f"type=bind,source={tree},target=/dir/sub/inner,readonly",
        "--mount", "type=tmpfs,target=/memory,tmpfs-size=1m",
        image, "sh", "-c", script,
        cwd=tree.parent,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == "file\n" * 4 + "the image can be written\n1\n", done.stdout + done.stderr
    assert done.stderr.count("Read-only file system") == 5, done.stderr
    assert done.stderr.count("No such file") >= 5, done.stderr
    assert (tree / "new").read_text() == "new\n"
    assert (tree / "file").read_text() == "file\nmore\n"
    assert not (tree / "x").exists()
    made = tree.parent / "made/here"
    assert (made.stat().st_mode & 0o777, made.parent.stat().st_mode & 0o777) == (0o755, 0o755)


def test_mistakes_are_told_before_anything_starts(container: Cli, image: str, tree: Path) -> None:
    missing = f"{tree}/missing"
    for args, says in (
        (("--mount", f"type=bind,source={missing},target=/x"), f"{missing}: No such file"),
        (("-v", f"{tree}:/x", "-v", f"{tree}/sub:/x/"), "two mounts have the destination /x"),
        (("-v", f"{tree}:x"), "the destination must be absolute"),
        (("-v", f"{tree}/link:/x"), "No such file"),
    ):
        (tree / "link").unlink(missing_ok=True)
        (tree / "link").symlink_to("nowhere")
        done = container("run", "--rm", *args, image, "true")
        assert done.returncode == 125, done.stderr
        assert says in done.stderr
        assert "hint: " in done.stderr
    assert not Path(missing).exists()


def test_a_file_is_not_mounted_over_a_directory(container: Cli, image: str, tree: Path) -> None:
    done = container("run", "--rm", "-v", f"{tree}/file:/bin", image, "true")
    assert done.returncode == 125
    assert "is a directory" in done.stderr


def test_two_containers_share_a_directory_at_once(container: Cli, image: str, tree: Path) -> None:
    wait = "while [ ! -e /s/%s ]; do sleep 0.1; done; cat /s/%s"
    first = f"echo one > /s/.one; mv /s/.one /s/one; {wait % ('two', 'two')}"
    second = f"{wait % ('one', 'one')}; echo two > /s/.two; mv /s/.two /s/two"
    one = container.popen("run", "--rm", "-v", f"{tree}:/s", image, "sh", "-c", first)
    with ended(one):
        assert container.ok("run", "--rm", "-v", f"{tree}:/s", image, "sh", "-c", second) == "one\n"
        assert one.communicate(timeout=60)[0] == b"two\n"


def servers(root: Path) -> list[int]:
    return [pid for pid, line in find_processes(root).items() if "virtiofsd" in line]


def running(container: Cli, name: str) -> Path:
    """The directory of a running container."""
    (found,) = json.loads(container.ok("inspect", name))
    assert found["status"]["state"] == "running"
    return container.root / "containers" / str(found["id"])


def wait_gone(directory: Path) -> None:
    deadline = time.monotonic() + 10
    while (left := find_processes(directory)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left == {}


@pytest.mark.parametrize(
    ("script", "codes"),
    [
        # Nothing is under way when it dies.
        ("cat /s/file; sleep 6; cat /s/file || ls /s || exit 9", {9}),
        # Something may be, which nobody can end: then the container ends.
        ("(while cat /s/file; do :; done) > /dev/null 2>&1; ls /s; exit 9", {9, 137}),
    ],
    ids=["idle", "busy"],
)
def test_a_killed_server_is_an_error_and_never_a_hang(
    container: Cli, image: str, tree: Path, script: str, codes: set[int]
) -> None:
    container.ok("run", "-d", "--name", "io", "-v", f"{tree}:/s", image, "sh", "-c", script)
    directory = running(container, "io")
    time.sleep(1)
    for pid in servers(directory):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 40
    said_why = False
    while True:
        (found,) = json.loads(container.ok("inspect", "io"))
        said_why = said_why or "filesLost" in found["status"]
        if found["status"]["state"] == "stopped" or time.monotonic() > deadline:
            break
        time.sleep(0.3)
    told = (directory / "supervisor.log").read_text()
    assert found["status"]["state"] == "stopped", told
    assert found["status"]["exitCode"] in codes, told
    # One that is idle runs on for seconds; the other may be over before anybody looks.
    assert said_why or 137 in codes, told
    assert f"the file server for {tree} ended with" in found["status"]["reason"]
    assert f"the file server for {tree} ended with" in told
    wait_gone(directory)


def test_nothing_outlives_a_killed_supervisor(container: Cli, image: str, tree: Path) -> None:
    container.ok("run", "-d", "--name", "k", "-v", f"{tree}:/s", image, "sleep", "1000")
    directory = running(container, "k")
    assert servers(directory)
    # The one that holds the lock.
    (holder,) = [
        pid for pid, line in find_processes(directory).items()
        if "qemu" not in line and "virtiofsd" not in line
    ]  # fmt: skip
    os.kill(holder, signal.SIGKILL)
    wait_gone(directory)


def test_a_missing_server_is_told_with_its_package(container: Cli, image: str, tree: Path) -> None:
    require_root()
    require_programs("unshare")
    hide = "; ".join(f"[ ! -e {place} ] || mount --bind /dev/null {place}" for place in PLACES)
    done = subprocess.run(
        [
            "unshare", "--mount", "sh", "-c", f'{hide}; PATH=/usr/sbin:/usr/bin:/sbin:/bin exec "$@"', "sh",
            str(PROGRAM), "run", "--rm", "-v", f"{tree}:/s", image, "true",
        ],
        env=container.environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 125
    assert "the program virtiofsd is not on this machine" in done.stderr
    assert "apt install" in done.stderr


def subuids(user: User) -> list[tuple[int, int]]:
    """First id and count of the ranges that useradd gave the user; the same in /etc/subgid."""
    lines = [line.split(":") for line in Path("/etc/subuid").read_text().splitlines()]
    return [(int(first), int(count)) for name, first, count in lines if name == user.name]


def test_a_user_shares_files_as_themselves(user: User, pulled: str) -> None:
    if user.become:
        require_programs("newuidmap", "usermod")
    source = user.home / "shared"
    script = (
        "cat /s/mine; id -u; echo root > /s/root; adduser -D app 2>/dev/null; "
        "touch /s/app && chown 1000:1000 /s/app && echo mapped; stat -c %u /s/mine /s/app; exit 0"
    )
    for mapped in (True, False) if user.become else (False,):
        subprocess.run([*user.become, "rm", "-rf", str(source)], check=False)
        subprocess.run([*user.become, "mkdir", str(source)], check=True)
        subprocess.run([*user.become, "sh", "-c", f"echo mine > {source}/mine"], check=True)
        ranges = subuids(user)
        if not mapped:
            for first, count in ranges:
                for kind in ("uids", "gids"):
                    change = [
                        "usermod",
                        f"--del-sub{kind}",
                        f"{first}-{first + count - 1}",
                        user.name,
                    ]
                    subprocess.run(change, check=user.become != ())
        # Without a network: its switch would stay, and usermod wants a user without processes.
        out = user(
            "run", "--rm", "--network", "none", "-v", f"{source}:/s", pulled, "sh", "-c", script
        ).split()
        assert out == ["mine", "0", *(["mapped", "0", "1000"] if mapped else ["0", "0"])]
        assert (source / "root").stat().st_uid == user.uid
        owner = (source / "app").stat().st_uid
        assert owner == (ranges[0][0] + 999 if mapped else user.uid)
