"""What the guest is told about a container, as pure functions of what it is and of the machine it runs on."""

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from woodlot.container.shape import IMAGE_SERIAL, UPPER_SERIAL
from woodlot.container.spec import ContainerSpec, ExecSpec, ProcessSpec

if TYPE_CHECKING:
    from woodlot._pb.agent.v1 import agent_pb2

# OCI runtime-spec defaults as Docker sets them.
MASKED_PATHS = (
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
)
READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
_ENTROPY_BYTES = 64


def configure_request(
    interfaces: "Sequence[agent_pb2.NetworkInterface]",
) -> "agent_pb2.ConfigureRequest":
    """The time, fresh randomness and the network cards."""
    from woodlot._pb.agent.v1 import agent_pb2

    return agent_pb2.ConfigureRequest(
        time_unix_nanos=time.time_ns(),
        entropy=os.urandom(_ENTROPY_BYTES),
        interfaces=interfaces,
    )


def create_request(
    spec: ContainerSpec,
    *,
    mounts: "Sequence[agent_pb2.Mount]",
    etc_files: Mapping[str, bytes],
) -> "agent_pb2.CreateContainerRequest":
    """The container around its processes.

    Args:
        spec: The container.
        mounts: All of them, in the order to mount them.
        etc_files: Contents of files in ``/etc``, by name.
    """
    from woodlot._pb.agent.v1 import agent_pb2

    return agent_pb2.CreateContainerRequest(
        id=spec.id,
        hostname=spec.hostname,
        rootfs=agent_pb2.RootFilesystem(
            image_serial=IMAGE_SERIAL, upper_serial=UPPER_SERIAL, read_only=spec.read_only
        ),
        mounts=mounts,
        resources=resources(spec),
        masked_paths=MASKED_PATHS,
        readonly_paths=READONLY_PATHS,
        etc_files=etc_files,
        shm_bytes=spec.shm_bytes,
    )


def resources(spec: ContainerSpec) -> "agent_pb2.Resources":
    """What the container may use."""
    from woodlot._pb.agent.v1 import agent_pb2

    return agent_pb2.Resources(cpu_millis=round(spec.cpus * 1000), memory_bytes=spec.memory_bytes)


def process_request(process: ProcessSpec, rows: int = 0, columns: int = 0) -> "agent_pb2.Process":
    """A process, with the size of its terminal; zeros if it has none."""
    from woodlot._pb.agent.v1 import agent_pb2

    return agent_pb2.Process(
        args=process.args,
        env=process.env,
        cwd=process.cwd,
        user=process.user,
        tty=process.tty,
        window=agent_pb2.WindowSize(rows=rows, columns=columns),
        stdin=process.stdin,
        capabilities=process.capabilities,
        rlimits=[
            agent_pb2.Rlimit(type=limit.type, soft=limit.soft, hard=limit.hard)
            for limit in process.rlimits
        ],
        init=process.init,
    )


def join_process(own: ProcessSpec, spec: ExecSpec) -> ProcessSpec:
    """A process that joins the container's own, with its environment, place and user unless others are given."""
    return replace(
        own,
        args=spec.args,
        env=_overlay_env(own.env, ("TERM=xterm",) if spec.tty else (), spec.env),
        cwd=spec.cwd or own.cwd,
        user=spec.user or own.user,
        tty=spec.tty,
        stdin=spec.stdin,
        init=False,
    )


def _overlay_env(*layers: Iterable[str]) -> tuple[str, ...]:
    """``NAME=value`` of all layers, each name once, the last one wins; one without a value takes the variable away."""
    variables = {text.partition("=")[0]: text for layer in layers for text in layer}
    return tuple(text for text in variables.values() if "=" in text)
