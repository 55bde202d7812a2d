"""The sockets of a running container, with an agent that is a program of ours."""

import asyncio
import dataclasses
import logging
import socket
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from google.protobuf import text_format

from tests.unit.container.specs import WEB
from tests.unit.guest.agents import (
    END,
    OPENED,
    FakeAgent,
    Requests,
    Responses,
    connected,
    data,
    echo,
)
from woodlot.container import relays as relays_module
from woodlot.container.relays import Relays
from woodlot.container.spec import ContainerSpec, Mount, SocketSpec
from woodlot.errors import NotFoundError
from woodlot.paths import Paths

USED = """\
type: "socket"
source: "s0"
destination: "/run/docker.sock"
options: "ro"
mode: 432
owner: "www:staff"
type: "socket"
source: "s1"
destination: "/run/host-services/ssh-auth.sock"
mode: 384
owner: "www:staff"
"""


@pytest.fixture(autouse=True)
async def _bounded() -> AsyncGenerator[None]:
    async with asyncio.timeout(30):
        yield


@pytest.fixture
def directory(paths: Paths) -> Path:
    return paths.runtime


def publishing(directory: Path) -> ContainerSpec:
    published = SocketSpec(host_path=str(directory / "p.sock"), container_path="/run/p.sock")
    return dataclasses.replace(WEB, sockets=(published,))


def using(path: Path) -> ContainerSpec:
    mount = Mount(type="socket", source=str(path), destination="/run/docker.sock", read_only=True)
    return dataclasses.replace(WEB, mounts=(mount,))


@asynccontextmanager
async def carried(paths: Paths, spec: ContainerSpec) -> AsyncGenerator[FakeAgent]:
    """The relays of a container whose process runs."""
    started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    started.set_result(None)
    relays = Relays(paths, spec, {})
    with tempfile.TemporaryDirectory(prefix="wl-") as private, relays.open():
        async with connected(Path(private)) as (fake, agent):
            fake.knocks["s0"] = asyncio.Queue()
            async with relays.carry(agent, started):
                yield fake


async def echoed(path: Path, sent: bytes) -> bytes:
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(sent)
    writer.write_eof()
    got = await reader.read()
    writer.close()
    return got


async def test_a_published_socket(paths: Paths, directory: Path) -> None:
    async with carried(paths, publishing(directory)) as fake:
        fake.sockets["/run/p.sock"] = echo
        path = directory / "p.sock"
        got = await asyncio.gather(*(echoed(path, bytes([n]) * 1000) for n in range(20)))
        assert got == [bytes([n]) * 1000 + b"1000" for n in range(20)]
        while fake.open:
            await asyncio.sleep(0)
    assert not path.exists()


async def test_who_connects_before_the_process_runs_waits(paths: Paths, directory: Path) -> None:
    started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    relays = Relays(paths, publishing(directory), {})
    with tempfile.TemporaryDirectory(prefix="wl-") as private, relays.open():
        early = asyncio.create_task(echoed(directory / "p.sock", b"early"))
        async with connected(Path(private)) as (fake, agent), relays.carry(agent, started):
            await asyncio.wait((early,), timeout=0.1)
            assert not early.done()
            fake.sockets["/run/p.sock"] = echo
            started.set_result(None)
            assert await early == b"early5"


async def test_nobody_listens_in_the_container(
    paths: Paths, directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with carried(paths, publishing(directory)) as fake:
        for _ in range(relays_module._MAX_COMPLAINTS + 5):
            with pytest.raises(ConnectionResetError):
                await echoed(directory / "p.sock", b"x")
        # What a container can cause as often as it likes is not told as often.
        told = [r for r in caplog.records if r.levelno == logging.WARNING]
        assert len(told) == relays_module._MAX_COMPLAINTS
        assert "no such file" in told[0].getMessage()
        fake.sockets["/run/p.sock"] = echo
        assert await echoed(directory / "p.sock", b"x") == b"x1"


async def test_of_many_connections_some_wait(
    paths: Paths, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relays_module, "MAX_CONNECTIONS", 2)
    gate, arrived = asyncio.Event(), asyncio.Semaphore(0)
    most = 0

    async def gated(requests: Requests) -> Responses:
        nonlocal most
        most = max(most, fake.open)
        arrived.release()
        yield OPENED
        await gate.wait()
        yield END
        async for _ in requests:
            pass

    async with carried(paths, publishing(directory)) as fake:
        fake.sockets["/run/p.sock"] = gated
        asking = [asyncio.create_task(echoed(directory / "p.sock", b"")) for _ in range(6)]
        for _ in range(2):
            await arrived.acquire()
        await asyncio.wait(asking, timeout=0.1)
        gate.set()
        await asyncio.gather(*asking)
        assert most == 2


async def serve_upper(path: Path) -> asyncio.Server:
    """A program of the host's that answers with the capitals of all it has read, and has a short queue."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.read()).upper())
        writer.close()

    return await asyncio.start_unix_server(serve, path, backlog=1)


async def ask(fake: FakeAgent, name: str, text: bytes) -> bytes:
    """What a program in the guest gets that connects to a mounted socket, says ``text`` and listens."""
    answered: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def script(requests: Requests) -> Responses:
        got = b""
        try:
            yield OPENED
            yield data(text)
            yield END
            async for request in requests:
                got += request.data
        finally:
            answered.set_result(got)

    fake.knocks[name].put_nowait(script)
    return await answered


async def test_a_used_socket(paths: Paths, directory: Path) -> None:
    path = directory / "host.sock"
    server = await serve_upper(path)
    async with server, carried(paths, using(path)) as fake:
        # More than the queue holds.
        answers = await asyncio.gather(*(ask(fake, "s0", b"a%d" % n) for n in range(20)))
        assert answers == [b"A%d" % n for n in range(20)]


async def test_a_used_socket_is_whoever_serves_its_path_now(
    paths: Paths, directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = directory / "host.sock"
    server = await serve_upper(path)
    async with carried(paths, using(path)) as fake:
        assert await ask(fake, "s0", b"first") == b"FIRST"
        server.close()
        await server.wait_closed()
        assert await ask(fake, "s0", b"nobody") == b""
        assert f"to {path} is closed: Connection refused" in caplog.text
        path.unlink()
        async with await serve_upper(path):
            assert await ask(fake, "s0", b"again") == b"AGAIN"


async def test_a_full_queue_is_waited_for(directory: Path) -> None:
    path, loop = directory / "s", asyncio.get_running_loop()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(0)
        listener.setblocking(False)
        with await relays_module._connect(path) as first:
            connecting = asyncio.create_task(relays_module._connect(path))
            await asyncio.wait((connecting,), timeout=0.1)
            assert not connecting.done()
            for _ in range(2):
                accepted, _address = await loop.sock_accept(listener)
                accepted.send(b"x")
                accepted.close()
            with await connecting as second:
                assert [await loop.sock_recv(one, 9) for one in (first, second)] == [b"x", b"x"]


async def test_a_guest_that_accepts_nothing_is_not_asked_again(
    paths: Paths, directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    path = directory / "host.sock"
    async with await serve_upper(path), carried(paths, using(path)) as fake:
        del fake.knocks["s0"]
        while f"{path} is not carried any more" not in caplog.text:
            await asyncio.sleep(0.01)
    assert caplog.text.count("is not carried any more") == 1


async def test_what_the_guest_is_told(paths: Paths, directory: Path) -> None:
    docker, agent = directory / "docker.sock", directory / "agent.sock"
    async with await serve_upper(docker), await serve_upper(agent):
        docker.chmod(0o660)
        # A mode that keeps out even its owner would keep out the container's user.
        agent.chmod(0o000)
        spec = dataclasses.replace(using(docker), ssh=True)
        relays = Relays(paths, spec, {"SSH_AUTH_SOCK": str(agent)})
        with relays.open():
            told = "".join(text_format.MessageToString(one) for one in relays.requests())
        assert told == USED


async def test_closed_early(paths: Paths, directory: Path) -> None:
    relays = Relays(paths, publishing(directory), {})
    with relays.open():
        relays.close()
        assert not (directory / "p.sock").exists()
        # The path may be somebody else's by now.
        (directory / "p.sock").touch()
    assert (directory / "p.sock").exists()


async def test_all_or_nothing(paths: Paths, directory: Path) -> None:
    spec = publishing(directory)
    bad = SocketSpec(host_path=str(directory / "none/p.sock"), container_path="/x")
    relays = Relays(paths, dataclasses.replace(spec, sockets=(*spec.sockets, bad)), {})
    with pytest.raises(NotFoundError), relays.open():
        pass
    assert list(directory.iterdir()) == []
