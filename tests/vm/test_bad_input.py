"""What can go wrong with `container run`: one error that names the object and the next step, and nothing half-made."""

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import leaks
from tests.cli import PROGRAM, Cli
from tests.programs import require_programs, require_root
from tests.registry.server import Registry

pytestmark = pytest.mark.vm

# Bounds what hangs, on a machine that is busy with other things.
TIMEOUT_S = 100.0
FAST_S = 30.0
MIB = 1 << 20


@pytest.fixture(scope="module")
def busybox(woodlot_root: Path, registry: Registry) -> str:
    reference = registry.reference("busybox:1.35")
    base = woodlot_root.parent
    Cli(root=woodlot_root, home=base / "home", runtime=base / "run").ok("pull", reference)
    return reference


@pytest.fixture(autouse=True)
def nothing_is_left(container: Cli) -> Iterator[None]:
    """After every test there is no container, no directory of one, and no process that knows of any."""
    yield
    expect_nothing(container)


def expect_nothing(cli: Cli) -> None:
    assert cli.ok("list", "--all", "--quiet") == ""
    directory = cli.root / "containers"
    assert not directory.exists() or list(directory.iterdir()) == []
    deadline = time.monotonic() + leaks.SETTLE_S
    while (found := leaks.find_processes(cli.root)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert found == {}
    assert leaks.find_sockets(cli.runtime) == []


def refused(done: "subprocess.CompletedProcess[str]", *said: str, status: int = 125) -> None:
    assert done.returncode == status, done.stderr
    assert done.stdout == ""
    expect_error(done, *said)


def expect_error(done: "subprocess.CompletedProcess[str]", *said: str) -> None:
    lines = done.stderr.splitlines()
    assert sum(line.lower().startswith("error: ") for line in lines) == 1, done.stderr
    assert "Traceback" not in done.stderr
    for words in said:
        assert words in done.stderr, done.stderr


# Before there is a virtual machine.


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["-k", "/etc/passwd"], ["/etc/passwd is no Linux kernel image", "hint: give a bzImage"]),
        (["-k", "/nonexistent"], ["the kernel /nonexistent is not a file", "hint: "]),
        (["-k", "/etc"], ["the kernel /etc is not a file", "hint: "]),
        (["-m", "900G"], ["--memory must be ", "got 921600m", "hint: give less"]),
        (["-m", "1m"], ["--memory must be ", "got 1m", "hint: give more"]),
    ],
)
def test_what_cannot_be_had_is_told_at_once(
    container: Cli, busybox: str, args: list[str], said: list[str]
) -> None:
    refused(container("run", *args, busybox, "true", timeout_s=FAST_S), *said)


def test_no_such_flag_is_a_mistake_in_the_command_line(container: Cli, busybox: str) -> None:
    refused(container("run", "--nosuch", busybox, timeout_s=FAST_S), "--nosuch", status=64)


def test_no_qemu(container: Cli, busybox: str, tmp_path: Path) -> None:
    done = container("run", busybox, "true", env={"PATH": str(tmp_path)}, timeout_s=FAST_S)
    refused(done, "the program qemu-system-", "is not on this machine", "hint: ", "install")


def test_no_memory_for_the_monitor(container: Cli, busybox: str) -> None:
    require_programs("prlimit")
    # Python gets along with that; no guest of 1 GiB fits.
    done = subprocess.run(
        ["prlimit", f"--as={1000 * MIB}", PROGRAM, "run", "--name", "big", busybox, "true"],
        env=container.environment(),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    refused(done, "QEMU for big could not start", "hint: give the container less memory")


# A guest that does not do its part.


def test_a_panic_at_boot(container: Cli, busybox: str) -> None:
    done = container(
        "run", "--name", "first", "--kernel-arg", "rdinit=/nonexistent", busybox, "true",
        timeout_s=TIMEOUT_S,
    )  # fmt: skip
    refused(done, "container first: ", "guest panicked: VFS: Unable to mount root fs", "hint: ")


def test_an_agent_that_does_not_answer(container: Cli, busybox: str) -> None:
    # It listens where the host does not ask.
    done = container(
        "run", "--name", "mute", "--kernel-arg", "woodlot.control=vsock", busybox, "true",
        env={"WOODLOT_VM_BOOT_TIMEOUT": "4"}, timeout_s=TIMEOUT_S,
    )  # fmt: skip
    refused(
        done,
        "container mute: the guest agent did not answer within 4 s",
        "hint: raise vm.boot_timeout",
    )


def test_a_taken_name_and_a_panic_of_a_running_guest(container: Cli, busybox: str) -> None:
    """The kernel is told to panic where it would kill a process for its memory."""
    script = "echo up; read go; dd if=/dev/zero of=/dev/shm/x bs=1M count=60"
    with container.popen(
        "run", "-i", "--name", "crash", "-m", "16m", "--kernel-arg", "sysctl.vm.panic_on_oom=2",
        busybox, "sh", "-c", script, stdin=True,
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        second = container("run", "--name", "crash", busybox, "true", timeout_s=FAST_S)
        refused(second, "the name 'crash' is taken by container", "hint: ", "container rm crash")
        stdout, stderr = process.communicate(b"\n", TIMEOUT_S)
    done = subprocess.CompletedProcess(process.args, process.returncode, "", stderr.decode())
    # It ran, so this is no refusal but its end, as if the plug had been pulled.
    assert (done.returncode, stdout) == (137, b"")
    expect_error(done, "container crash: ", "guest panicked: Out of memory", "hint: see ")
    console = Path(done.stderr.partition("hint: see ")[2].split(" for ")[0])
    assert b"Kernel panic" in console.read_bytes()
    assert "guest panicked" in container.ok("inspect", "crash")
    container.ok("rm", "crash")


# A disk that is full.


@dataclass(frozen=True, slots=True, kw_only=True)
class SmallDisk:
    """A data directory on a small disk of its own."""

    cli: Cli

    def fill(self) -> None:
        """Take all the room there is."""
        with (self.cli.root / "fill").open("wb", buffering=0) as file:
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(4096))


@pytest.fixture
def small_disk(
    make_cli: Callable[[str], Cli], container: Cli, request: pytest.FixtureRequest
) -> Iterator[SmallDisk]:
    """With room for as many bytes as the test's parameter says; kernels and the like are elsewhere."""
    require_root()
    mounted = make_cli("small")
    shared = {path.name: path.readlink() for path in mounted.root.iterdir()}
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={request.param},mode=0700", "woodlot-test", mounted.root],
        check=True,
    )  # fmt: skip
    try:
        for name, target in shared.items():
            (mounted.root / name).symlink_to(target)
        _share_accelerator(container, mounted)
        yield SmallDisk(cli=mounted)
        expect_nothing(mounted)
    finally:
        mounted("delete", "--all", "--force")
        subprocess.run(["umount", mounted.root], check=True)
        shutil.rmtree(mounted.root)


def _share_accelerator(container: Cli, other: Cli) -> None:
    """Spare another data directory the search for what is known."""
    known = container.root / "accelerator.json"
    if known.exists():
        (other.root / known.name).symlink_to(known)


@pytest.mark.parametrize("small_disk", [700 << 10], indirect=True)
def test_a_full_disk_while_pulling(small_disk: SmallDisk, registry: Registry) -> None:
    cli, reference = small_disk.cli, registry.reference("busybox:1.35")
    for _ in range(2):
        done = cli("run", "--name", "x", reference, "true", timeout_s=FAST_S)
        refused(done, f"the disk at {cli.root} is full", "hint: remove images or containers")
        assert cli.ok("images", "-q") == ""
        assert [path for path in (cli.root / "content/ingest").iterdir() if path.is_file()] == []


@pytest.mark.parametrize("small_disk", [6 << 20], indirect=True)
def test_a_full_disk_while_running(small_disk: SmallDisk, registry: Registry) -> None:
    cli, reference = small_disk.cli, registry.reference("busybox:1.35")
    cli.ok("pull", reference)
    script = "echo up; dd if=/dev/urandom of=/big bs=64k count=64 2>/dev/null; sync; exit 3"
    done = cli("run", "--name", "big", reference, "sh", "-c", script, timeout_s=TIMEOUT_S)
    # The process saw errors of its disk, and has the last word.
    assert (done.returncode, done.stdout) == (3, "up\n")
    expect_error(done, "container big: the host's disk is full", f"free some space at {cli.root}")
    # What is written to a full disk is not there; what is there can still be seen and removed.
    assert "stopped" in cli.ok("list", "--all")
    refused(
        cli("run", reference, "true", timeout_s=FAST_S),
        f"the disk at {cli.root} is full",
        "hint: remove images or containers",
    )
    assert cli.ok("rm", "big") == "big\n"
    assert cli.ok("list", "--all", "-q") == ""
    small_disk.fill()
    refused(cli("run", reference, "true", timeout_s=FAST_S), f"the disk at {cli.root} is full")
    assert cli.ok("list", "--all", "-q") == ""
    assert cli.ok("image", "rm", reference).strip() == reference


# Files of ours that are damaged.


@pytest.fixture
def copied(
    make_cli: Callable[[str], Cli], container: Cli, busybox: str, tmp_path: Path
) -> Iterator[Cli]:
    """A data directory with busybox and a kernel of its own, to be damaged."""
    cli = make_cli("copied")
    kernels = cli.root / "kernels"
    kernels.rename(tmp_path / "shared")
    shutil.copytree(container.root / "kernels", kernels, symlinks=True)
    _share_accelerator(container, cli)
    cli.ok("pull", busybox)
    yield cli
    expect_nothing(cli)
    shutil.rmtree(cli.root)


def overwrite(path: Path, *, at: int, size: int) -> None:
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.seek(at)
        file.write(os.urandom(size))


def test_damaged_files(copied: Cli, busybox: str) -> None:
    (rootfs,) = (copied.root / "rootfs").glob("*.erofs")
    good = rootfs.read_bytes()
    overwrite(rootfs, at=1024, size=128)
    done = copied("run", "--name", "x", busybox, "true", timeout_s=TIMEOUT_S)
    refused(done, "container x: ", 'disk "image"', f"hint: have the root filesystem made again: rm -f {rootfs}")  # fmt: skip
    expect_nothing(copied)
    rootfs.unlink()
    copied.ok("pull", busybox)
    assert rootfs.read_bytes() == good

    kernel = Path(copied.ok("system", "kernel", "list", "-q").split()[0])
    image = copied.root / "kernels" / kernel / "vmlinuz"
    overwrite(image, at=800_000, size=100_000)
    # Who starts from a template needs no kernel any more.
    copied.ok("system", "template", "prune", "--all")
    done = copied(
        "run", "--name", "x", busybox, "true",
        env={"WOODLOT_VM_BOOT_TIMEOUT": "4"}, timeout_s=TIMEOUT_S,
    )  # fmt: skip
    refused(
        done,
        f"container x: the kernel {kernel} is damaged: {image}",
        "hint: fetch it again: container system kernel set --recommended",
    )
