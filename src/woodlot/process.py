"""The one place that starts child processes, and so the one place that reaps them."""

import contextlib
import ctypes
import logging
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from woodlot.errors import NotFoundError, WoodlotError
from woodlot.values import dataclass

log = logging.getLogger(__name__)

TERM_GRACE_S = 5.0
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class Child:
    """A running child process.

    Made by `spawn`, and alive until `stop` or its own end; always reaped by `wait` or `stop`.
    """

    def __init__(self, popen: "subprocess.Popen[bytes]", argv: Sequence[str]) -> None:
        self._popen = popen
        self.argv = tuple(argv)

    @property
    def pid(self) -> int:
        """Process id, valid until the child is reaped."""
        return self._popen.pid

    @property
    def status(self) -> int | None:
        """Exit status, negative for a signal; None while it runs."""
        return self._popen.poll()

    async def wait(self) -> int:
        """Exit status once the child has ended: its own, or minus the signal that ended it."""
        import asyncio

        if self._popen.poll() is None:
            if hasattr(os, "pidfd_open"):
                loop = asyncio.get_running_loop()
                fd = os.pidfd_open(self._popen.pid)
                ended = asyncio.Event()
                loop.add_reader(fd, ended.set)
                try:
                    await ended.wait()
                finally:
                    loop.remove_reader(fd)
                    os.close(fd)
            else:
                await asyncio.to_thread(self._popen.wait)
        return self._popen.wait()

    def let_go(self) -> None:
        """Leave it running when we end: from then on somebody else reaps it."""
        if self._popen.poll() is None:
            # Said to Popen, which would otherwise warn of a child that nobody waits for.
            self._popen.returncode = 0

    def kill(self) -> None:
        """SIGKILL, at once; harmless after the end."""
        with contextlib.suppress(ProcessLookupError):
            self._popen.kill()

    async def stop(self, *, grace_s: float = TERM_GRACE_S) -> int:
        """SIGTERM, wait up to ``grace_s`` seconds, SIGKILL; the exit status once reaped."""
        import asyncio

        with contextlib.suppress(ProcessLookupError):
            self._popen.terminate()
        try:
            async with asyncio.timeout(grace_s):
                return await self.wait()
        except TimeoutError:
            log.warning("pid %d ignored SIGTERM for %.1f s, sending SIGKILL", self.pid, grace_s)
            self.kill()
        return await self.wait()


def spawn(
    argv: Sequence[str | os.PathLike[str]],
    *,
    log_path: Path,
    env: Mapping[str, str] | None = None,
    pass_fds: Collection[int] = (),
    die_with_parent: bool = True,
    in_child: Callable[[], None] | None = None,
) -> Child:
    """Start ``argv``; the caller owns the child and stops it.

    The child gets its own session, so Ctrl-C reaches us and not it: the order of teardown stays ours.

    Args:
        argv: Program and arguments; never passed through a shell.
        log_path: Where the child's stdout and stderr are appended.
        env: Added to a minimal environment; ours is not inherited.
        pass_fds: Descriptors the child inherits under the same numbers; still ours to close.
        die_with_parent: SIGKILL the child when the thread that calls this ends (Linux). The calling thread
            should be the main one, and the process should have no other threads yet.
        in_child: Called in the child before it becomes ``argv``; in a process without other threads only.

    Raises:
        NotFoundError: ``argv[0]`` is not an executable file.
        WoodlotError: ``in_child`` failed.
    """
    command = [os.fspath(arg) for arg in argv]
    log.debug("+ %s", shlex.join(command))
    parent = os.getpid()

    def prepare() -> None:
        if die_with_parent:
            _die_with(parent)
        if in_child:
            in_child()

    with log_path.open("ab") as sink:
        try:
            popen = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                env={**minimal_environment(), **(env or {})},
                pass_fds=tuple(pass_fds),
                start_new_session=True,
                preexec_fn=prepare if die_with_parent or in_child else None,  # noqa: PLW1509
            )
        except subprocess.SubprocessError as error:
            raise WoodlotError(f"cannot prepare a process for {command[0]}: {error}") from error
        except (FileNotFoundError, PermissionError) as error:
            raise NotFoundError(f"cannot run {command[0]}: {error.strerror}") from error
    return Child(popen, command)


def run_in_our_place(argv: Sequence[str], env: Mapping[str, str]) -> int:
    """Run ``argv`` with our terminal, and our environment with ``env`` added, to its end; its status as a shell gives it."""
    numbers = (signal.SIGINT, signal.SIGQUIT)
    with subprocess.Popen(argv, env={**os.environ, **env}) as child:
        # A terminal sends its signals to the child, too; what they mean is up to it.
        kept = [signal.signal(number, signal.SIG_IGN) for number in numbers]
        try:
            status = child.wait()
        finally:
            for number, handler in zip(numbers, kept, strict=True):
                signal.signal(number, handler)
    return status if status >= 0 else 128 - status


def last_words(log_path: Path, *, size_bytes: int = 2000) -> str | None:
    """The end of a log that a guest has a say in: printable characters only; None if there is nothing."""
    try:
        with log_path.open("rb") as file:
            file.seek(max(0, log_path.stat().st_size - size_bytes))
            text = file.read(size_bytes).decode("utf-8", "replace")
    except OSError:
        return None
    return "".join(char for char in text if char.isprintable() or char in "\n\t").strip() or None


def minimal_environment() -> dict[str, str]:
    """What a child process gets of our environment."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8"}


if sys.platform == "linux":
    _libc = ctypes.CDLL(None, use_errno=True)

    def _die_with(parent: int) -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        # The parent may have ended between fork and prctl.
        if os.getppid() != parent:
            os._exit(127)
else:

    def _die_with(parent: int) -> None:
        del parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """A command that ended well: what it printed."""

    stdout: str
    stderr: str


def run(
    argv: Sequence[str | os.PathLike[str]],
    *,
    timeout_s: float,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    error: type[WoodlotError] = WoodlotError,
) -> Completed:
    """Run a short command to its end.

    Raises:
        NotFoundError: ``argv[0]`` is not an executable file.
        WoodlotError: Of class ``error``: a status other than 0, or no end within ``timeout_s`` seconds.
    """
    command = [os.fspath(arg) for arg in argv]
    log.debug("+ %s", shlex.join(command))
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout_s,
            env={**minimal_environment(), **(env or {})},
            cwd=cwd,
            check=False,
            text=True,
            errors="replace",
        )
    except (FileNotFoundError, PermissionError) as problem:
        raise NotFoundError(f"cannot run {command[0]}: {problem.strerror}") from problem
    except subprocess.TimeoutExpired as problem:
        raise error(
            f"{command[0]} did not end within {timeout_s:g} s", details=shlex.join(command)
        ) from problem
    if done.returncode:
        raise error(
            f"{command[0]} failed with {describe_status(done.returncode)}",
            details=f"{shlex.join(command)}\n{(done.stderr or done.stdout)[-2000:]}".strip(),
        )
    return Completed(stdout=done.stdout, stderr=done.stderr)


def describe_status(status: int) -> str:
    """An exit status in words: ``status 1`` or ``signal SIGKILL``."""
    if status >= 0:
        return f"status {status}"
    try:
        return f"signal {signal.Signals(-status).name}"
    except ValueError:
        return f"signal {-status}"


def find_binary(name: str, *, also: Sequence[str] = (), hint: str | None = None) -> Path:
    """The executable ``name`` from PATH or one of the absolute paths ``also``.

    Raises:
        NotFoundError: There is none; ``hint`` says how to get it.
    """
    for candidate in (name, *also):
        found = shutil.which(candidate)
        if found:
            return Path(found)
    raise NotFoundError(f"the program {name} is not on this machine", hint=hint)
