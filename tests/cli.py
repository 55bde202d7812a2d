"""Runs the command `container` as a user does: a process of its own, with or without a terminal."""

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

PROGRAM = Path(sys.executable).parent / "container"
TIMEOUT_S = 240.0


class Terminal:
    """A process on a pseudo-terminal of its own, and what has come out of it."""

    def __init__(self, process: subprocess.Popen[bytes], master: int) -> None:
        self.process = process
        self.output = b""
        """All that was printed, from the start."""
        self._master = master
        self._read_to = 0

    def send(self, data: bytes | str) -> None:
        """Type; a line ends with ``\\r``."""
        os.write(self._master, data.encode() if isinstance(data, str) else data)

    def expect(self, pattern: str, *, timeout_s: float = TIMEOUT_S) -> re.Match[bytes]:
        """Wait until what was printed since the last match matches the regular expression."""
        deadline = time.monotonic() + timeout_s
        expression = re.compile(pattern.encode(), re.DOTALL)
        while True:
            found = expression.search(self.output, self._read_to)
            if found:
                self._read_to = found.end()
                return found
            if not self._read(deadline):
                raise AssertionError(f"{pattern!r} did not come; output: {self.output[-2000:]!r}")

    def resize(self, rows: int, columns: int) -> None:
        """Change the window's size, which sends SIGWINCH."""
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def attributes(self) -> list[object]:
        """The terminal's settings, as tcgetattr gives them: to see that a command restores them."""
        return list(termios.tcgetattr(self._master))

    def wait(self, *, timeout_s: float = TIMEOUT_S) -> int:
        """The exit status, once all output is read."""
        deadline = time.monotonic() + timeout_s
        while self._read(deadline):
            pass
        return self.process.wait(max(0.1, deadline - time.monotonic()))

    def _read(self, deadline: float) -> bool:
        remaining = deadline - time.monotonic()
        ready, _, _ = select.select([self._master], [], [], max(0.0, remaining))
        if not ready:
            return False
        try:
            data = os.read(self._master, 65536)
        except OSError:  # EIO: nobody holds the other end any more
            return False
        self.output += data
        return bool(data)


@contextlib.contextmanager
def open_terminal(
    argv: Sequence[str | os.PathLike[str]],
    env: Mapping[str, str],
    *,
    rows: int = 24,
    columns: int = 80,
) -> Iterator[Terminal]:
    """Run a program on a terminal for the life of the block."""
    master, slave = pty.openpty()
    try:
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        process = subprocess.Popen(
            argv,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**env, "TERM": "xterm"},
            start_new_session=True,
            # The first terminal that a session's leader opens becomes its controlling one.
            preexec_fn=lambda: os.close(os.open(os.ttyname(0), os.O_RDWR)),  # noqa: PLW1509
        )
    except BaseException:
        os.close(master)
        raise
    finally:
        os.close(slave)
    try:
        yield Terminal(process, master)
    finally:
        if process.poll() is None:
            process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        os.close(master)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cli:
    """The command with one data directory and one home, both the test's."""

    root: Path
    home: Path
    runtime: Path

    def environment(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """What the command gets: of woodlot's own variables, those set here only."""
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("WOODLOT_", "XDG_"))
        }
        ours = {
            "HOME": str(self.home),
            "WOODLOT_ROOT": str(self.root),
            "XDG_RUNTIME_DIR": str(self.runtime),
        }
        return {**inherited, **ours, **(more or {})}

    def __call__(
        self,
        *args: str | os.PathLike[str],
        input: str | None = None,  # noqa: A002 - as subprocess.run calls it
        timeout_s: float = TIMEOUT_S,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run ``container ARGS`` to its end, whatever its status.

        Not ended after ``timeout_s`` seconds, it gets SIGTERM, and the test fails with what it printed.
        """
        with self.popen(*args, env=env, cwd=cwd, stdin=input is not None) as process:
            try:
                stdout, stderr = process.communicate(
                    None if input is None else input.encode(), timeout_s
                )
            except subprocess.TimeoutExpired:
                stdout, stderr = _end(process)
                shown = stdout.decode(errors="replace") + stderr.decode(errors="replace")
                raise AssertionError(
                    f"{process.args!r}: no end in {timeout_s} s\n{shown}"
                ) from None
        return subprocess.CompletedProcess(
            process.args,
            process.returncode,
            stdout.decode(errors="surrogateescape"),
            stderr.decode(errors="surrogateescape"),
        )

    def ok(
        self,
        *args: str | os.PathLike[str],
        input: str | None = None,  # noqa: A002
        timeout_s: float = TIMEOUT_S,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> str:
        """Run ``container ARGS``, which must end with 0; what it printed to stdout."""
        done = self(*args, input=input, timeout_s=timeout_s, env=env, cwd=cwd)
        assert done.returncode == 0, f"{done.args!r}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def popen(
        self,
        *args: str | os.PathLike[str],
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        stdin: bool = False,
    ) -> subprocess.Popen[bytes]:
        """Start ``container ARGS`` with pipes for its output; the caller ends it."""
        return subprocess.Popen(
            [PROGRAM, *args],
            stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.environment(env),
            cwd=cwd,
        )

    @contextlib.contextmanager
    def terminal(
        self,
        *args: str | os.PathLike[str],
        rows: int = 24,
        columns: int = 80,
        env: Mapping[str, str] | None = None,
    ) -> Iterator[Terminal]:
        """Run ``container ARGS`` on a terminal for the life of the block."""
        with open_terminal(
            [PROGRAM, *args], self.environment(env), rows=rows, columns=columns
        ) as terminal:
            yield terminal


def _end(process: subprocess.Popen[bytes]) -> tuple[bytes, bytes]:
    process.send_signal(signal.SIGTERM)
    try:
        return process.communicate(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.communicate()
