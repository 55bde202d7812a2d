"""What a container's machine has to be like before there is one; of machines that are alike, one can stand in for another."""

import math
from typing import Self

from woodlot import settings
from woodlot.container.boot import MachinePlan
from woodlot.container.spec import ContainerSpec
from woodlot.errors import ConfigError
from woodlot.paths import Paths
from woodlot.template.shape import device_mac
from woodlot.units import MIB
from woodlot.values import dataclass
from woodlot.vmm.base import Arch, Disk, UnconnectedNetwork, VmSpec

# Room for the guest's kernel and agent beside what the user's limit allows the container.
GUEST_OVERHEAD_BYTES = 128 * MIB
MEMORY_STEP_BYTES = 128 * MIB
IMAGE_SERIAL = "image"
UPPER_SERIAL = "upper"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What tells a container's machine from others that are started with the same plan."""

    vcpus: int
    memory_bytes: int
    """Of the guest, all in all."""
    networks: int

    @classmethod
    def of(cls, *, cpus: float, memory_bytes: int, networks: int) -> Self:
        """That of containers without volumes that have these limits, and are attached to so many networks."""
        return cls(
            vcpus=count_vcpus(cpus), memory_bytes=guest_memory(memory_bytes), networks=networks
        )


def bare_spec(paths: Paths, plan: MachinePlan, shape: Shape) -> VmSpec:
    """A machine of that shape that is no container's."""
    return VmSpec(
        name="nobody",
        arch=plan.arch,
        accelerator=plan.accelerator,
        vcpus=shape.vcpus,
        memory_bytes=shape.memory_bytes,
        kernel=plan.kernel,
        initramfs=plan.initramfs,
        kernel_cmdline=plan.kernel_cmdline,
        disks=(
            Disk(path=None, serial=IMAGE_SERIAL, read_only=True),
            Disk(path=None, serial=UPPER_SERIAL),
        ),
        networks=tuple(
            UnconnectedNetwork(mac=device_mac(index)) for index in range(shape.networks)
        ),
        # Where these are does not shape it.
        control_socket=paths.runtime,
        console_log=paths.templates,
        vmm_log=paths.templates,
    )


def count_vcpus(cpus: float) -> int:
    """Processors of a guest whose container may use that many."""
    return max(1, math.ceil(cpus))


def guest_memory(limit_bytes: int) -> int:
    """In steps, so that many limits have one template; the limit itself is kept inside the guest."""
    return math.ceil((limit_bytes + GUEST_OVERHEAD_BYTES) / MEMORY_STEP_BYTES) * MEMORY_STEP_BYTES


def may_restore(plan: MachinePlan, spec: ContainerSpec) -> bool:
    """Whether the user leaves us the choice, and the machine can take up a saved state.

    Raises:
        ConfigError: The setting has no such value.
    """
    how = settings.get_str("vm.boot")
    if how not in {"template", "cold"}:
        raise ConfigError(f"the setting vm.boot cannot be {how!r}", hint="use template or cold")
    # Arguments for the kernel are there to see or change how it boots. The board of arm64 takes no device later.
    return (
        how == "template" and not spec.kernel_args and not (plan.arch is Arch.ARM64 and spec.mounts)
    )
