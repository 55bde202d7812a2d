"""The supervisor's service and its client, against each other over a Unix socket; the supervisor is played."""

import asyncio
import tempfile
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import grpc
import grpc.aio
import pytest

from woodlot._pb.agent.v1 import agent_pb2
from woodlot._pb.supervisor.v1 import supervisor_pb2 as pb
from woodlot._pb.supervisor.v1 import supervisor_pb2_grpc
from woodlot.container.client import Attachment, Supervised
from woodlot.container.logs import LogReader, LogWriter, parse_records
from woodlot.container.service import Service
from woodlot.container.session import End, Session
from woodlot.container.spec import ExecSpec, RestartPolicy
from woodlot.container.update import Update
from woodlot.container.usage import Stats
from woodlot.container.wire import decode_end
from woodlot.errors import ErrorCode, ExecutionError, GuestError, StateError, WoodlotError
from woodlot.guest.said import Exited, Output, Started

if TYPE_CHECKING:
    from woodlot.guest.client import Process

END = End(code=7, signal=0, oom_killed=True, reason="öde")


class Guest:
    """The process: notes what it is sent, and prints what it is told to."""

    def __init__(self) -> None:
        self.received: list[object] = []
        self.printed: asyncio.Queue[Output | None] = asyncio.Queue()
        self.closed = asyncio.Event()
        self.refusal: WoodlotError | None = None

    async def write(self, data: bytes) -> None:
        self._note(data)

    async def close_stdin(self) -> None:
        self._note("end of file")
        self.closed.set()

    async def signal(self, number: int) -> None:
        self._note(("signal", number))

    async def resize(self, rows: int, columns: int) -> None:
        self._note(("size", rows, columns))

    def _note(self, what: object) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.received.append(what)

    async def events(self) -> AsyncGenerator[Started | Output | Exited]:
        yield Started(pid=2)
        while (chunk := await self.printed.get()) is not None:
            yield chunk
        yield Exited(code=7, signal=0, oom_killed=False)


class Agent:
    """The guest's own word on what it uses, and on what runs in it."""

    async def stats(self, *, timeout_s: float) -> agent_pb2.StatsResponse:
        assert timeout_s > 0
        return agent_pb2.StatsResponse(
            time_nanos=2_500_000_000,
            cpu_usage_usec=2**63,
            memory_usage_bytes=3,
            memory_limit_bytes=4,
            network_rx_bytes=5,
            network_tx_bytes=6,
            block_read_bytes=7,
            block_write_bytes=8,
            processes=9,
        )

    async def list_processes(self, *, timeout_s: float) -> agent_pb2.ListProcessesResponse:
        assert timeout_s > 0
        process = agent_pb2.ListProcessesResponse.Process(
            pid=7, user="w\x1b[2Jw", cpu_millis=1500, command="x" * 5000, state="Sl"
        )
        return agent_pb2.ListProcessesResponse(processes=[process], left_out=3)


class Player:
    """A supervisor and its life without a VM: the process runs once it is started, and prints what the test says."""

    def __init__(self, log: Path) -> None:
        self.session = Session(LogWriter(log, max_bytes=1 << 20))
        self.guest = Guest()
        self.execs: dict[str, Guest] = {}
        self.refusal: WoodlotError | None = None
        self.asked: list[tuple[object, ...]] = []
        self.left = asyncio.Event()
        self._running = False
        self.ended: asyncio.Future[End] = asyncio.get_running_loop().create_future()
        self._life: asyncio.Task[None] | None = None

    @property
    def process(self) -> Guest:
        if not self._running:
            raise StateError("container web is not running", hint="start it")
        return self.guest

    def find(self, exec_id: str) -> Guest:
        if not exec_id:
            return self.process
        if exec_id not in self.execs:
            raise StateError("container web runs no such process")
        return self.execs[exec_id]

    @asynccontextmanager
    async def exec(self, spec: ExecSpec, *, rows: int, columns: int) -> AsyncGenerator[Guest]:
        self.asked.append(("exec", spec, rows, columns))
        if self.refusal is not None:
            raise self.refusal
        guest = self.execs[spec.id] = Guest()
        try:
            yield guest
        finally:
            del self.execs[spec.id]

    async def exec_detached(self, spec: ExecSpec) -> None:
        self.asked.append(("detached", spec))
        if self.refusal is not None:
            raise self.refusal

    async def start_process(self, *, owned: bool, rows: int = 0, columns: int = 0) -> None:
        self.asked.append(("start", owned, rows, columns))
        if self.refusal is not None:
            raise self.refusal
        if self._life is None:
            self._running = True
            self._life = asyncio.create_task(self._live())

    async def _live(self) -> None:
        started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        await self.session.pump(cast("Process", self.guest), started)
        await self.end()

    async def end(self) -> None:
        self._running = False
        await self.session.finish()
        self.ended.set_result(END)

    @property
    def life(self) -> "Player":
        return self

    @property
    def processes(self) -> "Player":
        return self

    @property
    def agent(self) -> Agent:
        _ = self.process
        return Agent()

    helpers = ()

    async def pause(self) -> None:
        self.asked.append(("pause",))

    async def unpause(self) -> None:
        raise StateError("container web is not paused")

    async def update(self, wanted: Update) -> None:
        self.asked.append(("update", wanted))

    async def signal(self, number: int, *, exec_id: str) -> None:
        await self.find(exec_id).signal(number)

    async def stop(self, *, signal_number: int, grace_s: float, by_user: bool) -> End:
        self.asked.append(("stop", signal_number, grace_s, by_user))
        self.guest.printed.put_nowait(None)
        return await asyncio.shield(self.ended)

    def owner_left(self) -> None:
        self.left.set()

    def prints(self, *chunks: bytes, end: bool = True) -> None:
        for chunk in chunks:
            self.guest.printed.put_nowait(Output(data=chunk, stderr=chunk.startswith(b"err")))
        if end:
            self.guest.printed.put_nowait(None)

    async def close(self) -> None:
        if self._life is not None:
            self._life.cancel()
            await asyncio.gather(self._life, return_exceptions=True)
        await self.session.finish()


@pytest.fixture
def socket_path() -> Iterator[Path]:
    # Paths of sockets are short, pytest's directories are not.
    with tempfile.TemporaryDirectory(prefix="wl-") as directory:
        yield Path(directory) / "s.sock"


@asynccontextmanager
async def serving(player: Player, socket_path: Path) -> AsyncGenerator[grpc.aio.Server]:
    server = cast("Any", grpc.aio).server()
    service = Service(cast("Any", player))
    cast("Any", supervisor_pb2_grpc).add_SupervisorServicer_to_server(service, server)
    server.add_insecure_port(f"unix:{socket_path}")
    await server.start()
    try:
        yield server
    finally:
        await server.stop(0)


@pytest.fixture
async def player(tmp_path: Path, socket_path: Path) -> AsyncGenerator[Player]:
    player = Player(tmp_path / "stdio.log")
    async with asyncio.timeout(30), serving(player, socket_path):
        yield player
        await player.close()


@pytest.fixture
async def client(player: Player, socket_path: Path) -> AsyncGenerator[Supervised]:
    async with Supervised(socket_path) as client:
        yield client


async def read(attachment: Attachment) -> list[Output | End]:
    async with asyncio.timeout(10):
        return [item async for item in attachment.output()]


async def test_start(player: Player, client: Supervised) -> None:
    await client.start()
    await client.start()
    assert player.asked == [("start", False, 0, 0)] * 2


@pytest.mark.parametrize(
    "refusal",
    [
        ExecutionError("no such file", code=ErrorCode.NOT_FOUND),
        ExecutionError("permission denied", code=ErrorCode.NOT_EXECUTABLE),
        GuestError("öde", details="two\nlines", hint="look"),
    ],
)
async def test_a_refused_start_is_told_as_it_is(
    player: Player, client: Supervised, refusal: WoodlotError
) -> None:
    player.refusal = refusal
    with pytest.raises(WoodlotError) as caught:
        await client.start()
    attached = client.attach(start=True, owner=False, stdin=False)
    with pytest.raises(WoodlotError) as again:
        async with attached as attachment:
            await attachment.started()
    for error in (caught.value, again.value):
        assert (error.code, error.message, error.details, error.hint) == (
            refusal.code,
            refusal.message,
            refusal.details,
            refusal.hint,
        )
        assert isinstance(error, ExecutionError) == isinstance(refusal, ExecutionError)


async def test_not_a_byte_is_missed_and_the_end_comes_last(
    player: Player, client: Supervised
) -> None:
    chunks = [b"%d\n" % number for number in range(200)] + [b"err", b"\xff\0"]
    player.prints(*chunks)
    async with client.attach(start=True, owner=True, stdin=False, window=(33, 77)) as attachment:
        await attachment.started()
        got = await read(attachment)
    assert got == [*(Output(data=c, stderr=c == b"err") for c in chunks), END]
    assert player.asked == [("start", True, 33, 77)]
    # An owner that has heard of the end does not leave before it.
    await asyncio.sleep(0.05)
    assert not player.left.is_set()


async def test_stdin(player: Player, client: Supervised) -> None:
    async with client.attach(start=True, owner=False, stdin=True) as attachment:
        await attachment.started()
        await attachment.write(b"one")
        await attachment.write(b"\0two")
        await attachment.close_stdin()
        await player.guest.closed.wait()
        player.prints()
        assert await read(attachment) == [END]
        # The process has gone; writing on is no error.
        await attachment.write(b"late")
        await attachment.close_stdin()
    assert player.guest.received == [b"one", b"\0two", "end of file"]


async def test_without_stdin_nothing_is_fed(player: Player, client: Supervised) -> None:
    async with client.attach(start=True, owner=False, stdin=False) as attachment:
        await attachment.started()
        await attachment.write(b"ignored")
        await client.signal(10)
        player.prints()
        await read(attachment)
    assert player.guest.received == [("signal", 10)]


async def test_stdin_for_a_process_that_does_not_run_is_dropped(
    player: Player, client: Supervised
) -> None:
    async with client.attach(start=False, owner=False, stdin=True) as attachment:
        await attachment.started()
        await attachment.write(b"lost")
        await asyncio.sleep(0.05)
        await player.end()
        assert await read(attachment) == [END]
    assert player.guest.received == []


async def test_several_see_the_same(player: Player, client: Supervised) -> None:
    async with (
        client.attach(start=True, owner=True, stdin=False) as first,
        client.attach(start=False, owner=False, stdin=False) as second,
    ):
        await first.started()
        await second.started()
        player.prints(b"hello")
        expected = [Output(data=b"hello", stderr=False), END]
        assert await read(first) == expected
        assert await read(second) == expected


@pytest.mark.parametrize("owner", [True, False])
async def test_an_owner_that_leaves_is_noticed(
    player: Player, client: Supervised, owner: bool
) -> None:
    async with client.attach(start=True, owner=owner, stdin=True) as attachment:
        await attachment.started()
    if owner:
        async with asyncio.timeout(10):
            await player.left.wait()
    else:
        await asyncio.sleep(0.2)
        assert not player.left.is_set()


async def test_one_that_left_holds_the_process_back_no_more(
    player: Player, client: Supervised
) -> None:
    async with client.attach(start=True, owner=False, stdin=False) as attachment:
        await attachment.started()
        # More than all the buffers between here and there hold.
        player.prints(*[bytes(64 << 10)] * 200)
        await asyncio.sleep(0.2)
        assert not player.guest.printed.empty()
    async with asyncio.timeout(10):
        assert await player.ended == END


async def test_an_ended_container_can_be_asked_for_its_end(
    player: Player, client: Supervised
) -> None:
    player.prints()
    await client.start()
    await player.ended
    async with client.attach(start=False, owner=False, stdin=False) as attachment:
        await attachment.started()
        assert await read(attachment) == [END]


async def test_signal_and_size(player: Player, client: Supervised) -> None:
    await client.start()
    await client.signal(15)
    await client.resize(24, 80)
    assert player.guest.received == [("signal", 15), ("size", 24, 80)]


async def test_what_the_guest_refuses_is_told(player: Player, client: Supervised) -> None:
    with pytest.raises(WoodlotError, match="container web is not running") as caught:
        await client.signal(15)
    assert (caught.value.code, caught.value.hint) == (ErrorCode.INVALID_STATE, "start it")
    await client.start()
    player.guest.refusal = GuestError("the agent is gone")
    for asked in (client.signal(15), client.resize(1, 2)):
        with pytest.raises(WoodlotError, match="the agent is gone") as caught:
            await asked
        assert caught.value.code is ErrorCode.UNAVAILABLE


async def test_stop_gives_the_end(player: Player, client: Supervised) -> None:
    await client.start()
    assert await client.stop(signal_number=3, grace_s=0.5) == END
    assert await client.stop(grace_s=2, resumable=True) == END
    assert player.asked[1:] == [("stop", 3, 0.5, True), ("stop", 0, 2.0, False)]


async def test_wait_answers_at_the_end(player: Player, socket_path: Path) -> None:
    async with cast("Any", grpc.aio).insecure_channel(f"unix:{socket_path}") as channel:
        waiting = cast("Any", supervisor_pb2_grpc).SupervisorStub(channel).Wait(pb.WaitRequest())
        await asyncio.sleep(0.1)
        assert not waiting.done()
        await player.end()
        assert decode_end(await waiting) == END


async def test_a_supervisor_that_is_not_there(socket_path: Path) -> None:
    async with asyncio.timeout(30), Supervised(socket_path) as client:
        for asked in (
            client.start(),
            client.signal(9),
            client.resize(1, 1),
            client.stop(grace_s=1),
        ):
            with pytest.raises(StateError, match="supervisor is gone"):
                await asked
        with pytest.raises(StateError, match="supervisor is gone"):
            async with client.attach(start=True, owner=True, stdin=True) as attachment:
                await attachment.started()


async def test_a_supervisor_that_dies_in_the_midst(tmp_path: Path, socket_path: Path) -> None:
    player = Player(tmp_path / "stdio.log")
    async with asyncio.timeout(30), Supervised(socket_path) as client:
        async with serving(player, socket_path) as server:
            async with client.attach(start=True, owner=True, stdin=True) as attachment:
                await attachment.started()
                player.prints(b"first", end=False)
                output = attachment.output()
                assert await anext(output) == Output(data=b"first", stderr=False)
                await server.stop(0)
                with pytest.raises(StateError, match="supervisor is gone"):
                    await anext(output)
                await attachment.write(b"lost")
    await player.close()


MORE = ExecSpec(
    id="more", args=("sh", "-c", "x"), env=("A=b",), cwd="/srv", user="www", tty=True, stdin=True
)


async def test_exec_carries_stdio_signals_and_the_end(player: Player, client: Supervised) -> None:
    async with client.exec(MORE, window=(33, 77)) as attachment:
        await attachment.started()
        assert player.asked == [("exec", MORE, 33, 77)]
        guest = player.execs["more"]
        await attachment.write(b"in")
        await attachment.close_stdin()
        await guest.closed.wait()
        await client.signal(15, exec_id="more")
        await client.resize(2, 3, exec_id="more")
        assert guest.received == [b"in", "end of file", ("signal", 15), ("size", 2, 3)]
        for chunk in (Output(data=b"out", stderr=False), Output(data=b"err", stderr=True), None):
            guest.printed.put_nowait(chunk)
        *output, end = await read(attachment)
    assert output == [Output(data=b"out", stderr=False), Output(data=b"err", stderr=True)]
    assert end == End(code=7)
    with pytest.raises(WoodlotError, match="runs no such process"):
        await client.signal(15, exec_id="more")
    assert player.guest.received == []


async def test_exec_ends_with_its_client(player: Player, client: Supervised) -> None:
    async with client.exec(MORE) as attachment:
        await attachment.started()
        assert "more" in player.execs
    async with asyncio.timeout(10):
        while player.execs:
            await asyncio.sleep(0.01)


async def test_a_detached_exec_is_left_alone(player: Player, client: Supervised) -> None:
    await client.exec_detached(MORE)
    assert player.asked == [("detached", MORE)]
    player.refusal = ExecutionError("no such file", code=ErrorCode.NOT_FOUND)
    for refused in (client.exec_detached(MORE), _start_exec(client)):
        with pytest.raises(ExecutionError, match="no such file"):
            await refused


async def _start_exec(client: Supervised) -> None:
    async with client.exec(MORE) as attachment:
        await attachment.started()


async def test_a_follower_sees_each_record_once(
    player: Player, client: Supervised, tmp_path: Path
) -> None:
    """Before and after it came, whatever is rotated away, and the line without an end."""
    await player.session.finish()
    player.session = Session(LogWriter(tmp_path / "stdio.log", max_bytes=2000))
    await player.start_process(owned=False)
    player.prints(*(b"line %d\n" % number for number in range(30)), end=False)
    await _until_logged(player)
    reader = LogReader(tmp_path / "stdio.log")
    reader.open()
    async with client.follow() as (position, records):
        player.prints(*(b"line %d\n" % number for number in range(30, 500)), b"err rest")
        await player.ended
        reader.open()
        before = [one.text for one in reader.read(position)]
        after = [one.text async for piece in records for one in parse_records(piece)]
    reader.close()
    assert [*before, *after][-500:] == [
        *(f"line {number}\n" for number in range(500)),
        "err rest",
    ][-500:]
    assert before
    assert len(after) == 471


async def _until_logged(player: Player) -> None:
    async with asyncio.timeout(10):
        while player.guest.printed.qsize():
            await asyncio.sleep(0.01)


async def test_usage_is_the_guests_and_the_hosts(player: Player, client: Supervised) -> None:
    with pytest.raises(WoodlotError, match="is not running") as caught:
        await client.stats()
    assert (caught.value.code, caught.value.hint) == (ErrorCode.INVALID_STATE, "start it")
    await player.start_process(owned=False)
    stats = await client.stats()
    assert stats.host_memory_bytes > 1 << 20
    assert replace(stats, host_memory_bytes=0) == Stats(
        time_s=2.5,
        cpu_usage_us=2**63,
        memory_bytes=3,
        memory_limit_bytes=4,
        host_memory_bytes=0,
        network_rx_bytes=5,
        network_tx_bytes=6,
        block_read_bytes=7,
        block_write_bytes=8,
        processes=9,
    )


async def test_what_a_guest_says_of_its_processes_is_cut_and_stripped(
    player: Player, client: Supervised
) -> None:
    await player.start_process(owned=False)
    answer = await client.top()
    [process] = answer.listed
    assert (process.pid, process.user, process.cpu_s, process.state) == (7, "w [2Jw", 1.5, "S")
    assert len(process.command) < 1000
    assert answer.left_out == 3


@pytest.mark.parametrize(
    "wanted",
    [
        Update(cpus=0.5),
        Update(memory_bytes=1 << 40),
        Update(restart=RestartPolicy(name="on-failure", max_retries=3)),
        Update(cpus=2, memory_bytes=1, restart=RestartPolicy(name="always")),
    ],
)
async def test_pause_and_update(player: Player, client: Supervised, wanted: Update) -> None:
    await client.pause()
    with pytest.raises(WoodlotError, match="is not paused"):
        await client.unpause()
    await client.update(wanted)
    assert player.asked == [("pause",), ("update", wanted)]
