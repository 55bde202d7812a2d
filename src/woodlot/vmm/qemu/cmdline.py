"""QEMU's arguments, from values.

Small pure functions, joined by `build_argv`. Nothing here asks the host anything. docs/design/vmm.md tells why each
option is what it is and what was measured.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import assert_never

from woodlot.errors import ConfigError
from woodlot.units import MIB
from woodlot.values import dataclass
from woodlot.vmm.base import (
    CONTROL_PORT_NAME,
    Accelerator,
    Arch,
    Disk,
    NetworkDevice,
    SharedFiles,
    StreamNetwork,
    TapNetwork,
    UnconnectedNetwork,
    UserNetwork,
    VmSpec,
)

MAX_SERIAL_BYTES = 20  # VIRTIO_BLK_ID_BYTES, linux/virtio_blk.h
MAX_TAG_BYTES = 36  # virtio_fs_config.tag, linux/virtio_fs.h
# Of a disk that holds the place of any other: a guest keeps the size it saw first, and filesystems know their own.
_PLACE_BYTES = 16 << 40

# Only what QEMU does not need once it runs: it neither forks, nor execs, nor gains rights.
_SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"

_COMMON_KERNEL_ARGS = (
    # Only errors: each byte on a serial port costs an exit. A panic is still shown, whole.
    "quiet",
    # A panic ends the VM at once: -no-reboot turns the reset into an end.
    "panic=-1",
    "random.trust_cpu=on",
    # Ours, not the guest's: names such as eth0 are expected.
    "net.ifnames=0",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Channels:
    """Descriptors and numbers that exist only once the host has given them."""

    qmp_fd: int
    """A connected socket that the QEMU process inherits."""
    control_fd: int | None
    """A listening socket that the QEMU process inherits; None when ``vsock_cid`` carries control."""
    vsock_cid: int | None = None
    vhost_net: bool = False
    """The host's kernel moves the frames of taps itself, without QEMU."""
    memory: Path | None = None
    """A file, as large as the guest's memory, that holds a saved machine's; QEMU then waits for the rest of it."""
    memory_is_own: bool = False
    """Nobody else uses that file."""


def build_argv(
    binary: Path, spec: VmSpec, channels: Channels, *, without_features: Sequence[str] = ()
) -> list[str]:
    """The whole command line.

    Args:
        binary: QEMU.
        spec: The machine.
        channels: What the host has given for it.
        without_features: Processor features the host offers and cannot keep; see `processor_args`.

    Raises:
        ConfigError: The spec holds something that QEMU cannot do.
    """
    return [
        os.fspath(binary),
        *base_args(spec.name),
        *sandbox_args(sys.platform),
        *machine_args(spec.arch, spec.accelerator),
        *accelerator_args(spec.accelerator),
        *processor_args(spec.arch, spec.accelerator, spec.vcpus, without_features=without_features),
        *memory_args(
            spec.memory_bytes,
            path=channels.memory or spec.memory_file,
            shared=bool(spec.shares or spec.memory_file or channels.memory_is_own),
        ),
        *kernel_args(spec),
        *monitor_args(channels.qmp_fd),
        *console_args(spec.console_log),
        *control_args(channels),
        *[arg for index, disk in enumerate(spec.disks) for arg in disk_args(index, disk)],
        *[
            arg
            for index, share in enumerate(spec.shares)
            for arg in share_args(index, share, plugged_later=channels.memory is not None)
        ],
        *[
            arg
            for index, network in enumerate(spec.networks)
            for arg in network_args(index, network, vhost=channels.vhost_net)
        ],
        *entropy_args(),
        *balloon_args(),
        *(incoming_args() if channels.memory is not None else []),
    ]


def escape(value: str | os.PathLike[str]) -> str:
    """A value for use inside an option with commas: QEMU reads ``,,`` as one comma.

    Raises:
        ConfigError: It holds a NUL or a newline.
    """
    text = os.fspath(value)
    if "\0" in text or "\n" in text:
        raise ConfigError(f"a name with a control character cannot be given to QEMU: {text!r}")
    return text.replace(",", ",,")


def base_args(name: str) -> list[str]:
    """What every machine has: no devices but ours, no window, an end instead of a reboot."""
    return [
        "-name", f"guest={escape(name)},debug-threads=on",
        "-no-user-config",
        "-nodefaults",
        "-display", "none",
        "-no-reboot",
    ]  # fmt: skip


def sandbox_args(platform: str) -> list[str]:
    """System calls QEMU gives up; seccomp is Linux's."""
    return ["-sandbox", _SANDBOX] if platform == "linux" else []


def machine_args(arch: Arch, accelerator: Accelerator) -> list[str]:
    """The board, without the parts that only cost start time."""
    common = "memory-backend=ram,dump-guest-core=off,mem-merge=off"
    match arch:
        case Arch.AMD64:
            # SMM and the HPET slow the firmware and the kernel's clock calibration; vmport is VMware's.
            return ["-machine", f"pc,usb=off,vmport=off,hpet=off,smm=off,{common}"]
        case Arch.ARM64:
            gic = "" if accelerator is Accelerator.HVF else ",gic-version=max"
            return ["-machine", f"virt{gic},{common}"]
        case _:
            assert_never(arch)


def accelerator_args(accelerator: Accelerator) -> list[str]:
    """What runs the guest's instructions."""
    match accelerator:
        case Accelerator.KVM:
            return ["-accel", "kvm"]
        case Accelerator.HVF:
            return ["-accel", "hvf"]
        case Accelerator.TCG:
            # One host thread runs all vCPUs. With a thread each, a vCPU now and then goes on with the old translation
            # of code that another one has patched, for ever: one boot in 200 hung so (docs/design/vmm.md).
            return ["-accel", "tcg,thread=single"]
        case _:
            assert_never(accelerator)


def processor_args(
    arch: Arch, accelerator: Accelerator, vcpus: int, *, without_features: Sequence[str] = ()
) -> list[str]:
    """CPU model and count.

    Features in ``without_features`` are taken from the host's own model; an emulated one has only what works.
    """
    if accelerator is not Accelerator.TCG:
        model = ",".join(["host", *(f"{feature}=off" for feature in without_features)])
    elif arch is Arch.ARM64:
        # Pointer authentication with the architected algorithm is half of all emulated time.
        model = "max,pauth-impdef=on"
    else:
        model = "max"
    return ["-cpu", model, "-smp", str(vcpus)]


def memory_args(memory_bytes: int, *, path: Path | None = None, shared: bool = False) -> list[str]:
    """RAM: anonymous memory of the QEMU process, given back as the guest reports pages free.

    A named backend, so that a file can take its place: that of a machine to be saved (shared), or a saved one
    (private: what is written stays in the process). File servers read and write a guest's memory directly, so for
    them, and only then, it is one that other processes can map.

    Args:
        memory_bytes: Size.
        path: A file of that size.
        shared: What is written reaches the file, or whoever maps the memory.
    """
    size_mib = memory_bytes // MIB
    if path is not None:
        backend = f"memory-backend-file,mem-path={escape(path)},share={'on' if shared else 'off'}"
    else:
        backend = "memory-backend-memfd,share=on" if shared else "memory-backend-ram"
    kind, _, options = backend.partition(",")
    more = f",{options}" if options else ""
    return ["-m", f"{size_mib}M", "-object", f"{kind},id=ram,size={size_mib}M{more}"]


def kernel_args(spec: VmSpec) -> list[str]:
    """Kernel, initial RAM filesystem and kernel command line."""
    for argument in spec.kernel_cmdline:
        if not argument or any(character in argument for character in "\0\n\r"):
            raise ConfigError(f"{argument!r} cannot be a kernel argument")
    return [
        "-kernel", os.fspath(spec.kernel),
        "-initrd", os.fspath(spec.initramfs),
        "-append", " ".join([
            *kernel_cmdline(spec.arch, spec.accelerator, spec.vcpus, takes_devices=spec.memory_file is not None),
            *spec.kernel_cmdline,
        ]),
    ]  # fmt: skip


def kernel_cmdline(
    arch: Arch, accelerator: Accelerator, vcpus: int, *, takes_devices: bool = False
) -> tuple[str, ...]:
    """Our own kernel arguments; those of a spec follow, and the last of a kind wins.

    Args:
        arch: Of the guest.
        accelerator: What runs it.
        vcpus: Its processors.
        takes_devices: Devices may be plugged in while it runs, whose interrupts no firmware has routed.
    """
    match arch:
        case Arch.AMD64:
            return (
                "console=ttyS0",
                *_COMMON_KERNEL_ARGS,
                # Through the keyboard controller a reboot waits; a triple fault is at once.
                "reboot=t",
                # There is one PCI bus, and no keyboard or mouse to look for.
                "pci=lastbus=0",
                "i8042.noaux", "i8042.nokbd", "i8042.nopnp", "i8042.dumbkbd",
                "8250.nr_uarts=1",
                "no_timer_check",
                *([] if takes_devices else _interrupt_args(accelerator, vcpus)),
            )  # fmt: skip
        case Arch.ARM64:
            return ("console=ttyAMA0", *_COMMON_KERNEL_ARGS)
        case _:
            assert_never(arch)


def _interrupt_args(accelerator: Accelerator, vcpus: int) -> list[str]:
    """Wire interrupts without ACPI where that is dear and can be done without.

    For every device ACPI interprets a loop over 128 entries, 0.1 s and more when emulated. Our devices signal by
    message and need no wire. A kernel without ACPI's routing finds no second processor unless it reads the MP table,
    which our own kernel does and Debian's does not, so this is for one vCPU; our own kernel asks for it itself.
    """
    return ["acpi=noirq"] if accelerator is Accelerator.TCG and vcpus == 1 else []


def monitor_args(qmp_fd: int) -> list[str]:
    """QMP on an inherited socket."""
    return [
        "-chardev", f"socket,id=qmp,fd={qmp_fd}",
        "-mon", "chardev=qmp,mode=control",
    ]  # fmt: skip


def console_args(console_log: Path) -> list[str]:
    """The first serial port, into a file; appended to, so that the file may be cut at any time."""
    return [
        "-chardev", f"file,id=console,path={escape(console_log)},append=on",
        "-serial", "chardev:console",
    ]  # fmt: skip


def control_args(channels: Channels) -> list[str]:
    """The agent's stream."""
    args: list[str] = []
    if channels.vsock_cid is not None:
        args += ["-device", f"vhost-vsock-pci,guest-cid={channels.vsock_cid}"]
    if channels.control_fd is not None:
        args += [
            "-device", "virtio-serial-pci,max_ports=2",
            "-chardev", f"socket,id=control,fd={channels.control_fd},server=on,wait=off",
            "-device", f"virtserialport,chardev=control,id=control-port,name={CONTROL_PORT_NAME}",
        ]  # fmt: skip
    return args


def disk_args(index: int, disk: Disk) -> list[str]:
    """A raw file as a virtio disk.

    Writes go through the host's page cache and reach the disk when the guest flushes. What the guest discards, or
    writes as zeros, becomes a hole. A host without space is an I/O error in the guest, not a VM that stops silently.
    QEMU's own locks let any number of VMs read a file and one write it.

    Raises:
        ConfigError: The serial is too long.
    """
    if len(disk.serial.encode()) > MAX_SERIAL_BYTES:
        raise ConfigError(
            f"a disk's serial has at most {MAX_SERIAL_BYTES} bytes, got {disk.serial!r}"
        )
    node = f"disk{index}"
    options = "read-only=on" if disk.read_only else "discard=unmap,detect-zeroes=unmap"
    errors = "" if disk.read_only else ",werror=report,rerror=report"
    place: list[str] = []
    if disk.path is None:
        # The node above it stays when a file takes the place; see `drives`.
        below = "read-only=on" if disk.read_only else "discard=unmap"
        size = f"size={_PLACE_BYTES},read-zeroes=on"
        place = ["-blockdev", f"driver=null-co,node-name=place{index},{size},{below}"]
        source = f"driver=raw,node-name={node},file=place{index}"
    else:
        source = f"driver=file,node-name={node},filename={escape(disk.path)}"
    return [
        *place,
        "-blockdev", f"{source},{options}",
        "-device", f"virtio-blk-pci,drive={node},serial={escape(disk.serial)}{errors}",
    ]  # fmt: skip


def share_args(index: int, share: SharedFiles, *, plugged_later: bool = False) -> list[str]:
    """A virtio-fs device, whose server is at the other end of an inherited socket.

    Args:
        index: Position among the shares.
        share: What is shared.
        plugged_later: Only the connection: the state of such a device cannot be saved, so it is plugged in (with
            `share_device`) once a saved machine's is there.

    Raises:
        ConfigError: The tag is too long.
    """
    connection = ["-chardev", f"socket,id=fs{index},fd={share.socket_fd}"]
    device = share_device(index, share)
    options = ",".join(
        f"{name}={escape(str(value))}" for name, value in device.items() if name != "driver"
    )
    return [*connection, *([] if plugged_later else ["-device", f"{device['driver']},{options}"])]


def share_device(index: int, share: SharedFiles) -> dict[str, str | int]:
    """The device of a share, as the command ``device_add`` takes it.

    Raises:
        ConfigError: The tag is too long.
    """
    if len(share.tag.encode()) > MAX_TAG_BYTES:
        raise ConfigError(f"a share's tag has at most {MAX_TAG_BYTES} bytes, got {share.tag!r}")
    return {
        "driver": "vhost-user-fs-pci",
        "chardev": f"fs{index}",
        "tag": share.tag,
        "queue-size": 1024,
    }


def network_args(index: int, network: NetworkDevice, *, vhost: bool = False) -> list[str]:
    """A network card, and what is behind it: QEMU's own TCP/IP stack, a socket of a switch, or a tap."""
    netdev = f"net{index}"
    match network:
        case UserNetwork():
            backend = f"user,id={netdev},ipv4=on,ipv6=off,net=10.0.2.0/24"
        case StreamNetwork():
            backend = f"stream,id={netdev},server=off,addr.type=fd,addr.str={network.socket_fd}"
        case TapNetwork():
            backend = f"tap,id={netdev},fd={network.tap_fd}" + (",vhost=on" if vhost else "")
        case UnconnectedNetwork():
            backend = f"hubport,id={netdev},hubid={index}"
        case _:
            assert_never(network)
    return [
        "-netdev", backend,
        # Nothing boots from it, so its boot ROM (a package of its own) is not needed.
        "-device", f"virtio-net-pci,netdev={netdev},mac={escape(network.mac)},romfile=",
    ]  # fmt: skip


def entropy_args() -> list[str]:
    """Random numbers from the host."""
    return ["-device", "virtio-rng-pci"]


def balloon_args() -> list[str]:
    """Memory the guest reports as free goes back to the host."""
    return ["-device", "virtio-balloon-pci,free-page-reporting=on"]


def incoming_args() -> list[str]:
    """Wait for a saved machine's state before anything runs."""
    return ["-incoming", "defer"]


def describe(argv: Sequence[str]) -> str:
    """A command line as a person would type it."""
    import shlex

    return shlex.join(argv)
