"""Somebody who is not root, with woodlot installed for them from this checkout."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.cli import Terminal, open_terminal
from tests.programs import skip_or_fail

ROOT = Path(__file__).parents[1]
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
        inside: Sequence[str] = (),
    ) -> str:
        """Run ``container ARGS``, which must end with 0; what it printed to stdout.

        Args:
            args: Of the command.
            input: For its stdin.
            runtime: XDG_RUNTIME_DIR; None leaves it unset.
            kvm_group: Give it a /dev/kvm that only this group may open; needs root.
            inside: Leads the command into another network; needs root.
        """
        env = self._environment(runtime)
        argv = [*inside, *self.become, str(self.program), *args]
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

    @contextlib.contextmanager
    def terminal(self, *args: str, inside: Sequence[str] = ()) -> Iterator[Terminal]:
        """Run ``container ARGS`` on a terminal for the life of the block."""
        argv = [*inside, *self.become, str(self.program), *args]
        with open_terminal(argv, self._environment(None)) as terminal:
            yield terminal

    def python(self, script: str, *, runtime: Path) -> str:
        """Run a program that uses the library, which must end with 0; what it printed to stdout."""
        done = subprocess.run(
            [*self.become, str(self.program.parent / "python"), "-c", script],
            env=self._environment(runtime),
            cwd="/",
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        assert done.returncode == 0, f"{script}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def _environment(self, runtime: Path | None) -> dict[str, str]:
        # Nothing is inherited: this is what a login gives.
        env = {"HOME": str(self.home), "USER": self.name, "PATH": "/usr/local/bin:/usr/bin:/bin"}
        if runtime is not None:
            env["XDG_RUNTIME_DIR"] = str(runtime)
        return env

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
        # Through env: what becomes the user may itself still have root's rights, once.
        command = [*become, "env", python, "-c", script]
        with contextlib.suppress(OSError):
            if subprocess.run(command, cwd="/", capture_output=True, check=False).returncode == 0:
                return Path(python)
    return skip_or_fail("no Python 3.11 that an ordinary user can run")
