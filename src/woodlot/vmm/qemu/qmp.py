"""QEMU's control protocol: one JSON object a line, answers matched by id (QEMU, docs/interop/qmp-spec.rst).

Our own client and not the package qemu.qmp: that one costs 10 ms to import, a tenth of what a start may take, and
does not tell "all events before the end have been seen" from "the connection broke".
"""

import asyncio
import contextlib
import json
import logging
import socket
from collections.abc import Callable, Mapping
from typing import TypeAlias, cast

from woodlot.errors import VmmError

log = logging.getLogger(__name__)

MAX_LINE_BYTES = 8 << 20

Event: TypeAlias = Mapping[str, object]


class QmpClosedError(VmmError):
    """QEMU closed the connection, or did not speak QMP."""


class QmpCommandError(VmmError):
    """QEMU answered a command with an error; ``message`` holds its words."""


class Qmp:
    """A connection to one QEMU; made by `open`, ended by `close` or by QEMU."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        on_event: Callable[[str, Event], None],
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._on_event = on_event
        self._answers: dict[int, asyncio.Future[object]] = {}
        self._last_id = 0
        self._task: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, sock: socket.socket, on_event: Callable[[str, Event], None]) -> "Qmp":
        """Wait for the greeting on ``sock``, which is ours from now on, and agree on capabilities.

        Args:
            sock: Connected; closed by `close`, and when this fails.
            on_event: Told name and data of each event, in order.

        Raises:
            QmpClosedError: There was no greeting.
        """
        sock.setblocking(False)  # noqa: FBT003
        reader, writer = await asyncio.open_unix_connection(sock=sock, limit=MAX_LINE_BYTES)
        qmp = cls(reader, writer, on_event)
        try:
            await qmp._read_greeting()
            qmp._task = asyncio.create_task(qmp._read_all(), name="qmp")
            await qmp.execute("qmp_capabilities")
        except BaseException:
            await qmp.close()
            raise
        return qmp

    async def execute(self, command: str, **arguments: object) -> object:
        """Run a command; what it returned. Names with hyphens are given as ``**{"node-name": …}``.

        Raises:
            QmpCommandError: QEMU refused it.
            QmpClosedError: QEMU is gone, or went before it answered.
        """
        if self._task is None or self._task.done():
            raise QmpClosedError("the connection to QEMU is closed")
        self._last_id += 1
        message_id = self._last_id
        answer: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self._answers[message_id] = answer
        message = {"execute": command, "arguments": arguments, "id": message_id}
        try:
            self._writer.write(json.dumps(message).encode() + b"\n")
            await self._writer.drain()
            return await answer
        except ConnectionError as error:
            raise QmpClosedError(f"QEMU went before it answered {command}") from error
        finally:
            self._answers.pop(message_id, None)

    async def finished(self) -> None:
        """Return once QEMU has closed the connection and every event before that was told."""
        if self._task is not None:
            await asyncio.wait((self._task,))

    async def close(self) -> None:
        """Close the connection; harmless when it is closed."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    async def _read_greeting(self) -> None:
        greeting = await self._read()
        if greeting is None or "QMP" not in greeting:
            raise QmpClosedError("QEMU did not greet")

    async def _read_all(self) -> None:
        try:
            while (message := await self._read()) is not None:
                self._take(message)
        except QmpClosedError as error:
            log.warning("%s", error.message)
        finally:
            for answer in self._answers.values():
                if not answer.done():
                    answer.set_exception(QmpClosedError("QEMU closed the connection"))

    def _take(self, message: Event) -> None:
        if "event" in message:
            data = message.get("data")
            known = isinstance(data, dict)
            self._on_event(str(message["event"]), cast("Event", data) if known else {})
            return
        number = message.get("id")
        answer = self._answers.get(number) if isinstance(number, int) else None
        if answer is None or answer.done():
            return
        if "error" in message:
            error = message["error"]
            words = cast("Event", error).get("desc") if isinstance(error, dict) else error
            answer.set_exception(QmpCommandError(f"QEMU: {words}"))
        else:
            answer.set_result(message.get("return"))

    async def _read(self) -> Event | None:
        """The next message; None at the end of the connection."""
        try:
            line = await self._reader.readline()
        except ConnectionError:
            return None
        except ValueError as error:
            raise QmpClosedError("QEMU sent a line that is too long") from error
        if not line.endswith(b"\n"):
            return None
        try:
            message = json.loads(line)
        except ValueError as error:
            raise QmpClosedError("QEMU sent something that is not QMP") from error
        if not isinstance(message, dict):
            raise QmpClosedError("QEMU sent something that is not QMP")
        return cast("Event", message)
