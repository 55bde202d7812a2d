"""The cases of the command-line tests of Apple's `container`, by their names: run, life cycle, capabilities, exec, stop, …

Each is replayed here, or by the test named in `ELSEWHERE`, or woodlot differs for the reason in `DIFFERS`.
Those that are one `run` are started three at a time, since each mostly waits for its machine.
"""

import ast
import json
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from subprocess import CompletedProcess
from typing import NamedTuple

import pytest

from tests.cli import Cli
from tests.registry.server import Registry

pytestmark = pytest.mark.vm

TESTS = Path(__file__).parent.parent
AT_ONCE = 3
MIB = 1 << 20
ALL_CAPS = r"CapEff:\s+000001ffffffffff"
DEFAULT_CAPS = r"CapEff:\s+00000000a80425fb"
NO_CAPS = r"CapEff:\s+0000000000000000"
STATUS = ("grep", "-E", "CapEff|CapPrm|CapBnd", "/proc/self/status")


class Case(NamedTuple):
    """One `run --rm FLAGS busybox COMMAND`; what it prints contains the expression, and no other status is right."""

    flags: str
    command: tuple[str, ...]
    said: str = ""
    status: int = 0


def sh(script: str) -> tuple[str, ...]:
    return ("sh", "-c", script)


RUN = {
    "RunCommand": Case("", ("echo", "hello"), r"\Ahello\n\Z"),
    "CWD": Case("-w /tmp", ("pwd",), r"\A/tmp\n\Z"),
    "Env": Case("-e FOO=bar", ("env",), r"(?m)^FOO=bar$"),
    "UserIDGroupID": Case("--uid 10 --gid 100", ("id",), r"uid=10\b.* gid=100\b"),
    "User": Case("--user nobody", ("id", "-un"), r"\Anobody\n\Z"),
    "CPUs": Case("--cpus 2", ("cat", "/sys/fs/cgroup/cpu.max"), r"\A200000 100000\n\Z"),
    "Memory": Case("-m 500m", ("cat", "/sys/fs/cgroup/memory.max"), rf"\A{500 * MIB}\n\Z"),
    "UlimitNofile": Case(
        "--ulimit nofile=1024:2048", sh("ulimit -n; ulimit -Hn"), r"\A1024\n2048\n\Z"
    ),
    "UlimitNproc": Case(
        "--ulimit nproc=256", ("grep", "processes", "/proc/self/limits"), r"256\s+256"
    ),
    "MultipleUlimits": Case(
        "--ulimit nofile=1024 --ulimit nproc=256",
        ("grep", "-E", "processes|open", "/proc/self/limits"),
        r"256\s+256(.|\n)*1024\s+1024",
    ),
    "Tmpfs": Case("--tmpfs /some/tmpfs", ("mount",), r"tmpfs on /some/tmpfs type tmpfs"),
    "ShmSize": Case("--shm-size 128m", ("df", "-k", "/dev/shm"), r"\b131072\b"),
    "NoDNS": Case("--no-dns", ("cat", "/etc/resolv.conf"), status=1),
    "DefaultResolvConf": Case(
        "", sh("cat /etc/resolv.conf; ip route"), r"(?s)nameserver (\S+)\n.*via \1 "
    ),
    "DefaultHostsEntries": Case(
        "", sh("cat /etc/hosts; hostname"), r"(?s)127\.0\.0\.1\s+localhost.*\d\s+(\w{12})\n.*\1\n\Z"
    ),
    "OSArch": Case("--os linux --arch amd64", ("uname", "-m"), r"\Ax86_64\n\Z"),
    "Platform": Case("--platform linux/amd64", ("uname", "-m"), r"\Ax86_64\n\Z"),
    "Init": Case("--init", ("cat", "/proc/1/comm"), r"\A(?!cat\n)"),
    "InitReapsZombies": Case(
        "--init",
        sh("(sleep 0.1 & exec true) & sleep 1; cat /proc/[0-9]*/stat"),
        r"\A(?!.*\) Z)",
    ),
    "WithoutInitDefault": Case("", ("cat", "/proc/1/comm"), r"\Acat\n\Z"),
    "ReadOnly": Case("--read-only", ("touch", "/file"), status=1),
    "CreateArgsPassthrough": Case("", ("echo", "--rm", "-x", "--"), r"\A--rm -x --\n\Z"),
    "CreateWithMACAddress": Case(
        "--network default,mac=02:42:ac:11:00:02", ("ip", "link"), "02:42:ac:11:00:02"
    ),
    "DropMknodCannotMknod": Case("--cap-drop MKNOD", ("mknod", "/n", "c", "1", "3"), status=1),
    "DropMknodCannotMknodLowerCase": Case(
        "--cap-drop mknod", ("mknod", "/n", "c", "1", "3"), status=1
    ),
    "DropALLCannotMknod": Case("--cap-drop ALL", ("mknod", "/n", "c", "1", "3"), status=1),
    "DropALLAddMknodCanMknod": Case(
        "--cap-drop ALL --cap-add MKNOD", sh("mknod /n c 1 3 && ls /n"), r"\A/n\n\Z"
    ),
    "AddALLCanDownInterface": Case("--cap-add ALL", ("ip", "link", "set", "lo", "down")),
    "AddALLDropNetAdminCannotDownInterface": Case(
        "--cap-add ALL --cap-drop NET_ADMIN", sh("ip link set lo down || exit 7"), status=7
    ),
    "AddNetAdminCanDownInterface": Case("--cap-add NET_ADMIN", ("ip", "link", "set", "lo", "down")),
    "DefaultCapChown": Case("", ("chown", "100", "/bin")),
    # Nor can it read what is not its own: there is no shadow in this image.
    "NonRootUserCannotReadShadow": Case("--user nobody", sh("mkdir /x || exit 7"), status=7),
    "DropChown": Case("--cap-drop CHOWN", ("chown", "100", "/bin"), status=1),
    "DefaultCapFowner": Case("", ("chmod", "777", "/bin")),
    "DropALLShowsZeroCaps": Case("--cap-drop ALL", STATUS, NO_CAPS),
    "NoFlagsUsesDefault": Case("", STATUS, DEFAULT_CAPS),
    "AddALLShowsFull": Case("--cap-add ALL", STATUS, ALL_CAPS),
    "DropALLOnlyShowsZeroEffective": Case("--cap-drop ALL", STATUS, NO_CAPS),
    "MultipleAddDrop": Case(
        "--cap-drop ALL --cap-add CHOWN --cap-add FOWNER --cap-add KILL --cap-drop KILL",
        STATUS,
        r"CapEff:\s+0000000000000009",
    ),
    "RootFilesystemHasOrderedJournal": Case("", ("cat", "/proc/mounts"), r"(?m)^\S+ / overlay rw"),
}

ELSEWHERE = {
    "EnvFile": "unit/cli/test_run.py::test_variables_of_files_and_of_here",
    "EnvFileFromNamedPipe": "unit/container/test_create.py::test_an_env_file_that_is_a_pipe_is_read_once",
    "Mount": "vm/test_files.py::test_what_is_shared_and_what_is_not",
    "UnixSocketMount": "vm/test_sockets.py::test_sockets_both_ways",
    "SSHForwarding": "vm/test_sockets.py::test_sockets_both_ways",
    "Volume": "vm/test_volumes.py::test_a_volume_outlives_its_containers",
    "PrivilegedPortError": "vm/test_user.py::test_a_user_has_containers_in_the_background",
    "StartPortBindFails": "vm/test_network.py::test_a_busy_port_is_told_before_the_machine_starts",
    "ForwardTCP": "vm/test_network.py::test_nginx_is_published_and_listed",
    "ForwardTCPPortRange": "unit/container/test_ports.py::test_ports",
    "ForwardTCPv6": "vm/test_network.py::test_nginx_is_published_and_listed",
    "TermIO": "vm/test_run.py::test_a_terminal_has_its_size_and_ctrl_c",
    "ExecDetach": "vm/test_lifecycle.py::test_exec",
    "ExecDetachProcessRunning": "vm/test_lifecycle.py::test_exec",
    "RunInvalidExecutable": "vm/test_run.py::test_what_cannot_be_executed_has_dockers_status",
    "ExecInvalidExecutable": "vm/test_lifecycle.py::test_exec",
    "CopyMatrix": "vm/test_copy.py::test_copies_end_up_where_dockers_do",
    "CopyInAndOut": "vm/test_copy.py::test_files_of_a_container",
    "ExportStoppedAndRunning": "vm/test_copy.py::test_files_of_a_container",
    "StopSignalInInspect": "unit/container/test_create.py::test_stop_signal",
    "RmRace": "vm/test_apple_cases.py::test_stop_and_remove_at_once",
}

DIFFERS = {
    "NonDefaultResolvConf": "resolv.conf names the network's own resolver, as with Docker's networks; that one asks"
    " the resolvers of --dns. There is no --dns-domain; search domains and options are as in vm/test_network.py.",
    "StartIdempotentAttachFails": "`start --attach` of a running container attaches, as Docker's does.",
    "RunInitImage": "the guest's agent is part of woodlot, not an image that is pulled: there is no --init-image.",
    "CreateTooManyPorts": "there is no limit of 64 published ports.",
    "CreateFQDNName": "a name with dots is the hostname as it is, as with Docker.",
    "CopyOfStoppedFails": "files of a stopped container can be copied, as with Docker.",
    "SharedAccessConflict": "a volume is a directory by default, and several containers may use it at once;"
    " of type=block it has one writer: vm/test_volumes.py.",
}


@pytest.fixture(scope="module")
def ran(
    woodlot_root: Path, registry: Registry
) -> Iterator[dict[str, "Future[CompletedProcess[str]]"]]:
    """All of `RUN`, under way."""
    # That of the fixture `container`, which lives for one test.
    container = Cli(
        root=woodlot_root, home=woodlot_root.parent / "home", runtime=woodlot_root.parent / "run"
    )
    busybox = registry.reference("busybox:1.35")
    # What the first start makes, the others need not wait for each other for.
    container.ok("run", "--rm", busybox, "true")

    def run(case: Case) -> CompletedProcess[str]:
        return container("run", "--rm", *case.flags.split(), busybox, *case.command)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {name: pool.submit(run, case) for name, case in RUN.items()}


@pytest.mark.parametrize("name", RUN)
def test_run(ran: dict[str, "Future[CompletedProcess[str]]"], name: str) -> None:
    done = ran[name].result(600)
    assert done.returncode == RUN[name].status, done.stderr
    assert re.search(RUN[name].said, done.stdout), done.stdout


def inspect(container: Cli, name: str) -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = json.loads(container.ok("inspect", name))[0]
    return found


@pytest.fixture
def busybox(container: Cli, registry: Registry) -> str:
    reference = registry.reference("busybox:1.35")
    container.ok("pull", reference)
    return reference


def test_capabilities_are_checked_and_stored(container: Cli, busybox: str) -> None:
    """DropInvalid, AddInvalid, AddStored, DropStored, AddDropALLStored, AddALLStored, DropLowerCase."""
    for flag in ("--cap-add", "--cap-drop"):
        done = container("create", flag, "CHWOWZERS", busybox)
        assert done.returncode == 125
        assert "CHWOWZERS" in done.stderr
    container.ok("create", "--name", "a", "--cap-add", "NET_ADMIN", "--cap-drop", "chown", busybox)
    container.ok("create", "--name", "b", "--cap-add", "ALL", "--cap-drop", "ALL", busybox)
    stored = [inspect(container, name)["configuration"] for name in ("a", "b")]
    assert [one["capAdd"] for one in stored] == [["CAP_NET_ADMIN"], ["ALL"]]
    assert [one["capDrop"] for one in stored] == [["CAP_CHOWN"], ["ALL"]]
    container.ok("rm", "a", "b")


def test_cidfile_and_cleanup_after_failure(container: Cli, busybox: str, tmp_path: Path) -> None:
    """Cidfile, RunFailureCleanup."""
    file = tmp_path / "cid"
    container.ok("create", "--name", "c", "--cidfile", file, busybox, "true")
    assert file.read_text() == inspect(container, "c")["id"]  # type: ignore[comparison-overlap]
    container.ok("rm", "c")
    assert container("run", "--name", "f", "--user", "nosuch", busybox, "true").returncode == 125
    assert container.ok("run", "--name", "f", busybox, "echo", "again") == "again\n"
    container.ok("rm", "f")


def test_life(container: Cli, busybox: str) -> None:
    """CreateExec, ExecOnExitingContainer, StartIdempotent, Stop: explicit signal, none, idempotent; RemoveForceRunning."""
    container.ok(
        "create",
        "--name",
        "l",
        busybox,
        "sh",
        "-c",
        "trap 'exit 3' TERM; while :; do sleep 0.1; done",
    )
    assert container("exec", "l", "true").returncode == 1
    for _ in range(2):
        assert container.ok("start", "l") == "l\n"
    assert container.ok("exec", "l", "echo", "in") == "in\n"
    for _ in range(2):
        assert container.ok("stop", "l") == "l\n"
    assert inspect(container, "l")["status"]["exitCode"] == 3
    assert container("exec", "l", "true").returncode == 1
    container.ok("start", "l")
    container.ok("stop", "--signal", "KILL", "l")
    assert inspect(container, "l")["status"]["exitCode"] == 137
    container.ok("start", "l")
    done = container("rm", "l")
    assert done.returncode == 1
    assert "is running" in done.stderr
    # All that are stopped; one that runs is skipped, unless forced.
    container.ok("create", "--name", "s", busybox)
    assert len(container.ok("prune").split()) == 1
    assert container("inspect", "s").returncode == 1
    container.ok("create", "--name", "s", busybox)
    assert container.ok("rm", "--all") == "s\n"
    assert container.ok("rm", "--all", "--force") == "l\n"
    assert container.ok("list", "--all", "--quiet") == ""


def test_remove(container: Cli, busybox: str) -> None:
    """RemoveStopped, alias, no args, explicit and all conflict, duplicate ids, inspect missing."""
    container.ok("create", "--name", "r", busybox)
    assert container.ok("delete", "r", "r") == "r\n"
    assert container("rm").returncode == 64
    assert container("rm", "--all", "x").returncode == 64
    assert container("inspect", "r").returncode == 1


@pytest.mark.parametrize("command", ["stop", "kill", "delete", "start", "logs", "exec"])
def test_not_found(container: Cli, command: str) -> None:
    done = container(command, "nosuch", *(["true"] if command == "exec" else []))
    assert done.returncode == 1
    assert "no such container: nosuch" in done.stderr


def test_stop_and_remove_at_once(container: Cli, busybox: str) -> None:
    """RmRace."""
    container.ok("run", "-d", "--name", "r", busybox, "sleep", "1000")
    results: list[int] = []

    def do(*args: str) -> Callable[[], None]:
        return lambda: results.append(container(*args).returncode)

    both = [
        threading.Thread(target=do("stop", "-t", "0", "r")),
        threading.Thread(target=do("rm", "-f", "r")),
    ]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert 0 in results
    assert container("inspect", "r").returncode == 1


@pytest.mark.parametrize("name", ELSEWHERE)
def test_the_test_that_replays_it_is_there(name: str) -> None:
    file, _, function = ELSEWHERE[name].partition("::")
    tree = ast.parse((TESTS / file).read_text())
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    assert function in {node.name for node in tree.body if isinstance(node, functions)}


def test_where_woodlot_differs_it_says_why() -> None:
    assert all(len(reason) > 30 for reason in DIFFERS.values())
    assert not (RUN.keys() & DIFFERS.keys() | ELSEWHERE.keys() & DIFFERS.keys())
