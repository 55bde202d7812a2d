"""The real switch, joined and left as supervisors do, without a VM."""

import asyncio
import os
import shutil
import signal
import socket
import tempfile
from collections.abc import AsyncGenerator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from woodlot.errors import AlreadyExistsError, ConfigError, NetworkError, WoodlotError
from woodlot.network import switch
from woodlot.network.link import Link
from woodlot.network.network import Network
from woodlot.network.switch import Attachment, Port, Wanted
from woodlot.paths import Paths

NETWORK = Network(id="default", name="default", subnet="10.86.0.0/24")
LEAVE_S = 15.0


@pytest.fixture
def paths() -> Iterator[Paths]:
    with tempfile.TemporaryDirectory(prefix="wl-") as directory:
        base = Path(directory)
        (base / "run").mkdir()
        yield Paths(data=base / "data", runtime=base / "run")


@asynccontextmanager
async def join(paths: Paths, name: str, number: int, **more: str) -> AsyncGenerator[Attachment]:
    wanted = Wanted(
        container_id=name,
        names=(name,),
        mac=f"52:54:00:00:00:{number:02x}",
        socket_path=paths.runtime / f"{name}.sock",
        **more,  # type: ignore[arg-type]
    )
    async with switch.attach(paths, NETWORK, wanted) as attachment:
        yield attachment


async def until_gone(paths: Paths) -> None:
    async with asyncio.timeout(LEAVE_S):
        while paths.switch_socket(NETWORK.id).exists():
            await asyncio.sleep(0.1)
    # The lock is let go of when the process has ended.
    async with asyncio.timeout(LEAVE_S), switch.locked(paths, NETWORK):
        pass


def find_switch(paths: Paths) -> int:
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                words = (process / "cmdline").read_bytes()
            except OSError:
                continue
            if b"woodlot-switch" in words and os.fsencode(paths.data) in words:
                return int(process.name)
    raise AssertionError("no switch runs")


async def test_containers_join_and_the_switch_goes_with_the_last_one(paths: Paths) -> None:
    assert not switch.is_running(paths, NETWORK)
    async with join(paths, "web", 1) as web:
        assert (web.lease.ip, web.lease.gateway) == ("10.86.0.2", "10.86.0.1")
        assert stat_is_private(paths.switch_socket(NETWORK.id))
        assert stat_is_private(paths.runtime / "web.sock")
        async with join(paths, "db", 2, ip="10.86.0.77") as db:
            assert db.lease.ip == "10.86.0.77"
            pid = find_switch(paths)
            members = await switch.members(paths, NETWORK)
            assert [(one.container_id, one.ip) for one in members] == [
                ("web", "10.86.0.2"),
                ("db", "10.86.0.77"),
            ]
        assert [one.container_id for one in await switch.members(paths, NETWORK)] == ["web"]
    await until_gone(paths)
    assert not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text()
    assert await switch.members(paths, NETWORK) == ()
    assert list(paths.runtime.iterdir()) == []
    # And comes again.
    async with join(paths, "web", 1) as web:
        assert web.lease.ip == "10.86.0.2"
    await until_gone(paths)


def stat_is_private(path: Path) -> bool:
    return path.stat().st_mode & 0o077 == 0


async def test_many_at_once_share_one_switch(paths: Paths) -> None:
    async with AsyncExitStack() as stack:
        joined = await asyncio.gather(
            *(stack.enter_async_context(join(paths, f"c{n}", n)) for n in range(1, 21))
        )
        assert len({one.lease.ip for one in joined}) == 20
        assert len(await switch.members(paths, NETWORK)) == 20
    await until_gone(paths)


async def test_what_it_refuses_has_our_errors(paths: Paths) -> None:
    async with join(paths, "web", 1) as web:
        for number, more, kind, said in (
            (1, {}, AlreadyExistsError, "the MAC address 52:54:00:00:00:01 is in use"),
            (2, {"ip": "10.86.0.2"}, AlreadyExistsError, "10.86.0.2 is in use by container web"),
            (2, {"ip": "10.99.0.2"}, ConfigError, "no address of the network's subnet"),
        ):
            with pytest.raises(WoodlotError) as caught:
                async with join(paths, "other", number, **more):
                    pass
            assert isinstance(caught.value, kind)
            assert said in caught.value.message
            assert caught.value.message.startswith("network default: ")
        with socket.create_server(("127.0.0.1", 0)) as busy:
            port = Port(container_port=80, host_ip="127.0.0.1", host_port=busy.getsockname()[1])
            with pytest.raises(AlreadyExistsError, match="is in use") as taken:
                await web.publish(port)
            assert str(port.host_port) in taken.value.message
        [opened] = await web.publish(Port(container_port=80, host_ip="127.0.0.1"))
        assert opened.host_port > 0
        # Without an address, one port is open for both families.
        first, second = await web.publish(Port(container_port=80))
        assert (first.host_ip, second.host_ip) == ("0.0.0.0", "::")
        assert first.host_port == second.host_port > 0
        with pytest.raises(ConfigError, match="no address of this host"):
            await web.publish(Port(container_port=80, host_ip="203.0.113.1", host_port=8080))
    await until_gone(paths)


async def test_a_switch_that_dies_is_told(paths: Paths) -> None:
    async with join(paths, "web", 1) as web:
        os.kill(find_switch(paths), signal.SIGKILL)
        async with asyncio.timeout(5):
            assert "network default is lost: its switch ended" in await web.lost
        with pytest.raises(NetworkError):
            await web.publish(Port(container_port=80))
        # The next one starts another.
        async with join(paths, "db", 2) as db:
            assert db.lease.ip == "10.86.0.2"
    await until_gone(paths)


async def test_a_switch_that_is_just_being_killed_is_replaced(paths: Paths) -> None:
    with socket.socket(socket.AF_UNIX) as dying:
        dying.bind(str(paths.switch_socket(NETWORK.id)))
        dying.listen()

        def die() -> None:
            # The question whether it runs is answered; nothing after it is.
            dying.accept()[0].close()
            dying.close()

        death = asyncio.create_task(asyncio.to_thread(die))
        async with join(paths, "web", 1) as web:
            assert web.lease.ip == "10.86.0.2"
        await death
    await until_gone(paths)


async def test_a_container_is_told_when_its_vm_breaks_the_rules(paths: Paths) -> None:
    async with join(paths, "web", 1) as web:
        link = Link()
        link.give(paths.runtime / "web.sock")
        os.write(link.fd, b"\xff\xff\xff\xff")
        async with asyncio.timeout(5):
            assert "a frame of 4294967295 bytes" in await web.lost
        link.close()
    await until_gone(paths)


async def test_a_switch_whose_network_is_deleted_leaves_nothing(paths: Paths) -> None:
    async with join(paths, "web", 1):
        pid = find_switch(paths)
        shutil.rmtree(paths.network(NETWORK.id))
    async with asyncio.timeout(LEAVE_S):
        while paths.switch_socket(NETWORK.id).exists():
            await asyncio.sleep(0.1)
        while Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes():
            await asyncio.sleep(0.1)


async def test_one_that_cannot_start_says_why(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(switch, "find_program", lambda: Path("/bin/false"))
    with pytest.raises(NetworkError, match="ended or could not start") as caught:
        async with join(paths, "web", 1):
            pass
    assert "switch.log" in str(caught.value.hint)
