"""Booting a guest only to see that it can be done."""

from collections.abc import Sequence
from pathlib import Path

from woodlot.paths import Paths
from woodlot.units import MIB
from woodlot.vmm import accelerator
from woodlot.vmm.accelerator import Choice, TryBoot
from woodlot.vmm.base import Accelerator, Arch, VmSpec
from woodlot.vmm.qemu import binary
from woodlot.vmm.qemu.machine import QemuVmm

_MEMORY_BYTES = 256 * MIB


async def choose_accelerator(
    paths: Paths,
    arch: Arch,
    *,
    kernel: Path,
    initramfs: Path,
    guest_id: str,
    kernel_cmdline: Sequence[str] = (),
) -> Choice:
    """The accelerator to run guests of ``arch`` with, found by booting this kernel and remembered.

    Args:
        paths: The answer is kept in ``accelerator.json`` there; for another architecture than the host's there is
            nothing to find out.
        arch: The guests' architecture.
        kernel: A kernel.
        initramfs: With the agent.
        guest_id: What tells this kernel and agent from others.
        kernel_cmdline: Arguments the kernel wants.

    Raises:
        NotFoundError: QEMU is not installed.
        UnsupportedError: The setting ``vm.accel`` asks for what cannot be had.
    """
    vmm = QemuVmm(arch)
    facts = accelerator.host_facts(binary.find_qemu(arch), guest_id)
    return await accelerator.choose(
        vmm.accelerators(),
        boots_kernel(vmm, arch, kernel=kernel, initramfs=initramfs, kernel_cmdline=kernel_cmdline),
        paths.data / "accelerator.json",
        facts,
    )


def boots_kernel(
    vmm: QemuVmm,
    arch: Arch,
    *,
    kernel: Path,
    initramfs: Path,
    kernel_cmdline: Sequence[str] = (),
) -> TryBoot:
    """A `TryBoot` that returns when the guest has opened the agent's port, which proves that kernel and agent run."""

    async def try_boot(candidate: Accelerator) -> None:
        import tempfile

        # Short paths: there is a socket in it.
        with tempfile.TemporaryDirectory(prefix="woodlot-probe-") as scratch:
            directory = Path(scratch)
            spec = VmSpec(
                name="probe",
                arch=arch,
                accelerator=candidate,
                vcpus=1,
                memory_bytes=_MEMORY_BYTES,
                kernel=kernel,
                initramfs=initramfs,
                kernel_cmdline=tuple(kernel_cmdline),
                control_socket=directory / "a.sock",
                console_log=directory / "console.log",
                vmm_log=directory / "vmm.log",
            )
            async with vmm.start(spec) as vm:
                try:
                    await vm.wait_agent()
                finally:
                    # At once: nothing in it is worth an orderly end.
                    vm.kill()

    return try_boot
