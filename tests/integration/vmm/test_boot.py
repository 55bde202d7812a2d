"""QEMU for real: it boots, it ends, and it says how."""

import asyncio
import dataclasses
import os
import shutil
import signal
import socket
import time
from pathlib import Path

import pytest

from tests.integration.vmm.conftest import Guest
from woodlot.errors import VmmError
from woodlot.kernel import debian, initramfs
from woodlot.kernel.initramfs import Entry
from woodlot.paths import Paths
from woodlot.vmm import accelerator
from woodlot.vmm.base import Accelerator, Arch, Disk, UserNetwork, VmSpec
from woodlot.vmm.qemu.machine import QemuVmm
from woodlot.vmm.qemu.probe import boots_kernel, choose_accelerator

pytestmark = pytest.mark.vm

BOOT_TIMEOUT_S = 120


async def test_the_agent_comes_up_and_the_plug_can_be_pulled(paths: Paths, spec: VmSpec) -> None:
    image, upper = paths.data / "image, 1.raw", paths.data / "upper.raw"
    for path in (image, upper):
        path.touch()
        os.truncate(path, 1 << 20)
    image.chmod(0o444)
    spec = dataclasses.replace(
        spec,
        disks=(
            Disk(path=image, serial="image", read_only=True),
            Disk(path=upper, serial="upper"),
        ),
        networks=(UserNetwork(mac="52:54:00:01:02:03"),),
    )
    async with QemuVmm(spec.arch).start(spec) as vm:
        async with asyncio.timeout(BOOT_TIMEOUT_S):
            await vm.wait_agent()
        assert vm.control_target == f"unix:{spec.control_socket}"
        await vm.pause()
        assert (await vm.execute("query-status"))["status"] == "paused"  # type: ignore[index]
        await vm.resume()
        os.kill(vm.pid, signal.SIGKILL)
        ended = await vm.wait()
    assert ended.reason == "ended by signal SIGKILL"
    assert not ended.orderly
    assert not spec.control_socket.exists()


async def test_two_vms_share_a_disk_for_reading_only(paths: Paths, spec: VmSpec) -> None:
    disk = paths.data / "disk.raw"
    disk.touch()
    os.truncate(disk, 1 << 20)

    def with_disk(name: str, *, read_only: bool) -> VmSpec:
        return dataclasses.replace(
            spec,
            disks=(Disk(path=disk, serial="disk", read_only=read_only),),
            control_socket=paths.runtime / f"{name}.sock",
            console_log=paths.data / f"{name}.log",
            vmm_log=paths.data / f"{name}.vmm.log",
        )

    vmm = QemuVmm(spec.arch)
    async with (
        vmm.start(with_disk("a", read_only=True)),
        vmm.start(with_disk("b", read_only=True)),
    ):
        pass
    async with vmm.start(with_disk("a", read_only=False)):
        with pytest.raises(VmmError) as caught:
            async with vmm.start(with_disk("b", read_only=False)):
                pytest.fail("both write")
    assert "another virtual machine" in (caught.value.hint or "")


async def test_a_panic_is_the_reason(paths: Paths, spec: VmSpec) -> None:
    empty = paths.data / "empty.cpio"
    with empty.open("wb") as stream:
        initramfs.write_cpio(stream, [Entry(name="dev", mode=0o40755)])
    broken = dataclasses.replace(spec, initramfs=empty)
    async with QemuVmm(spec.arch).start(broken) as vm, asyncio.timeout(BOOT_TIMEOUT_S):
        with pytest.raises(VmmError, match="guest panicked: VFS: Unable to mount root fs"):
            await vm.wait_agent()
        assert not (await vm.wait()).orderly


async def test_what_qemu_refuses_is_told(spec: VmSpec) -> None:
    missing = dataclasses.replace(spec, disks=(Disk(path=Path("/nonexistent/x"), serial="x"),))
    with pytest.raises(VmmError, match="No such file") as caught:
        async with QemuVmm(spec.arch).start(missing):
            pytest.fail("it did not run")
    assert "virtio-blk-pci,drive=disk0" in (caught.value.details or "")


async def test_a_guest_that_hangs_is_given_up_in_time(spec: VmSpec, guest: Guest) -> None:
    # Stops before the agent: what a vCPU that makes no progress looks like from here.
    boot = boots_kernel(
        QemuVmm(spec.arch),
        spec.arch,
        kernel=spec.kernel,
        initramfs=spec.initramfs,
        kernel_cmdline=("rdinit=/nothing", "panic=0"),
    )
    begun = time.monotonic()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(3):
            await boot(Accelerator.TCG)
    assert time.monotonic() - begun < 8


async def test_the_probe_boots_an_emulated_guest(spec: VmSpec, guest: Guest) -> None:
    boot = boots_kernel(
        QemuVmm(spec.arch),
        spec.arch,
        kernel=spec.kernel,
        initramfs=spec.initramfs,
        kernel_cmdline=spec.kernel_cmdline,
    )
    async with asyncio.timeout(BOOT_TIMEOUT_S):
        await boot(Accelerator.TCG)


async def test_the_hosts_accelerator_is_proven_once(
    paths: Paths, guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the answer is here, it comes in time, holds, and says why."""
    if accelerator.kvm_problem() is not None:
        pytest.skip("there is no usable /dev/kvm to be in doubt about")
    monkeypatch.delenv("WOODLOT_VM_ACCEL", raising=False)

    async def choose() -> accelerator.Choice:
        return await choose_accelerator(
            paths,
            guest.arch,
            kernel=guest.kernel.image,
            initramfs=guest.initramfs,
            guest_id=guest.kernel.sha256,
            kernel_cmdline=guest.kernel.cmdline,
        )

    begun = time.monotonic()
    first = await choose()
    assert time.monotonic() - begun < accelerator.TOTAL_TIMEOUT_S + 5
    assert first.reason
    assert first.accelerator is Accelerator.KVM or first.tried[0].accelerator is Accelerator.KVM
    if (paths.data / "accelerator.json").exists():
        begun = time.monotonic()
        second = await choose()
        assert time.monotonic() - begun < 0.2
        assert second.remembered
        assert second.accelerator is first.accelerator


async def test_an_arm64_guest_on_any_host(paths: Paths, spec: VmSpec) -> None:
    if shutil.which("qemu-system-aarch64") is None:
        pytest.skip("qemu-system-aarch64 is not installed, and nothing else needs it")
    kernel = debian.ensure_default(paths, "arm64")
    binaries = initramfs.find_agent_binaries("arm64")
    arm = dataclasses.replace(
        spec,
        arch=Arch.ARM64,
        kernel=kernel.image,
        initramfs=initramfs.ensure_initramfs(paths, kernel, binaries),
        kernel_cmdline=kernel.cmdline,
    )
    async with QemuVmm(Arch.ARM64).start(arm) as vm, asyncio.timeout(BOOT_TIMEOUT_S):
        await vm.wait_agent()


async def test_the_control_socket_takes_connections_before_the_guest_is_up(spec: VmSpec) -> None:
    async with QemuVmm(spec.arch).start(spec) as vm:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(spec.control_socket))
        vm.kill()
        await vm.wait()
