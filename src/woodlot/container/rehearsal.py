"""A container that is made only so that the next one is made quickly.

Emulated, a guest runs what it has run before at a multiple of the speed: the translated code is there. It is no part of what a
template saves, but a machine that waits can have it. So everything is done once that a start does, by the same calls: identity,
network card, root filesystem, namespaces, a process, its end. Then the guest is reset, and the files are thrown away.

No container sees anything of it but numbers that have gone on: of processes, mounts, packets. What the guest's kernel draws at
random meanwhile is drawn after entropy of this machine's own, and there is more when a container comes.
"""

import hashlib
import tarfile
from pathlib import Path

from woodlot import settings
from woodlot._pb.agent.v1 import agent_pb2
from woodlot.container import requests
from woodlot.container.capabilities import build_set
from woodlot.container.shape import IMAGE_SERIAL, UPPER_SERIAL
from woodlot.guest.client import Agent
from woodlot.kernel.initramfs import find_agent_binaries
from woodlot.progress import NoProgress
from woodlot.rootfs.build import BuildLimits, LayerSource, build_rootfs
from woodlot.rootfs.upper import clone_disk, ensure_upper_template
from woodlot.template.shape import device_mac
from woodlot.units import MIB
from woodlot.vmm.base import Disk, VmSpec
from woodlot.vmm.qemu import drives
from woodlot.vmm.qemu.machine import QemuMachine

_TIMEOUT_S = 30.0
_PROGRAM = "bin/true"
_LIMITS = BuildLimits(max_bytes=64 * MIB, max_ratio=1000, max_entries=100)
_MEDIA_TYPE = "application/vnd.oci.image.layer.v1.tar"
_MEMORY_BYTES = 64 * MIB


async def rehearse(
    vm: QemuMachine, agent: Agent, spec: VmSpec, disks: Path, directory: Path
) -> None:
    """Have the guest be a container once.

    Args:
        vm: The machine.
        agent: Its agent.
        spec: What the machine was started as.
        disks: Where preformatted disks are.
        directory: For files on the way.

    Raises:
        WoodlotError: Something failed; the guest is of no use then.
    """
    image, upper = directory / "rehearsal.erofs", directory / "rehearsal.ext4"
    await _build_image(image, spec.arch.value, directory)
    clone_disk(ensure_upper_template(disks, settings.get_int("container.disk")), upper)
    stage = (
        Disk(path=image, serial=IMAGE_SERIAL, read_only=True),
        Disk(path=upper, serial=UPPER_SERIAL),
    )
    try:
        for index, disk in enumerate(stage):
            await drives.insert(vm.execute, index, disk)
        await agent.configure(
            requests.configure_request([_card(index) for index in range(len(spec.networks))]),
            timeout_s=_TIMEOUT_S,
        )
        await agent.create_container(_container(), timeout_s=_TIMEOUT_S)
        async with agent.run(_process(), first=True) as process:
            async for _ in process.events():
                pass
        await agent.reset(timeout_s=_TIMEOUT_S)
        for index, disk in enumerate(stage):
            await drives.eject(vm.execute, index, disk)
    finally:
        image.unlink(missing_ok=True)
        upper.unlink(missing_ok=True)


async def _build_image(image: Path, arch: str, directory: Path) -> None:
    """An image with a program that ends at once: ours, which has nothing to do there."""
    blob = directory / "rehearsal.tar"
    program = find_agent_binaries(arch).launch
    with tarfile.open(blob, "w") as tar:
        for name in ("bin", "dev", "etc", "proc", "sys", "tmp"):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        entry = tarfile.TarInfo(_PROGRAM)
        entry.mode, entry.size = 0o755, program.stat().st_size
        with program.open("rb") as file:
            tar.addfile(entry, file)
    with blob.open("rb") as file:
        digest = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    layer = LayerSource(path=blob, media_type=_MEDIA_TYPE, digest=digest, diff_id=digest)
    try:
        await build_rootfs([layer], image, limits=_LIMITS, progress=NoProgress())
    finally:
        blob.unlink()


def _card(index: int) -> agent_pb2.NetworkInterface:
    # Of addresses that belong to nobody (RFC 5737, RFC 3849).
    return agent_pb2.NetworkInterface(
        mac=device_mac(index),
        device_mac=device_mac(index),
        name=f"eth{index}",
        addresses=[f"192.0.2.{index + 1}/24", f"2001:db8::{index + 1}/64"],
        mtu=1500,
        routes=[
            agent_pb2.Route(destination="0.0.0.0/0", gateway="192.0.2.254"),
            agent_pb2.Route(destination="::/0", gateway="2001:db8::ff"),
        ]
        if index == 0
        else [],
    )


def _container() -> agent_pb2.CreateContainerRequest:
    return agent_pb2.CreateContainerRequest(
        id="rehearsal",
        hostname="rehearsal",
        rootfs=agent_pb2.RootFilesystem(image_serial=IMAGE_SERIAL, upper_serial=UPPER_SERIAL),
        resources=agent_pb2.Resources(cpu_millis=1000, memory_bytes=_MEMORY_BYTES),
        masked_paths=requests.MASKED_PATHS,
        readonly_paths=requests.READONLY_PATHS,
        etc_files=dict.fromkeys(("hostname", "hosts", "resolv.conf"), b"\n"),
    )


def _process() -> agent_pb2.Process:
    return agent_pb2.Process(
        args=["true"],
        env=["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
        cwd="/",
        capabilities=build_set((), ()),
    )
