"""QEMU's arguments, held word for word: a change here is a change of the machine."""

import dataclasses
from pathlib import Path

import pytest

from woodlot.errors import ConfigError
from woodlot.units import MIB
from woodlot.vmm.base import (
    Accelerator,
    Arch,
    Disk,
    SharedFiles,
    StreamNetwork,
    TapNetwork,
    UnconnectedNetwork,
    UserNetwork,
    VmSpec,
)
from woodlot.vmm.qemu import cmdline
from woodlot.vmm.qemu.cmdline import Channels

SPEC = VmSpec(
    name="web",
    arch=Arch.AMD64,
    accelerator=Accelerator.TCG,
    vcpus=1,
    memory_bytes=512 * MIB,
    kernel=Path("/k/vmlinuz"),
    initramfs=Path("/k/init.cpio"),
    kernel_cmdline=("debug",),
    disks=(
        Disk(path=Path("/d/image.erofs"), serial="image", read_only=True),
        Disk(path=Path("/d/a,b c.ext4"), serial="upper"),
    ),
    networks=(UserNetwork(mac="52:54:00:01:02:03"),),
    control_socket=Path("/r/a.sock"),
    console_log=Path("/d/console.log"),
    vmm_log=Path("/d/vmm.log"),
)
SERIAL = Channels(qmp_fd=7, control_fd=8)

KERNEL_ARGS = (
    "console=ttyS0 quiet panic=-1 random.trust_cpu=on net.ifnames=0 reboot=t pci=lastbus=0 "
    "i8042.noaux i8042.nokbd i8042.nopnp i8042.dumbkbd 8250.nr_uarts=1 no_timer_check acpi=noirq debug"
)
AMD64_TCG = [
    "/usr/bin/qemu",
    "-name", "guest=web,debug-threads=on",
    "-no-user-config",
    "-nodefaults",
    "-display", "none",
    "-no-reboot",
    "-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
    "-machine", "pc,usb=off,vmport=off,hpet=off,smm=off,memory-backend=ram,dump-guest-core=off,mem-merge=off",
    "-accel", "tcg,thread=single",
    "-cpu", "max",
    "-smp", "1",
    "-m", "512M",
    "-object", "memory-backend-ram,id=ram,size=512M",
    "-kernel", "/k/vmlinuz",
    "-initrd", "/k/init.cpio",
    "-append",
    KERNEL_ARGS,
    "-chardev", "socket,id=qmp,fd=7",
    "-mon", "chardev=qmp,mode=control",
    "-chardev", "file,id=console,path=/d/console.log,append=on",
    "-serial", "chardev:console",
    "-device", "virtio-serial-pci,max_ports=2",
    "-chardev", "socket,id=control,fd=8,server=on,wait=off",
    "-device", "virtserialport,chardev=control,id=control-port,name=woodlot.agent",
    "-blockdev", "driver=file,node-name=disk0,filename=/d/image.erofs,read-only=on",
    "-device", "virtio-blk-pci,drive=disk0,serial=image",
    "-blockdev", "driver=file,node-name=disk1,filename=/d/a,,b c.ext4,discard=unmap,detect-zeroes=unmap",
    "-device", "virtio-blk-pci,drive=disk1,serial=upper,werror=report,rerror=report",
    "-netdev", "user,id=net0,ipv4=on,ipv6=off,net=10.0.2.0/24",
    "-device", "virtio-net-pci,netdev=net0,mac=52:54:00:01:02:03,romfile=",
    "-device", "virtio-rng-pci",
    "-device", "virtio-balloon-pci,free-page-reporting=on",
]  # fmt: skip


@pytest.fixture(autouse=True)
def linux(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")


def build(spec: VmSpec, channels: Channels = SERIAL) -> list[str]:
    return cmdline.build_argv(Path("/usr/bin/qemu"), spec, channels)


def after(argv: list[str], option: str) -> str:
    return argv[argv.index(option) + 1]


def test_amd64_emulated() -> None:
    assert build(SPEC) == AMD64_TCG


def test_kvm_takes_the_hosts_processor_and_keeps_acpi_routing() -> None:
    argv = build(dataclasses.replace(SPEC, accelerator=Accelerator.KVM, vcpus=4))
    assert after(argv, "-accel") == "kvm"
    assert after(argv, "-cpu") == "host"
    assert after(argv, "-smp") == "4"
    assert "acpi=noirq" not in after(argv, "-append")


def test_features_that_the_host_cannot_keep_are_left_out() -> None:
    def cpu(accelerator: Accelerator) -> str:
        spec = dataclasses.replace(SPEC, accelerator=accelerator)
        argv = cmdline.build_argv(Path("/q"), spec, SERIAL, without_features=["arch-capabilities"])
        return after(argv, "-cpu")

    assert cpu(Accelerator.KVM) == "host,arch-capabilities=off"
    assert cpu(Accelerator.TCG) == "max"


def test_two_emulated_processors_are_found_through_acpi() -> None:
    assert "acpi=noirq" not in after(build(dataclasses.replace(SPEC, vcpus=2)), "-append")


def test_arm64() -> None:
    argv = build(dataclasses.replace(SPEC, arch=Arch.ARM64))
    assert after(argv, "-machine").startswith("virt,gic-version=max,")
    assert after(argv, "-cpu") == "max,pauth-impdef=on"
    assert after(argv, "-append").startswith("console=ttyAMA0 ")


def test_hvf_leaves_the_interrupt_controller_alone() -> None:
    argv = build(dataclasses.replace(SPEC, arch=Arch.ARM64, accelerator=Accelerator.HVF))
    assert "gic-version" not in after(argv, "-machine")
    assert after(argv, "-cpu") == "host"


def test_no_network_no_card() -> None:
    argv = build(dataclasses.replace(SPEC, networks=()))
    assert not [arg for arg in argv if "net0" in arg or "virtio-net" in arg]


def test_cards_of_a_switch() -> None:
    networks = (
        StreamNetwork(mac="52:54:00:01:02:03", socket_fd=20),
        StreamNetwork(mac="52:54:00:01:02:04", socket_fd=21),
    )
    argv = build(dataclasses.replace(SPEC, networks=networks))
    begin = argv.index("-netdev")
    assert argv[begin : begin + 8] == [
        "-netdev", "stream,id=net0,server=off,addr.type=fd,addr.str=20",
        "-device", "virtio-net-pci,netdev=net0,mac=52:54:00:01:02:03,romfile=",
        "-netdev", "stream,id=net1,server=off,addr.type=fd,addr.str=21",
        "-device", "virtio-net-pci,netdev=net1,mac=52:54:00:01:02:04,romfile=",
    ]  # fmt: skip


@pytest.mark.parametrize(("vhost", "more"), [(False, ""), (True, ",vhost=on")])
def test_a_card_on_a_tap(*, vhost: bool, more: str) -> None:
    spec = dataclasses.replace(SPEC, networks=(TapNetwork(mac="52:54:00:01:02:03", tap_fd=12),))
    argv = build(spec, Channels(qmp_fd=7, control_fd=8, vhost_net=vhost))
    begin = argv.index("-netdev")
    assert argv[begin : begin + 4] == [
        "-netdev", f"tap,id=net0,fd=12{more}",
        "-device", "virtio-net-pci,netdev=net0,mac=52:54:00:01:02:03,romfile=",
    ]  # fmt: skip


def test_vsock_in_place_of_the_port() -> None:
    argv = build(SPEC, Channels(qmp_fd=7, control_fd=None, vsock_cid=77))
    assert "vhost-vsock-pci,guest-cid=77" in argv
    assert not [arg for arg in argv if "virtserialport" in arg]


def test_no_sandbox_where_there_is_no_seccomp() -> None:
    assert cmdline.sandbox_args("darwin") == []


@pytest.mark.parametrize("argument", ["", "a\nb", "a\0b"])
def test_kernel_arguments_are_checked(argument: str) -> None:
    with pytest.raises(ConfigError):
        build(dataclasses.replace(SPEC, kernel_cmdline=(argument,)))


def test_serial_length_is_checked() -> None:
    disk = Disk(path=Path("/d"), serial="x" * 21)
    with pytest.raises(ConfigError, match="20 bytes"):
        build(dataclasses.replace(SPEC, disks=(disk,)))


def test_a_newline_in_a_path_is_refused() -> None:
    with pytest.raises(ConfigError):
        build(dataclasses.replace(SPEC, console_log=Path("/d/a\nb")))


def test_files_are_served_into_shared_memory() -> None:
    shares = (SharedFiles(tag="fs0", socket_fd=9), SharedFiles(tag="fs1", socket_fd=10))
    argv = build(dataclasses.replace(SPEC, shares=shares))
    memory = argv.index("-object") + 1
    assert argv[memory] == "memory-backend-memfd,id=ram,size=512M,share=on"
    start = argv.index("socket,id=fs0,fd=9") - 1
    assert argv[start : start + 8] == [
        "-chardev", "socket,id=fs0,fd=9",
        "-device", "vhost-user-fs-pci,chardev=fs0,tag=fs0,queue-size=1024",
        "-chardev", "socket,id=fs1,fd=10",
        "-device", "vhost-user-fs-pci,chardev=fs1,tag=fs1,queue-size=1024",
    ]  # fmt: skip


def test_a_tag_has_a_limit() -> None:
    with pytest.raises(ConfigError, match="at most 36 bytes"):
        build(dataclasses.replace(SPEC, shares=(SharedFiles(tag="x" * 37, socket_fd=9),)))


def test_a_machine_to_be_saved_holds_places() -> None:
    spec = dataclasses.replace(
        SPEC,
        disks=(Disk(path=None, serial="p0", read_only=True), Disk(path=None, serial="p1")),
        networks=(UnconnectedNetwork(mac="02:00:00:00:00:01"),),
        memory_file=Path("/t/a,b"),
    )
    argv = build(spec)
    memory = argv.index("-object") + 1
    assert argv[memory] == "memory-backend-file,id=ram,size=512M,mem-path=/t/a,,b,share=on"
    begin = argv.index("-blockdev")
    assert argv[begin : begin + 16] == [
        "-blockdev", "driver=null-co,node-name=place0,size=17592186044416,read-zeroes=on,read-only=on",
        "-blockdev", "driver=raw,node-name=disk0,file=place0,read-only=on",
        "-device", "virtio-blk-pci,drive=disk0,serial=p0",
        "-blockdev", "driver=null-co,node-name=place1,size=17592186044416,read-zeroes=on,discard=unmap",
        "-blockdev", "driver=raw,node-name=disk1,file=place1,discard=unmap,detect-zeroes=unmap",
        "-device", "virtio-blk-pci,drive=disk1,serial=p1,werror=report,rerror=report",
        "-netdev", "hubport,id=net0,hubid=0",
        "-device", "virtio-net-pci,netdev=net0,mac=02:00:00:00:00:01,romfile=",
    ]  # fmt: skip
    assert "-incoming" not in argv
    # Devices will be plugged in.
    assert "acpi=noirq" not in after(argv, "-append")


@pytest.mark.parametrize(("own", "share"), [(False, "off"), (True, "on")])
@pytest.mark.parametrize("shares", [(), (SharedFiles(tag="fs0", socket_fd=9),)])
def test_memory_of_a_saved_machine(own: bool, shares: tuple[SharedFiles, ...], share: str) -> None:
    spec = dataclasses.replace(SPEC, shares=shares)
    share = "on" if shares else share
    argv = build(spec, dataclasses.replace(SERIAL, memory=Path("/t/memory"), memory_is_own=own))
    memory = argv.index("-object") + 1
    assert argv[memory] == f"memory-backend-file,id=ram,size=512M,mem-path=/t/memory,share={share}"
    assert argv[-2:] == ["-incoming", "defer"]
    # A share's device is no part of what is saved: it is plugged in afterwards.
    assert not [arg for arg in argv if "vhost-user-fs" in arg]
    assert len([arg for arg in argv if arg == "socket,id=fs0,fd=9"]) == len(shares)
