"""``container run`` from its command line to the container's record; its supervisor is played, and refuses."""

import os
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.container.images import add_image
from tests.unit.container.specs import quiet
from woodlot.cli.app import run_command
from woodlot.container import begin, lifecycle, state
from woodlot.container.boot import MachinePlan
from woodlot.container.lifeline import Lifeline
from woodlot.container.spec import ContainerSpec, ProcessSpec, Rlimit, SocketSpec, Tmpfs
from woodlot.errors import ErrorCode, ExecutionError, NotFoundError, StateError, WoodlotError
from woodlot.image import pull
from woodlot.kernel.catalog import host_arch
from woodlot.paths import Paths, find_paths
from woodlot.store.store import Store
from woodlot.units import GIB, MIB
from woodlot.vmm.base import Accelerator, Arch

OVER = StateError("the play is over")


class Command:
    """``container run`` in a data directory of its own, and the containers that came as far as their supervisor."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.store = Store(find_paths())
        self.specs: list[ContainerSpec] = []
        self.archs: list[Arch | None] = []
        self.refusal: WoodlotError = OVER
        self.stdout = self.stderr = ""
        self._monkeypatch = monkeypatch
        self._capsys = capsys
        monkeypatch.setattr(begin, "plan_machine", self._plan_machine)
        monkeypatch.setattr(begin, "launch", self._launch)
        monkeypatch.setattr(pull, "pull", self._pull)

    def __call__(self, *argv: str) -> int:
        """The exit status."""
        return self.container("run", *argv)

    def container(self, *argv: str) -> int:
        """The exit status of any command."""
        self._monkeypatch.setattr(sys, "argv", ["container", *argv])
        status = run_command()
        self.stdout, self.stderr = self._capsys.readouterr()
        return status

    def spec(self, *argv: str) -> ContainerSpec:
        """The container that a command line makes."""
        assert self(*argv) == 125, self.stderr
        assert self.stderr == f"error: {OVER.message}\n"
        return self.specs.pop()

    async def _plan_machine(
        self, paths: Paths, *, arch: Arch, kernel_file: Path | None, progress: object
    ) -> MachinePlan:
        self.archs.append(arch)
        return MachinePlan(
            arch=arch,
            accelerator=Accelerator.TCG,
            kernel=kernel_file or paths.kernels / "vmlinuz",
            initramfs=paths.initramfs / "init.cpio",
            guest="kernel agent",
        )

    def _launch(
        self, paths: Paths, container_id: str, plan: MachinePlan, lock: int, *, template: str
    ) -> socket.socket:
        found = lifecycle.find(self.store, container_id)
        assert found.is_live
        self.specs.append(found.spec)
        ours, theirs = socket.socketpair()
        with theirs:
            Lifeline(theirs).fail(self.refusal)
        os.close(lock)
        return ours

    async def _pull(self, *arguments: object, **options: object) -> None:
        raise NotFoundError("nothing is fetched here")


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Command]:
    quiet(monkeypatch, tmp_path)
    # Paths of sockets are short, pytest's directories are not.
    with tempfile.TemporaryDirectory(prefix="wl-") as runtime:
        monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
        monkeypatch.setenv("WOODLOT_ROOT", str(tmp_path / "data"))
        monkeypatch.chdir(tmp_path)
        command = Command(monkeypatch, capsys)
        add_image(command.store, "busybox", {"Entrypoint": ["/entry"], "Cmd": ["serve"]})
        yield command
        command.store.close()


def nothing_is_left(run: Command) -> bool:
    containers = run.store.paths.containers
    return not run.store.containers.list() and not (
        containers.exists() and list(containers.iterdir())
    )


def test_flags_reach_the_container(run: Command) -> None:
    Path("vmlinuz").touch()
    Path("env").write_text("# colours\nCOLOR=blue\nSIZE=9\n")
    spec = run.spec(
        "-i", "--rm", "--name", "web", "-e", "COLOR=green", "--env-file", "env", "--uid", "5", "--gid=6",
        "-w", "/tmp", "-c", "0.5", "-m", "200m", "--read-only", "--tmpfs", "/scratch:size=1m,exec",
        "--tmpfs", "/run", "--shm-size", "1g", "--ulimit", "nofile=99:100", "--ulimit", "core=0",
        "--cap-drop", "ALL", "--cap-add", "chown", "-l", "a=b", "--label", "c", "--init", "--network", "none",
        "-k", "vmlinuz", "--kernel-arg", "debug", "busybox", "x", "y",
    )  # fmt: skip
    assert spec.process == ProcessSpec(
        args=("/entry", "x", "y"),
        entrypoint_args=1,
        env=(*spec.process.env[:2], "COLOR=green", "SIZE=9"),
        cwd="/tmp",
        user="5:6",
        stdin=True,
        capabilities=("CAP_CHOWN",),
        rlimits=(
            Rlimit(type="nofile", soft=99, hard=100),
            Rlimit(type="core", soft=0, hard=0),
        ),
        init=True,
    )
    assert (spec.name, spec.remove, spec.read_only, spec.networks) == ("web", True, True, ())
    assert (spec.cpus, spec.memory_bytes, spec.shm_bytes) == (0.5, 200 * MIB, GIB)
    assert spec.tmpfs == (
        Tmpfs(destination="/scratch", options=("size=1m", "exec")),
        Tmpfs(destination="/run"),
    )
    assert spec.labels == {"a": "b", "c": ""}
    assert (spec.kernel, spec.kernel_args) == (str(Path("vmlinuz").absolute()), ("debug",))


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["busybox"], ["/entry", "serve"]),
        (["busybox", "x"], ["/entry", "x"]),
        (["--entrypoint", "/bin/sh", "busybox"], ["/bin/sh"]),
        (["--entrypoint", "/bin/sh", "busybox", "-c", "echo"], ["/bin/sh", "-c", "echo"]),
        (["--entrypoint=", "busybox", "x"], ["x"]),
        # After the image's name everything is the process's.
        (["busybox", "--name", "x", "-it"], ["/entry", "--name", "x", "-it"]),
        (["busybox", "--", "x"], ["/entry", "--", "x"]),
        (["busybox", "--help"], ["/entry", "--help"]),
        (["--", "busybox", "x"], ["/entry", "x"]),
        (["busybox", "", "a b"], ["/entry", "", "a b"]),
    ],
)
def test_the_process_gets_what_follows_the_image(
    run: Command, argv: list[str], expected: list[str]
) -> None:
    spec = run.spec(*argv)
    assert list(spec.process.args) == expected


def test_sockets(run: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    # pytest's directories may be too deep for a socket.
    with tempfile.TemporaryDirectory(prefix="wl-") as short, socket.socket(socket.AF_UNIX) as agent:
        agent.bind(f"{short}/agent")
        monkeypatch.setenv("SSH_AUTH_SOCK", f"{short}/agent")
        monkeypatch.chdir("/")
        spec = run.spec("--ssh", "--publish-socket", "tmp/a-test:/run/x", "busybox")
        assert spec.sockets == (SocketSpec(host_path="/tmp/a-test", container_path="/run/x"),)
        # Where the agent is, is asked again at each start.
        assert (spec.ssh, spec.mounts) == (True, ())
        assert "SSH_AUTH_SOCK=/run/host-services/ssh-auth.sock" in spec.process.env
        spec = run.spec("--ssh", "-e", "SSH_AUTH_SOCK=/mine", "busybox")
        assert "SSH_AUTH_SOCK=/mine" in spec.process.env
        taken = ("--tmpfs", "/run/host-services/ssh-auth.sock")
        assert run("--ssh", *taken, "busybox") == 125
        assert "two mounts have the destination /run/host-services/ssh-auth.sock" in run.stderr
    assert not any("SSH" in text for text in run.spec("busybox").process.env)


def test_variables_of_files_and_of_here(run: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HERE", "here")
    monkeypatch.setenv("THERE", "there")
    monkeypatch.delenv("NOWHERE", raising=False)
    Path("1").write_text("A=1\nB=1\nC=1\n\n  # D=1\nHERE\nNOWHERE\n")
    Path("2").write_text("B=2\nC=2\nQ='q'\n")
    spec = run.spec(
        "-e", "C=flag", "--env-file", "1", "--env", "THERE", "--env-file", "2", "-e", "NOWHERE",
        "-e", "E=a=b", "busybox",
    )  # fmt: skip
    assert spec.process.env[2:] == (
        "A=1",
        "B=2",
        "C=flag",
        "HERE=here",
        "Q='q'",
        "THERE=there",
        "E=a=b",
    )


@pytest.mark.parametrize(
    ("argv", "variable", "expected"),
    [
        ([], None, f"linux/{host_arch()}"),
        (["--platform", "linux/arm64"], None, "linux/arm64"),
        (["--platform", "linux/x86_64"], None, "linux/amd64"),
        (["--platform", "arm64"], None, "linux/arm64"),
        (["-a", "arm64"], None, "linux/arm64"),
        (["--os", "linux", "--arch", "aarch64"], None, "linux/arm64"),
        (["--platform", "linux/amd64", "--arch", "arm64"], None, "linux/amd64"),
        ([], "linux/arm64", "linux/arm64"),
        (["--arch", "amd64"], "linux/arm64", "linux/amd64"),
    ],
)
def test_platforms(
    run: Command,
    argv: list[str],
    variable: str | None,
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if variable is not None:
        monkeypatch.setenv("CONTAINER_DEFAULT_PLATFORM", variable)
    assert run.spec(*argv, "busybox").platform == expected
    assert run.archs == [Arch(expected.removeprefix("linux/"))]


def test_a_platform_that_is_not_here_is_fetched(run: Command) -> None:
    assert run("--platform", "linux/s390x", "busybox") == 125
    assert "nothing is fetched here" in run.stderr


def test_a_platform_that_no_guest_runs(run: Command) -> None:
    add_image(run.store, "mainframe", platforms=["linux/s390x"])
    assert run("--platform", "linux/s390x", "mainframe") == 125
    assert "linux/s390x, which no guest of ours can run" in run.stderr
    assert run.specs == []


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        ([], "Missing argument 'IMAGE'"),
        (["--nosuch", "busybox"], "--nosuch"),
        (["-c", "many", "busybox"], "--cpus"),
        (["--uid", "joe", "busybox"], "--uid"),
        (["--uid=-1", "busybox"], "--uid"),
        (["--gid", "4294967295", "busybox"], "--gid"),
        (["--progress", "loud", "busybox"], "--progress"),
        (["--scheme", "ftp", "busybox"], "--scheme"),
        (["--max-concurrent-downloads", "0", "busybox"], "--max-concurrent-downloads"),
        (["--env-file"], "--env-file"),
    ],
)
def test_a_command_line_that_is_none_is_64(run: Command, argv: list[str], named: str) -> None:
    assert run(*argv) == 64
    assert named in run.stderr
    assert nothing_is_left(run)


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (["-m", "lots"], "--memory"),
        (["-m", "1m"], "--memory"),
        (["--memory", "-1"], "--memory"),
        (["--memory", "9e9g"], "--memory"),
        (["-c", "0"], "--cpus"),
        (["--shm-size", "lots"], "--shm-size"),
        (["--ulimit", "nofile"], "--ulimit"),
        (["--ulimit", "nofile=2:1"], "--ulimit"),
        (["--ulimit", "core=0", "--ulimit", "core=1"], "--ulimit"),
        (["--tmpfs", "scratch"], "--tmpfs"),
        (["--tmpfs", "/"], "--tmpfs"),
        (["--env-file", "nosuch"], "--env-file nosuch"),
        (["-e", "=x"], "-e"),
        (["-l", "=x"], "--label"),
        (["--name", "-x"], "--name"),
        (["-w", "tmp"], "--workdir"),
        (["--user", "www", "--uid", "1"], "--user"),
        (["--cap-add", "NOSUCH"], "--cap-add"),
        (["--cap-drop", "NOSUCH"], "--cap-drop"),
        (["--kernel", "nosuch"], "--kernel"),
        (["--kernel-arg", "a b"], "--kernel-arg"),
        (["--cidfile", "taken"], "--cidfile taken"),
        (["--cidfile", "nosuch/id"], "--cidfile nosuch/id"),
        (["--publish-socket", "/x"], "--publish-socket"),
        (["--publish-socket", "/etc/passwd:/x"], "/etc/passwd exists and is not a socket"),
        (["--ssh"], "--ssh: SSH_AUTH_SOCK is not set"),
        (["--platform", "a/b/c/d"], "'a/b/c/d' is not a platform"),
        (["--platform", "win"], "'win' is not a platform"),
    ],
)
def test_a_value_that_cannot_be_is_dockers_125(run: Command, argv: list[str], named: str) -> None:
    Path("taken").write_text("an id")
    # Nothing is fetched for it: the image is not here, and nobody asks for it.
    assert run(*argv, "nosuch") == 125
    assert run.stderr.startswith("error: ")
    assert named in run.stderr
    assert "fetched" not in run.stderr
    assert nothing_is_left(run)
    assert Path("taken").read_text() == "an id"


def test_an_image_that_has_no_such_name(run: Command) -> None:
    assert run("UPPER/case") == 125
    assert "UPPER/case" in run.stderr


def test_an_input_that_is_no_terminal(run: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "isatty", lambda _: False)
    assert run("-it", "busybox") == 125
    assert "not a terminal" in run.stderr
    assert run.specs == []
    # Without one of the two there is nothing to type into.
    assert run.spec("-t", "busybox").process.tty


def test_the_id_is_written(run: Command) -> None:
    spec = run.spec("--cidfile", "id", "busybox")
    assert Path("id").read_text() == spec.id


@pytest.mark.parametrize(
    ("refusal", "status"),
    [
        (ExecutionError("no such file", code=ErrorCode.NOT_FOUND), 127),
        (ExecutionError("permission denied", code=ErrorCode.NOT_EXECUTABLE), 126),
        (NotFoundError("mkfs.ext4 is not installed"), 125),
        (StateError("öde"), 125),
    ],
)
def test_one_that_never_ran_has_dockers_status_and_leaves_its_name(
    run: Command, refusal: WoodlotError, status: int
) -> None:
    run.refusal = refusal
    for _ in range(2):
        assert run("--name", "web", "busybox") == status
        assert run.stderr == f"error: {refusal.message}\n"
        assert nothing_is_left(run)
    assert [spec.name for spec in run.specs] == ["web", "web"]


def test_a_taken_name_is_told_before_anything_is_fetched(run: Command) -> None:
    taken = run.spec("--name", "web", "busybox")
    os.close(lifecycle.reserve(run.store, taken))
    assert run("--name", "web", "nosuch") == 125
    assert "the name 'web' is taken" in run.stderr
    assert [container.spec for container in lifecycle.find_all(run.store)] == [taken]


def test_create_makes_what_run_would_start(run: Command) -> None:
    flags = ("--name", "later", "-e", "A=b", "-t", "-i", "--rm", "--cidfile", "cid")
    assert run.container("create", *flags, "busybox", "--flag") == 0, run.stderr
    made = lifecycle.find(run.store, "later")
    assert run.stdout == f"{made.spec.id}\n"
    assert Path("cid").read_text() == made.spec.id
    assert made.state == state.Created()
    assert made.spec.process.args == ("/entry", "--flag")
    assert made.spec.process.tty
    assert made.spec.process.stdin
    assert run.specs == []  # no supervisor
    assert run.container("create", "--name", "later", "busybox") == 125
    assert "the name 'later' is taken" in run.stderr
    assert run.container("rename", "later", "sooner") == 0
    assert run.container("list", "--all") == 0
    assert "sooner" in run.stdout
    assert "created" in run.stdout
    assert run.container("wait", "sooner") == 0
    assert run.stdout == "0\n"
    assert run.container("prune") == 0
    assert run.stdout == f"{made.spec.id}\n"
    assert run.stderr.startswith("Reclaimed ")
    assert nothing_is_left(run)
