"""What runs in a container: its own process and others."""

import contextlib
import os
from collections.abc import AsyncGenerator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from woodlot.aio.handle import Handle
from woodlot.errors import ConfigError, LimitError, TimeLimitError, WoodlotError
from woodlot.units import MIB
from woodlot.values import dataclass

if TYPE_CHECKING:
    from woodlot.container.client import Attachment
    from woodlot.container.session import End
    from woodlot.container.spec import ExecSpec
    from woodlot.container.usage import Processes, Stats

MAX_OUTPUT_BYTES = 16 * MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """How a process in a container ended, and what it printed."""

    exit_code: int
    """Its status, or 128 and the signal that ended it."""
    stdout_bytes: bytes
    stderr_bytes: bytes
    oom_killed: bool = False

    @property
    def stdout(self) -> str:
        """What it printed, as UTF-8; what is none becomes U+FFFD."""
        return self.stdout_bytes.decode("utf-8", "replace")

    @property
    def stderr(self) -> str:
        """As `stdout`."""
        return self.stderr_bytes.decode("utf-8", "replace")


class Executor(Handle):
    """A container that processes run in."""

    async def exec(
        self,
        args: Sequence[str],
        *,
        input: str | bytes | None = None,  # noqa: A002 - as subprocess.run calls it
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        user: str | None = None,
        timeout_s: float | None = None,
        max_output_bytes: int = MAX_OUTPUT_BYTES,
    ) -> Result:
        """Run one more process in the container to its end.

        Args:
            args: The program and its arguments; no shell is involved.
            input: For its stdin, which is empty without.
            env: Variables over the container's own.
            cwd: Working directory in place of the container's.
            user: ``name|uid[:group|gid]`` in place of the container's.
            timeout_s: Seconds it may run.
            max_output_bytes: Of stdout and stderr together.

        Raises:
            ExecutionError: It cannot be executed.
            TimeLimitError: It ran too long; it was killed.
            LimitError: It printed too much; it was killed.
            StateError: The container does not run.
        """
        import asyncio

        printed: dict[bool, bytearray] = {False: bytearray(), True: bytearray()}
        data = input.encode() if isinstance(input, str) else input
        try:
            async with (
                asyncio.timeout(timeout_s),
                self.stream(args, stdin=data is not None, env=env, cwd=cwd, user=user) as process,
                asyncio.TaskGroup() as tasks,
            ):
                if data is not None:
                    tasks.create_task(_feed(process, data))
                end = await _collect(process, printed, args, max_output_bytes)
        except TimeoutError:
            raise TimeLimitError(
                f"{args[0]!r} in container {self.name} ran longer than {timeout_s:g} s"
            ) from None
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None
        return Result(
            exit_code=end.code,
            stdout_bytes=bytes(printed[False]),
            stderr_bytes=bytes(printed[True]),
            oom_killed=end.oom_killed,
        )

    @contextlib.asynccontextmanager
    async def stream(
        self,
        args: Sequence[str],
        *,
        stdin: bool = False,
        tty: bool = False,
        window: tuple[int, int] = (0, 0),
        env: Mapping[str, str] | Sequence[str] | None = None,
        env_files: Sequence[Path] = (),
        cwd: str | None = None,
        user: str | None = None,
        started: bool = True,
    ) -> "AsyncGenerator[Attachment]":
        """Run one more process and be its stdio; it is killed if it still runs at the end of the block.

        Args:
            args: The program and its arguments.
            stdin: Its stdin will be written to, and closed.
            tty: Give it a terminal; what it prints is then its stdout.
            window: Rows and columns of the terminal; see `Attachment.resize`.
            env: Variables over the container's own; ``["NAME"]`` has the value it has here.
            env_files: Files with more variables, under those of ``env``.
            cwd: Working directory in place of the container's.
            user: ``name|uid[:group|gid]`` in place of the container's.
            started: Enter the block when it runs; without, `Attachment.started` tells when it does.

        Raises:
            ExecutionError: It cannot be executed.
            StateError: The container does not run.
        """
        spec = _exec_spec(args, stdin=stdin, tty=tty, env=env, files=env_files, cwd=cwd, user=user)
        async with self._started() as supervised, supervised.exec(spec, window=window) as process:
            if started:
                await process.started()
            yield process

    async def exec_detached(
        self,
        args: Sequence[str],
        *,
        tty: bool = False,
        env: Mapping[str, str] | Sequence[str] | None = None,
        env_files: Sequence[Path] = (),
        cwd: str | None = None,
        user: str | None = None,
    ) -> None:
        """Run one more process and leave it alone once it runs; the arguments are those of `stream`.

        Raises:
            ExecutionError: It cannot be executed.
            StateError: The container does not run.
        """
        spec = _exec_spec(args, stdin=False, tty=tty, env=env, files=env_files, cwd=cwd, user=user)
        async with self._started() as supervised:
            await supervised.exec_detached(spec)

    @contextlib.asynccontextmanager
    async def attach(
        self, *, stdin: bool = False, window: tuple[int, int] = (0, 0)
    ) -> "AsyncGenerator[Attachment]":
        """Be the stdio of its own process, from now on; it goes on when the block is left.

        Args:
            stdin: Its stdin will be written to; it must have been made with one.
            window: Rows and columns of its terminal.

        Raises:
            StateError: It does not run.
        """
        async with (
            self._running() as supervised,
            supervised.attach(start=True, owner=False, stdin=stdin, window=window) as attachment,
        ):
            yield attachment

    async def stats(self) -> "Stats":
        """What it uses now, and has used; of two samples, `Stats.cpu_percent` tells how busy it was between them.

        Raises:
            StateError: It does not run.
        """
        async with self._running() as supervised:
            return await supervised.stats()

    async def top(self) -> "Processes":
        """What runs in it, by pid; of very many, the first 4096.

        Raises:
            StateError: It does not run.
        """
        async with self._running() as supervised:
            return await supervised.top()


def _exec_spec(
    args: Sequence[str],
    *,
    stdin: bool,
    tty: bool,
    env: Mapping[str, str] | Sequence[str] | None,
    files: Sequence[Path],
    cwd: str | None,
    user: str | None,
) -> "ExecSpec":
    from woodlot.container import options
    from woodlot.container.spec import ExecSpec

    if not args or isinstance(args, str):
        raise ConfigError(f"a process is a list of a program and its arguments, not {args!r}")
    if cwd and not cwd.startswith("/"):
        raise ConfigError(f"the working directory must be an absolute path, not {cwd!r}")
    variables: dict[str, str | None] = {}
    for path in files:
        variables |= options.read_env_file(path, environ=os.environ)
    given = env or ()
    variables |= (
        given if isinstance(given, Mapping) else options.parse_env(given, environ=os.environ)
    )
    return ExecSpec(
        id=os.urandom(8).hex(),
        args=tuple(args),
        env=tuple(
            name if value is None else f"{name}={value}" for name, value in variables.items()
        ),
        cwd=cwd or "",
        user=user or "",
        tty=tty,
        stdin=stdin,
    )


async def _feed(process: "Attachment", data: bytes) -> None:
    for start in range(0, len(data), 1 << 16):
        await process.write(data[start : start + (1 << 16)])
    await process.close_stdin()


async def _collect(
    process: "Attachment",
    printed: Mapping[bool, bytearray],
    args: Sequence[str],
    max_output_bytes: int,
) -> "End":
    from woodlot.container.session import End

    async for item in process.output():
        if isinstance(item, End):
            return item
        printed[item.stderr].extend(item.data)
        if sum(map(len, printed.values())) > max_output_bytes:
            raise LimitError(f"{args[0]!r} printed more than {max_output_bytes} bytes")
    raise WoodlotError(f"the output of {args[0]!r} ended without an exit status")
