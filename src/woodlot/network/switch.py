"""The switch of a network, as a supervisor sees it: started if it does not run, joined for the life of a block.

One process for each network, and only while a container is attached. It ends by itself, so whoever looks for it holds
the network's lock until it is attached; the switch takes the same lock to leave.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import field, replace
from pathlib import Path
from typing import Any, cast

import grpc
import grpc.aio

from woodlot import process
from woodlot._pb.switch.v1 import switch_pb2 as pb
from woodlot._pb.switch.v1.switch_pb2_grpc import SwitchStub
from woodlot.channel import dial
from woodlot.errors import (
    AlreadyExistsError,
    ConfigError,
    LimitError,
    NetworkError,
    NotFoundError,
    StateError,
    WoodlotError,
)
from woodlot.network import tap
from woodlot.network.egress import Egress
from woodlot.network.link import Link
from woodlot.network.network import Driver, Network
from woodlot.paths import Paths
from woodlot.store.locks import hold
from woodlot.values import dataclass

ATTACH_TIMEOUT_S = 20.0
CALL_TIMEOUT_S = 10.0
_LOG_LIMIT_BYTES = 1 << 20
_LOG_TAIL_BYTES = 1000
_REINSTALL = "install woodlot anew: `pip install --force-reinstall` builds the program"


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """A port of the host that leads to one of a container."""

    container_port: int
    protocol: str = "tcp"
    host_ip: str = ""
    """Empty for every address of the host."""
    host_port: int = 0
    """0 for one that is free."""
    last_host_port: int = 0
    """The end of a range that one port is chosen from; 0 for ``host_port`` alone."""

    def __str__(self) -> str:
        host = f"[{self.host_ip}]" if ":" in self.host_ip else self.host_ip or "*"
        return f"{host}:{self.host_port}/{self.protocol}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a container asks of a network."""

    container_id: str
    mac: str
    socket_path: Path
    """Of the socket where the link is given, or the tap taken."""
    link: Link | None = None
    """What carries frames to and from the VM; not with a bridge, whose kernel has taps."""
    names: tuple[str, ...] = ()
    ip: str = ""
    host_ports: tuple[tuple[int, int], ...] = ()
    nameservers: tuple[str, ...] = ()
    egress: Egress = field(default_factory=Egress)
    """What it may reach beyond the network."""
    others: tuple[Network, ...] = ()
    """Its other networks, whose names are its to use, too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """What it is given."""

    network: str
    mac: str
    ip: str
    prefix_length: int
    gateway: str
    """Also the resolver."""
    host: str
    """Stands for the host."""
    mtu: int
    internal: bool
    ip_v6: str = ""
    """Empty in a network without IPv6, as the other two."""
    prefix_length_v6: int = 0
    gateway_v6: str = ""


class Attachment:
    """A container's place in a network; made by `attach`."""

    def __init__(
        self,
        paths: Paths,
        network: Network,
        stub: Any,  # noqa: ANN401 - generated code has no types
        wanted: Wanted,
        lease: Lease,
    ) -> None:
        self._paths = paths
        self._network = network
        self._stub = stub
        self._wanted = wanted
        self.lease = lease
        self.tap_fd: int | None = None
        """The container's tap if the kernel carries the network's frames, open while it is attached."""
        self.lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        """Resolved when the container is cut off while it is attached: why, in one line."""

    async def publish(self, port: Port) -> tuple[Port, ...]:
        """Open a port of the host towards the container; what was opened, at each of its addresses.

        Without an address these are ``0.0.0.0`` and, if the host has IPv6, ``::``.

        Raises:
            AlreadyExistsError: It is in use.
            ConfigError: It is privileged, or no port of this host.
        """
        asked = pb.PublishRequest(
            container_id=self._wanted.container_id,
            port=_to_message(port),
            last_host_port=port.last_host_port,
        )
        try:
            reply: pb.PublishResponse = await self._stub.Publish(asked, timeout=CALL_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            raise _explain_port(error, port, self._paths, self._network) from error
        return tuple(
            replace(port, host_ip=one.host_ip, host_port=one.host_port, last_host_port=0)
            for one in reply.ports
        )


@asynccontextmanager
async def attach(paths: Paths, network: Network, wanted: Wanted) -> AsyncGenerator[Attachment]:
    """Join a container to a network for the life of the block; its ports close with it.

    Raises:
        AlreadyExistsError: Its address or MAC is in use.
        ConfigError: Its address is not one of the network's subnet.
        LimitError: The network is full.
        NetworkError: The switch could not be started.
    """
    async with contextlib.AsyncExitStack() as stack:
        async with hold(_lock(paths, network)):
            found = is_running(paths, network)
            while True:
                # A child is reaped; the switch may outlive us, and then has another parent.
                if not found:
                    child = _start(paths, network)
                    stack.callback(child.let_go)
                    reaping = asyncio.create_task(child.wait())
                    stack.push_async_callback(_cancel, reaping)
                channel = _dial(paths, network)
                stack.push_async_callback(channel.close, None)
                # Any: generated stubs carry no types.
                stub: Any = cast("Any", SwitchStub)(channel)
                call = stub.Attach(_request(paths, wanted))
                stack.callback(call.cancel)
                try:
                    attached = await _first(call, paths, network)
                    break
                except NetworkError:
                    # One that is being killed takes connections for a moment still.
                    if not found or is_running(paths, network):
                        raise
                    found = False
        attachment = Attachment(paths, network, stub, wanted, _lease(network, wanted, attached))
        if network.driver is Driver.BRIDGE:
            attachment.tap_fd = tap.receive(wanted.socket_path)
            stack.callback(os.close, attachment.tap_fd)
        elif wanted.link is not None:
            wanted.link.give(wanted.socket_path)
        watching = asyncio.create_task(_watch(call, attachment, paths, network))
        stack.push_async_callback(_cancel, watching)
        yield attachment


async def _cancel(task: "asyncio.Task[Any]") -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A container that is attached to a network, and what its switch has counted of it."""

    container_id: str
    names: tuple[str, ...]
    """By which others find it."""
    ip: str
    ip_v6: str
    """Empty in a network without IPv6."""
    mac: str
    frames_received: int
    frames_sent: int
    frames_dropped: int
    """Malformed or forged, or more than its queue holds."""
    egress_refused: int
    """Connections, datagrams and names that it asked for and may not have."""


async def members(paths: Paths, network: Network) -> Sequence[Member]:
    """Who is attached; nobody if no switch runs."""
    if not is_running(paths, network):
        return ()
    channel = _dial(paths, network)
    try:
        stub: Any = cast("Any", SwitchStub)(channel)
        reply: pb.StatusResponse = await stub.Status(pb.StatusRequest(), timeout=CALL_TIMEOUT_S)
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.UNAVAILABLE:
            # It left meanwhile.
            return ()
        raise _explain(error, paths, network) from error
    finally:
        await channel.close(None)
    return [
        Member(
            container_id=one.container_id,
            names=tuple(one.names),
            ip=one.ip,
            ip_v6=one.ip_v6,
            mac=one.mac,
            frames_received=one.frames_received,
            frames_sent=one.frames_sent,
            frames_dropped=one.frames_dropped,
            egress_refused=one.egress_refused,
        )
        for one in reply.members
    ]


@asynccontextmanager
async def locked(paths: Paths, network: Network) -> AsyncGenerator[None]:
    """Nobody attaches to the network during the block."""
    async with hold(_lock(paths, network)):
        yield


def find_program() -> Path:
    """The switch's program.

    Raises:
        NotFoundError: This installation was made without it.
    """
    program = Path(__file__).parent / "bin/woodlot-switch"
    if not os.access(program, os.X_OK):
        raise NotFoundError(f"the network switch {program} is missing", hint=_REINSTALL)
    return program


def _lock(paths: Paths, network: Network) -> Path:
    return paths.network(network.id) / "lock"


def _log(paths: Paths, network: Network) -> Path:
    return paths.network(network.id) / "switch.log"


def is_running(paths: Paths, network: Network) -> bool:
    """Whether a switch of the network takes connections."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(CALL_TIMEOUT_S)
        try:
            probe.connect(os.fspath(paths.switch_socket(network.id)))
        except (FileNotFoundError, ConnectionRefusedError):
            return False
    return True


def _start(paths: Paths, network: Network) -> process.Child:
    """Start the switch, which inherits a socket that takes connections already: nothing waits for it to be ready."""
    program, path, log = find_program(), paths.switch_socket(network.id), _log(paths, network)
    if log.exists() and log.stat().st_size > _LOG_LIMIT_BYTES:
        log.unlink()
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(os.fspath(path))
        path.chmod(0o600)
        listener.listen()
        return process.spawn(
            build_argv(program, paths, network, listener.fileno()),
            log_path=log,
            pass_fds=[listener.fileno()],
            die_with_parent=False,
        )


def build_argv(program: Path, paths: Paths, network: Network, listen_fd: int) -> list[str]:
    """The switch's command line."""
    ipv6 = ["-subnet-v6", network.subnet_v6] if network.subnet_v6 else []
    return [
        os.fspath(program),
        "-network", network.name,
        "-subnet", network.subnet, *ipv6,
        f"-internal={str(network.internal).lower()}",
        "-driver", network.driver.value,
        "-listen-fd", str(listen_fd),
        "-socket", os.fspath(paths.switch_socket(network.id)),
        "-lock", os.fspath(_lock(paths, network)),
    ]  # fmt: skip


def _dial(paths: Paths, network: Network) -> grpc.aio.Channel:
    return dial(f"unix:{paths.switch_socket(network.id)}", max_message_bytes=1 << 20)


def _request(paths: Paths, wanted: Wanted) -> pb.AttachRequest:
    return pb.AttachRequest(
        container_id=wanted.container_id,
        names=wanted.names,
        ip=wanted.ip,
        mac=wanted.mac,
        socket_path=os.fspath(wanted.socket_path),
        host_ports=[pb.PortRange(first=first, last=last) for first, last in wanted.host_ports],
        nameservers=wanted.nameservers,
        egress=_policy(wanted.egress),
        sibling_sockets=[os.fspath(paths.switch_socket(other.id)) for other in wanted.others],
    )


def _policy(egress: Egress) -> pb.Egress | None:
    if egress.rules is None:
        return None
    rules = [
        pb.Egress.Rule(name=rule.host, port=rule.port)
        if rule.is_name
        else pb.Egress.Rule(cidr=rule.host, port=rule.port)
        for rule in egress.rules
    ]
    return pb.Egress(rules=rules)


async def _first(
    call: Any,  # noqa: ANN401 - generated code has no types
    paths: Paths,
    network: Network,
) -> "pb.AttachResponse.Attached":
    try:
        async with asyncio.timeout(ATTACH_TIMEOUT_S):
            response = await call.read()
    except grpc.aio.AioRpcError as error:
        raise _explain(error, paths, network) from error
    except TimeoutError as error:
        raise NetworkError(
            f"the switch of network {network.name} did not answer within {ATTACH_TIMEOUT_S:g} s",
            details=_tail(paths, network),
        ) from error
    if not isinstance(response, pb.AttachResponse) or not response.HasField("attached"):
        raise NetworkError(f"the switch of network {network.name} answered out of turn")
    return response.attached


def _lease(network: Network, wanted: Wanted, attached: "pb.AttachResponse.Attached") -> Lease:
    return Lease(
        network=network.name,
        mac=wanted.mac,
        ip=attached.ip,
        prefix_length=attached.prefix_length,
        gateway=attached.gateway,
        host=attached.host,
        mtu=attached.mtu,
        internal=attached.internal,
        ip_v6=attached.ip_v6,
        prefix_length_v6=attached.prefix_length_v6,
        gateway_v6=attached.gateway_v6,
    )


async def _watch(
    call: Any,  # noqa: ANN401 - generated code has no types
    attachment: Attachment,
    paths: Paths,
    network: Network,
) -> None:
    try:
        response = await call.read()
        reason = "it ended the connection"
        if isinstance(response, pb.AttachResponse) and response.HasField("link_lost"):
            reason = response.link_lost.reason
    except grpc.aio.AioRpcError as error:
        reason = f"its switch ended (its log is {_log(paths, network)})"
        if error.code() is not grpc.StatusCode.UNAVAILABLE:
            reason = error.details() or str(error.code())
    if not attachment.lost.done():
        attachment.lost.set_result(f"network {network.name} is lost: {reason}")


def _explain(error: grpc.aio.AioRpcError, paths: Paths, network: Network) -> WoodlotError:
    said = f"network {network.name}: {error.details()}"
    match error.code():
        case grpc.StatusCode.INVALID_ARGUMENT:
            return ConfigError(said)
        case grpc.StatusCode.ALREADY_EXISTS:
            return AlreadyExistsError(said)
        case grpc.StatusCode.RESOURCE_EXHAUSTED:
            return LimitError(said)
        case grpc.StatusCode.NOT_FOUND:
            return StateError(said)
        case grpc.StatusCode.UNAVAILABLE:
            return NetworkError(
                f"the switch of network {network.name} ended or could not start",
                details=_tail(paths, network),
                hint=f"its log is {_log(paths, network)}",
            )
        case _:
            return NetworkError(said, details=str(error.code()))


def _explain_port(
    error: grpc.aio.AioRpcError, port: Port, paths: Paths, network: Network
) -> WoodlotError:
    match error.code():
        case grpc.StatusCode.ALREADY_EXISTS:
            return AlreadyExistsError(
                f"cannot publish port {port.container_port}: {error.details()} is in use",
                hint="publish another port of the host with -p, or stop what uses this one",
            )
        case grpc.StatusCode.PERMISSION_DENIED:
            return ConfigError(
                f"cannot publish port {port.container_port}: {error.details()} is privileged",
                hint="publish a port from 1024 on, or lower net.ipv4.ip_unprivileged_port_start",
            )
        case grpc.StatusCode.INVALID_ARGUMENT:
            return ConfigError(
                f"cannot publish port {port.container_port}: {error.details()}",
                hint="publish it at an address of this host, or leave the address out",
            )
        case _:
            return _explain(error, paths, network)


def _to_message(port: Port) -> pb.Port:
    return pb.Port(
        host_ip=port.host_ip,
        host_port=port.host_port,
        container_port=port.container_port,
        protocol=port.protocol,
    )


def _tail(paths: Paths, network: Network) -> str | None:
    try:
        with _log(paths, network).open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _LOG_TAIL_BYTES))
            return file.read().decode("utf-8", "replace").strip() or None
    except OSError:
        return None
