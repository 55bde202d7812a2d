"""A kernel, its initial RAM filesystem with the real agent, and a QEMU to boot them."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import SHARED
from tests.images.cache import BUILD
from tests.programs import require_programs, skip_or_fail
from woodlot.errors import WoodlotError
from woodlot.kernel import debian, initramfs
from woodlot.kernel.catalog import Kernel, host_arch
from woodlot.paths import Paths
from woodlot.units import MIB
from woodlot.vmm.base import Accelerator, Arch, VmSpec


@dataclass(frozen=True)
class Guest:
    """What can be booted on this host."""

    arch: Arch
    kernel: Kernel
    initramfs: Path


@pytest.fixture
def paths() -> Iterator[Paths]:
    """An installation of the test's own that shares the kernels, which are dear to fetch."""
    # Not pytest's own directory: paths of sockets must stay short.
    with tempfile.TemporaryDirectory(prefix="wl-") as directory:
        base = Path(directory)
        paths = Paths(data=base / "data", runtime=base / "run")
        paths.data.mkdir()
        paths.runtime.mkdir()
        for name in SHARED:
            shared = BUILD / "test-cache" / name
            shared.mkdir(parents=True, exist_ok=True)
            (paths.data / name).symlink_to(shared)
        yield paths


@pytest.fixture
def guest(paths: Paths) -> Guest:
    """The host's own kind of guest, with Debian's kernel."""
    arch = Arch(host_arch())
    require_programs({Arch.AMD64: "qemu-system-x86_64", Arch.ARM64: "qemu-system-aarch64"}[arch])
    try:
        kernel = debian.ensure_default(paths, arch.value)
        binaries = initramfs.find_agent_binaries(arch.value)
    except WoodlotError as error:
        skip_or_fail(f"{error.message} {error.details or ''}")
    return Guest(arch, kernel, initramfs.ensure_initramfs(paths, kernel, binaries))


@pytest.fixture
def spec(paths: Paths, guest: Guest) -> VmSpec:
    """An emulated machine, which every host can run."""
    return VmSpec(
        name="test, odd",
        arch=guest.arch,
        accelerator=Accelerator.TCG,
        vcpus=1,
        memory_bytes=256 * MIB,
        kernel=guest.kernel.image,
        initramfs=guest.initramfs,
        kernel_cmdline=guest.kernel.cmdline,
        control_socket=paths.runtime / "a.sock",
        console_log=paths.data / "console, odd.log",
        vmm_log=paths.data / "vmm.log",
    )
