"""The seam between woodlot and a virtual machine monitor."""

from contextlib import AbstractAsyncContextManager
from enum import StrEnum, auto
from pathlib import Path
from typing import Protocol, TypeAlias

from woodlot.values import dataclass

CONTROL_PORT_NAME = "woodlot.agent"
CONTROL_VSOCK_PORT = 1024


class Accelerator(StrEnum):
    """What runs the guest's instructions."""

    KVM = auto()
    HVF = auto()
    TCG = auto()


class Arch(StrEnum):
    """Processor architecture, named as in OCI platforms."""

    AMD64 = auto()
    ARM64 = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """A virtio-blk disk from a raw file."""

    path: Path | None
    """None holds the disk's place: in a machine that will be saved, or that gets its files later."""
    serial: str
    """At most 20 bytes; how the guest finds it."""
    read_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedFiles:
    """Files that a server of its own gives the guest over virtio-fs."""

    tag: str
    """At most 36 bytes; how the guest finds it."""
    socket_fd: int
    """Connected to the server, vhost-user; the monitor inherits it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UserNetwork:
    """A virtio-net device whose packets the VMM itself turns into the host user's own connections."""

    mac: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamNetwork:
    """A virtio-net device whose frames go over a Unix stream socket to a switch, each led by its length."""

    mac: str
    socket_fd: int
    """Connected; the monitor inherits it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TapNetwork:
    """A virtio-net device whose frames the host's kernel carries."""

    mac: str
    tap_fd: int
    """The monitor inherits it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnconnectedNetwork:
    """A virtio-net device with nothing behind it: it holds a place in a machine that will be saved."""

    mac: str


NetworkDevice: TypeAlias = UserNetwork | StreamNetwork | TapNetwork | UnconnectedNetwork


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedMachine:
    """A machine that stood still while its agent waited: others of the same shape start where it stood.

    Of the same shape is one whose `VmSpec` differs in names, paths, addresses and shares only.
    """

    memory: Path
    """The guest's memory; holes are zeros."""
    state: Path
    """Processors and devices, in the monitor's own format."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VmSpec:
    """One virtual machine, whole: nothing else shapes it."""

    name: str
    arch: Arch
    accelerator: Accelerator
    vcpus: int
    memory_bytes: int
    kernel: Path
    initramfs: Path
    kernel_cmdline: tuple[str, ...] = ()
    """Added after the monitor's own arguments."""
    disks: tuple[Disk, ...] = ()
    shares: tuple[SharedFiles, ...] = ()
    """With any, the guest's memory is shared with their servers."""
    networks: tuple[NetworkDevice, ...] = ()
    """In the order in which the guest finds the devices."""
    memory_file: Path | None = None
    """Keep the guest's memory in this file, made anew, so that the machine can be saved; None keeps it nowhere."""
    control_socket: Path
    """Unix socket that carries the agent's stream where the host has no vsock."""
    console_log: Path
    vmm_log: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class VmExit:
    """How a VM ended."""

    reason: str
    """One line: ``guest shut down``, ``guest panicked: …``, ``ended by signal SIGKILL``."""
    orderly: bool


class VirtualMachine(Protocol):
    """A running VM."""

    @property
    def pid(self) -> int:
        """Process id of the monitor."""
        ...

    @property
    def control_target(self) -> str:
        """Where the agent is reached, as a gRPC target: ``unix:/…/a.sock`` or ``vsock:CID:1024``."""
        ...

    @property
    def disk_full(self) -> bool:
        """Whether a write of the guest's has failed because the host's disk was full."""
        ...

    async def wait(self) -> VmExit:
        """Return once the VM has ended, for whatever reason; may be called any number of times."""
        ...

    def kill(self) -> None:
        """End it now, as pulling the plug does."""
        ...


class Vmm(Protocol):
    """A virtual machine monitor."""

    name: str

    def version(self) -> str:
        """Version for people."""
        ...

    def accelerators(self) -> tuple[Accelerator, ...]:
        """What this host may offer, best first; TCG is always last. Not proof that it works."""
        ...

    def start(
        self, spec: VmSpec, saved_machine: SavedMachine | None = None
    ) -> AbstractAsyncContextManager[VirtualMachine]:
        """Run a VM for the life of the block; entered when its process runs, before the guest is up.

        Args:
            spec: The machine.
            saved_machine: Go on where this one stood, in place of booting. Without shares, what is only read stays one
                for all that started there.

        Raises:
            NotFoundError: The monitor's program is missing.
            VmmError: It could not start; details hold its last words.
        """
        ...
