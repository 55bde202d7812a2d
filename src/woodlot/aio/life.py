"""The life of a container: its starts, its ends, and what can be changed meanwhile."""

import contextlib
from typing import TYPE_CHECKING

from woodlot.aio.handle import Handle
from woodlot.container.state import KILLED_EXIT_CODE, Created, Stopped
from woodlot.errors import WoodlotError

if TYPE_CHECKING:
    from woodlot.aio.starting import Starting
    from woodlot.container.boot import MachinePlan

STOP_GRACE_S = 5.0
"""Seconds, as Apple's container; Docker's is 10."""
_KILL_GRACE_S = 2.0
_GONE_LIMIT_S = 30.0


def parse_signal(signal: int | str) -> int:
    """A signal's number, from that or its name, with or without SIG.

    Raises:
        ConfigError: There is no such signal.
    """
    from woodlot.container import options

    return options.parse_signal(str(signal))


class Life(Handle):
    """A container that is started, stopped and changed."""

    async def start(self) -> None:
        """Start it again; returns when its process runs, and at once if it does already.

        Raises:
            WoodlotError: Why it does not.
        """
        import asyncio

        self.refresh()
        if self.is_live:
            return
        with self.begin(await self.plan()) as starting:
            await asyncio.to_thread(starting.wait)
            await starting.start()
        self.refresh()

    async def plan(self) -> "MachinePlan":
        """What its virtual machine is started with: the first half of `start`, of which `begin` is the other.

        Raises:
            WoodlotError: There is no kernel, no agent or no QEMU.
        """
        from woodlot.container.begin import plan_again

        return await plan_again(self._store.paths, self.spec)

    def begin(self, plan: "MachinePlan") -> "Starting":
        """Begin to start it again, as `Containers.begin` does with one that is new.

        Raises:
            StateError: It is not stopped any more.
        """
        from woodlot.aio.container import Container
        from woodlot.aio.starting import Starting
        from woodlot.container.begin import begin_again

        lifeline = begin_again(self._store, self._found, plan)
        return Starting(self._store, Container(self._store, self._found), lifeline)

    @property
    def is_resumable(self) -> bool:
        """Whether its restart policy wants it back when the host has come up."""
        from woodlot.container.restart import resumes

        ended = self.state
        return isinstance(ended, Stopped) and resumes(
            self.spec.restart,
            exit_code=ended.exit_code,
            count=ended.restart_count,
            by_user=ended.by_user,
        )

    async def stop(
        self,
        *,
        signal: int | str | None = None,
        grace_s: float = STOP_GRACE_S,
        resumable: bool = False,
    ) -> None:
        """Its stop signal, then SIGKILL; returns when its virtual machine is gone. One that is stopped stays so.

        Args:
            signal: In place of its stop signal.
            grace_s: Seconds until SIGKILL.
            resumable: `Containers.resumable` names it again, if its restart policy says so.
        """
        number = parse_signal(signal) if signal else 0
        if not self.is_live:
            self._look()
        if not self.is_live:
            return
        from woodlot.container import lifecycle
        from woodlot.container.client import SupervisorGoneError

        # One whose supervisor is gone, or about to be, is stopping anyway.
        with contextlib.suppress(SupervisorGoneError):
            async with self._supervised() as supervised:
                await supervised.stop(signal_number=number, grace_s=grace_s, resumable=resumable)
        await lifecycle.until_ended(self._store.paths, self.id)
        self._look()

    async def restart(
        self, *, signal: int | str | None = None, grace_s: float = STOP_GRACE_S
    ) -> None:
        """Stop it, as `stop` does, and start it again."""
        await self.stop(signal=signal, grace_s=grace_s)
        await self.start()

    async def kill(self, signal: int | str = "SIGKILL") -> None:
        """Send its process a signal.

        Raises:
            StateError: It does not run.
        """
        number = parse_signal(signal)
        async with self._running() as supervised:
            await supervised.signal(number)

    async def wait(self) -> int:
        """The exit status of its process, once it has ended; 0 of one that was never started."""
        if not self.is_live:
            self.refresh()
        if self.is_live:
            from woodlot.container.client import SupervisorGoneError

            with contextlib.suppress(SupervisorGoneError):
                async with self._supervised() as supervised:
                    return (await supervised.wait()).code
            # The record tells, and is mended when it is read.
            self.refresh()
        match self.state:
            case Stopped() as ended:
                return ended.exit_code
            case Created():
                return 0
            case _:
                return KILLED_EXIT_CODE

    async def pause(self) -> None:
        """Let its processes stand still.

        Raises:
            StateError: They do already, or it does not run.
        """
        async with self._running() as supervised:
            await supervised.pause()
        self._look()

    async def unpause(self) -> None:
        """Let them go on.

        Raises:
            StateError: They do not stand still.
        """
        async with self._running() as supervised:
            await supervised.unpause()
        self._look()

    async def update(
        self, *, cpus: float | None = None, memory: str | None = None, restart: str | None = None
    ) -> None:
        """Change it: at once, within what its virtual machine was started with, or while it is stopped.

        Args:
            cpus: May be a fraction.
            memory: As ``512m`` or ``2g``.
            restart: When it is started again, as ``on-failure:3``.

        Raises:
            LimitError: It runs, and its virtual machine has less.
            ConfigError: A value is not valid, or none is given.
        """
        from woodlot.container.update import build_update, update

        wanted = build_update(cpus=cpus, memory=memory, restart_policy=restart)
        self.refresh()
        await update(self._store, self._found, wanted)
        self.refresh()

    def rename(self, name: str) -> None:
        """Give it another name; in its networks it has it from its next start on.

        Raises:
            AlreadyExistsError: The name is taken.
            ConfigError: It is none.
        """
        from woodlot.container import lifecycle

        self.refresh()
        lifecycle.rename(self._store, self._found, name)
        self.refresh()

    async def delete(self, *, force: bool = False) -> None:
        """Remove it and all it wrote.

        Args:
            force: Kill it first if it runs.

        Raises:
            StateError: It runs.
        """
        import asyncio

        from woodlot.container import lifecycle

        was_live = self.is_live
        if force and was_live:
            # One beyond answering is told by its lock, below.
            with contextlib.suppress(WoodlotError):
                async with self._supervised() as supervised:
                    await supervised.stop(signal_number=9, grace_s=_KILL_GRACE_S)
            async with asyncio.timeout(_GONE_LIMIT_S):
                await lifecycle.until_ended(self._store.paths, self.id)
        if was_live:
            self._look()
        await asyncio.to_thread(lifecycle.delete, self._store, self._found)
