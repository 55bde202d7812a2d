"""The main job, on real images: pull, run in a VM, and leave nothing behind."""

import hashlib
import json
import os
import platform
import signal
import time
from pathlib import Path

import pytest

from tests.cli import Cli
from tests.registry.server import Registry

pytestmark = pytest.mark.vm


@pytest.fixture
def busybox(container: Cli, registry: Registry) -> str:
    reference = registry.reference("busybox:1.35")
    container.ok("pull", reference)
    return reference


def list_containers(container: Cli) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(container.ok("list", "--all", "--format", "json"))
    return found


def test_the_kernel_is_the_guests_own(container: Cli, registry: Registry) -> None:
    # Not pulled before: run does it.
    printed = container.ok(
        "run", "--rm", registry.reference("python:3.11"),
        "python3", "-c", "import os; print(os.uname().release)",
    )  # fmt: skip
    assert printed.strip()
    assert printed.strip() != platform.release()
    assert list_containers(container) == []


def test_stdout_stderr_and_status_are_the_processs_own(container: Cli, busybox: str) -> None:
    done = container("run", "--rm", busybox, "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, "out\n", "err\n")


@pytest.mark.parametrize(
    ("args", "status", "said"),
    [
        (["nosuch"], 127, "nosuch"),
        (["/etc/passwd"], 126, "permission denied"),
        (["sh", "-c", "kill -9 $$; sleep 1; exit 3"], 3, ""),
    ],
)
def test_what_cannot_be_executed_has_dockers_status(
    container: Cli, busybox: str, args: list[str], status: int, said: str
) -> None:
    done = container("run", "--name", "once", busybox, *args)
    assert done.returncode == status
    assert said in done.stderr
    container("rm", "once")
    assert list_containers(container) == []


def test_bytes_go_through_unchanged(container: Cli, busybox: str, tmp_path: Path) -> None:
    data = os.urandom(100 << 20)
    (tmp_path / "in").write_bytes(data)
    with (tmp_path / "in").open("rb") as stdin, (tmp_path / "out").open("wb") as stdout:
        import subprocess

        from tests.cli import PROGRAM

        status = subprocess.run(
            [PROGRAM, "run", "--rm", "-i", busybox, "cat"],
            stdin=stdin,
            stdout=stdout,
            env=container.environment(),
            timeout=300,
            check=False,
        ).returncode
    assert status == 0
    got = hashlib.sha256((tmp_path / "out").read_bytes()).hexdigest()
    assert got == hashlib.sha256(data).hexdigest()


def test_flags_reach_the_process(container: Cli, busybox: str) -> None:
    script = (
        "id -u; id -g; pwd; echo $COLOR; ulimit -n; grep CapEff /proc/self/status;"
        " touch /no 2>&1; df -k /scratch | tail -1 | awk '{print $2}'; cat /sys/fs/cgroup/memory.max"
    )
    printed = container.ok(
        "run", "--rm", "--user", "www", "-w", "/tmp", "-e", "COLOR=green", "--ulimit", "nofile=99:100",
        "--read-only", "--tmpfs", "/scratch:size=1m", "-m", "200m", "--network", "none",
        busybox, "sh", "-c", script,
    )  # fmt: skip
    assert printed.splitlines() == [
        "33", "33", "/tmp", "green", "99", "CapEff:\t0000000000000000",
        "touch: /no: Read-only file system", "1024", str(200 << 20),
    ]  # fmt: skip


def test_capabilities_are_dockers_default(container: Cli, busybox: str) -> None:
    printed = container.ok("run", "--rm", busybox, "grep", "CapEff", "/proc/self/status")
    assert printed.split()[1] == "00000000a80425fb"


def test_a_terminal_has_its_size_and_ctrl_c(container: Cli, busybox: str) -> None:
    with container.terminal("run", "--rm", "-it", busybox, "sh", rows=33, columns=77) as terminal:
        terminal.expect("# ")
        terminal.send("stty size\r")
        terminal.expect("33 77")
        terminal.resize(40, 120)
        terminal.send("sleep 0.3; stty size\r")
        terminal.expect("40 120")
        terminal.send("sleep 1000\r")
        time.sleep(0.5)
        terminal.send("\x03")
        terminal.expect("# ")
        terminal.send("exit 5\r")
        assert terminal.wait() == 5


def test_full_screen_programs_work(container: Cli, busybox: str) -> None:
    with container.terminal("run", "--rm", "-it", busybox, "sh", rows=20, columns=60) as terminal:
        before = terminal.attributes()
        terminal.expect("# ")
        terminal.send("vi /tmp/note\r")
        terminal.expect(r"/tmp/note")
        terminal.send("ifirst\rsecond\x1b")
        # Together with what follows at once, an escape would be the start of a key's sequence.
        terminal.expect(r"- /tmp/note \[Modified\] 2/2")
        terminal.send(":wq\r")
        terminal.expect("# ")
        terminal.send("tr a-z A-Z < /tmp/note\r")
        terminal.expect("FIRST\r\nSECOND\r\n")
        terminal.send("top -d 1\r")
        terminal.expect(r"Load average.*PID +PPID.*Load average")
        terminal.send("q")
        terminal.expect("# ")
        terminal.send("\x04")
        assert terminal.wait() == 0
        assert terminal.attributes() == before


def test_sigterm_to_the_command_reaches_the_process(container: Cli, busybox: str) -> None:
    script = "trap 'echo caught; exit 9' TERM; echo ready; while :; do sleep 0.1; done"
    with container.popen("run", "--rm", busybox, "sh", "-c", script) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.read() == b"caught\n"
        assert process.wait(60) == 9


def test_a_detached_one_is_listed_and_deleted(container: Cli, busybox: str) -> None:
    container_id = container.ok("run", "-d", "--name", "web", busybox, "sleep", "1000").strip()
    assert len(container_id) == 64
    (listed,) = list_containers(container)
    assert (listed["id"], listed["name"]) == (container_id, "web")
    taken = container("run", "-d", "--name", "web", busybox, "true")
    assert (taken.returncode, "is taken" in taken.stderr) == (125, True)
    assert container("rm", "web").returncode == 1
    assert container.ok("rm", "-f", container_id[:8]) == "web\n"
    assert list_containers(container) == []


def inspect(container: Cli, name: str) -> dict[str, dict[str, object]]:
    (found,) = json.loads(container.ok("inspect", name))
    return found  # type: ignore[no-any-return]


def wait_gone(pid: int) -> None:
    """Until the process has ended; who reaps it then is not our business."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return
        if state == "Z":
            return
        time.sleep(0.1)
    raise AssertionError(f"process {pid} still runs")


def wait_stopped(container: Cli, name: str) -> dict[str, object]:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        status = inspect(container, name)["status"]
        if status["state"] == "stopped":
            return status
        time.sleep(0.2)
    raise AssertionError(f"{name} is still running")


def test_a_killed_vm_is_noticed(container: Cli, busybox: str) -> None:
    container.ok("run", "-d", "--name", "victim", busybox, "sleep", "1000")
    pid = inspect(container, "victim")["status"]["pid"]
    assert isinstance(pid, int)
    os.kill(pid, signal.SIGKILL)
    status = wait_stopped(container, "victim")
    assert status["exitCode"] == 137
    assert "SIGKILL" in str(status["reason"])


def test_a_killed_supervisor_takes_its_vm_along(container: Cli, busybox: str) -> None:
    container.ok("run", "-d", "--name", "orphan", busybox, "sleep", "1000")
    pid = inspect(container, "orphan")["status"]["pid"]
    supervisor = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(supervisor, signal.SIGKILL)
    status = wait_stopped(container, "orphan")
    assert status["exitCode"] == 137
    assert isinstance(pid, int)
    wait_gone(pid)
    container.ok("run", "--rm", busybox, "true")


def test_a_killed_command_ends_its_container(container: Cli, busybox: str) -> None:
    with container.popen("run", "--rm", busybox, "sh", "-c", "echo up; sleep 1000") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        process.kill()
    deadline = time.monotonic() + 30
    while list_containers(container) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert list_containers(container) == []


def test_memory_beyond_the_limit_kills_the_process_alone(container: Cli, busybox: str) -> None:
    done = container(
        "run", "--name", "hog", "-m", "64m", busybox,
        "sh", "-c", """awk 'BEGIN { x = "x"; while (1) x = x x }'; echo status $?""",
    )  # fmt: skip
    assert "status 137" in done.stdout or done.returncode == 137
    assert inspect(container, "hog")["status"]["oomKilled"] is True
    assert "stopped (out of memory)" in container.ok("list", "--all")
    container.ok("rm", "hog")


@pytest.mark.parametrize(
    ("args", "status"),
    [
        (["run"], 64),
        (["run", "--nosuch", "x"], 64),
        (["run", "UPPER/case"], 125),
        (["run", "--memory", "lots", "busybox"], 125),
        (["run", "--cap-add", "nosuch", "busybox"], 125),
        (["run", "--name", "-x", "busybox"], 125),
        (["rm"], 64),
        (["rm", "nosuch"], 1),
        (["inspect", "nosuch"], 1),
    ],
)
def test_bad_input_is_one_clear_error(container: Cli, args: list[str], status: int) -> None:
    done = container(*args)
    assert done.returncode == status
    assert done.stderr.lower().count("error: ") == 1
    assert list_containers(container) == []
