"""What a test run leaves behind: processes, sockets and mounts that belong to a directory."""

import contextlib
import os
import signal
import stat
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

SETTLE_S = 5.0


def find_processes(*directories: Path) -> dict[int, str]:
    """Processes that know one of the directories, with their command lines; not this one and its parents.

    To know it is to name it in the arguments or the environment, to work in it, or to hold a file of it open: a
    virtual machine's monitor gets neither our environment nor always a path.
    """
    needles = [os.fsencode(directory) for directory in directories]
    ours = set(_ancestors())
    found: dict[int, str] = {}
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and int(process.name) not in ours:
            known = b"\0".join(_known(process))
            if any(needle in known for needle in needles):
                found[int(process.name)] = _read(process / "cmdline").replace(b"\0", b" ").decode()
    return found


def _ancestors() -> Iterator[int]:
    pid = os.getpid()
    while pid > 0:
        yield pid
        # proc(5): pid (comm) state ppid; comm may hold anything.
        fields = _read(Path(f"/proc/{pid}/stat")).rpartition(b")")[2].split()
        pid = int(fields[1]) if fields else 0


def _known(process: Path) -> Iterator[bytes]:
    yield _read(process / "cmdline")
    yield _read(process / "environ")
    links = [process / "cwd"]
    with contextlib.suppress(OSError):
        links += (process / "fd").iterdir()
    for link in links:
        try:
            yield os.fsencode(link.readlink())
        except OSError:
            continue


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it has ended, or is somebody else's
        return b""


def find_sockets(directory: Path) -> list[Path]:
    """Unix sockets below the directory, served or not."""
    return [path for path in directory.rglob("*") if stat.S_ISSOCK(path.lstat().st_mode)]


def find_mounts(*directories: Path) -> list[str]:
    """Mount points at or below the directories (proc(5), mountinfo: field 5, with octal escapes)."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    points = [line.split()[4].replace("\\040", " ") for line in lines]
    return [
        point
        for point in points
        if any(Path(point).is_relative_to(directory) for directory in directories)
    ]


def find_leaks(root: Path, runtime: Path) -> tuple[list[str], Sequence[int]]:
    """What is left of one woodlot root: in words, and the processes' ids. Gives processes time to end."""
    deadline = time.monotonic() + SETTLE_S
    while (processes := find_processes(root, runtime)) and time.monotonic() < deadline:
        time.sleep(0.1)
    leaks = [f"process {pid}: {command}" for pid, command in processes.items()]
    if runtime.exists():
        leaks += [f"socket {path}" for path in find_sockets(runtime)]
    leaks += [f"mount {point}" for point in find_mounts(root, runtime)]
    return leaks, list(processes)


def kill(pids: Sequence[int]) -> None:
    """End processes that were left behind."""
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
