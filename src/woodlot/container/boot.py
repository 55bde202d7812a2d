"""What every start needs before there is a VM: a kernel, its initial RAM filesystem, and an accelerator."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from woodlot.kernel import catalog, initramfs
from woodlot.kernel.catalog import Kernel
from woodlot.paths import Paths
from woodlot.progress import Progress
from woodlot.values import dataclass
from woodlot.vmm.accelerator import Choice
from woodlot.vmm.base import Accelerator, Arch
from woodlot.vmm.qemu.probe import choose_accelerator


@dataclass(frozen=True, slots=True, kw_only=True)
class MachinePlan:
    """What a VM of an architecture is started with."""

    arch: Arch
    accelerator: Accelerator
    kernel: Path
    initramfs: Path
    guest: str
    """Tells this kernel and agent from others."""
    kernel_cmdline: tuple[str, ...] = ()
    """What this kernel wants; a container's own arguments follow."""

    def to_json(self) -> dict[str, Any]:
        """The value as JSON types; `from_json` reads it back."""
        return {
            "arch": self.arch.value,
            "accelerator": self.accelerator.value,
            "kernel": str(self.kernel),
            "initramfs": str(self.initramfs),
            "guest": self.guest,
            "kernel_cmdline": list(self.kernel_cmdline),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The value that `to_json` wrote."""
        return cls(
            arch=Arch(data["arch"]),
            accelerator=Accelerator(data["accelerator"]),
            kernel=Path(data["kernel"]),
            initramfs=Path(data["initramfs"]),
            guest=data["guest"],
            kernel_cmdline=tuple(data["kernel_cmdline"]),
        )


async def plan_machine(
    paths: Paths,
    *,
    arch: Arch | None = None,
    kernel_file: Path | None = None,
    progress: Progress | None = None,
) -> MachinePlan:
    """Everything that a container's VM needs; fetches the kernel and probes the accelerator the first time.

    Args:
        paths: The installation.
        arch: The guest's architecture; None is the host's.
        kernel_file: A kernel to use in place of the default one.
        progress: Told what takes long.

    Raises:
        WoodlotError: There is no kernel, no agent, or no QEMU.
    """
    kernel, ramdisk = await guest_kernel(paths, progress, arch=arch, kernel_file=kernel_file)
    guest_arch = Arch(kernel.arch)
    choice = await _choose(paths, guest_arch, kernel, ramdisk)
    return MachinePlan(
        arch=guest_arch,
        accelerator=choice.accelerator,
        kernel=kernel.image,
        initramfs=ramdisk,
        guest=_guest_id(kernel, ramdisk),
        kernel_cmdline=kernel.cmdline,
    )


async def guest_kernel(
    paths: Paths,
    progress: Progress | None = None,
    *,
    arch: Arch | None = None,
    kernel_file: Path | None = None,
) -> tuple[Kernel, Path]:
    """The kernel, and the initial RAM filesystem made for it."""
    name = arch.value if arch else catalog.host_arch()
    if kernel_file is not None:
        from woodlot.kernel import custom

        kernel = await asyncio.to_thread(custom.from_file, kernel_file)
    else:
        # What is there needs no thread; what has to be fetched takes its time.
        found = catalog.default_kernel(paths, name)
        if found is None:
            from woodlot.kernel import debian

            found = await asyncio.to_thread(debian.ensure_default, paths, name, progress)
        kernel = found
    binaries = initramfs.find_agent_binaries(kernel.arch)
    return kernel, initramfs.ensure_initramfs(paths, kernel, binaries)


async def accelerator(paths: Paths, progress: Progress | None = None) -> Choice:
    """The accelerator of guests that have the host's architecture, and why it is that one."""
    kernel, ramdisk = await guest_kernel(paths, progress)
    return await _choose(paths, Arch(kernel.arch), kernel, ramdisk)


async def _choose(paths: Paths, arch: Arch, kernel: Kernel, ramdisk: Path) -> Choice:
    return await choose_accelerator(
        paths,
        arch,
        kernel=kernel.image,
        initramfs=ramdisk,
        # The agent counts, too: one that does not start looks like an accelerator that does not work.
        guest_id=_guest_id(kernel, ramdisk),
        kernel_cmdline=kernel.cmdline,
    )


def _guest_id(kernel: Kernel, ramdisk: Path) -> str:
    return f"{kernel.sha256} {ramdisk.stem}"
