"""Kernels, modules and packages made for a test."""

import io
import lzma
import struct
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import zstandard

from woodlot.paths import Paths

RELEASE = "6.1.0-1-cloud-amd64"


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(data=tmp_path / "data", runtime=tmp_path / "run")


def make_module(*, depends: str = "", softdep: str = "") -> bytes:
    """A 64-bit ELF object with nothing but a section .modinfo."""
    info = b"license=GPL\0" + f"depends={depends}\0".encode()
    if softdep:
        info += f"softdep={softdep}\0".encode()
    names = b"\0.modinfo\0.shstrtab\0"
    header_size = 64
    info_at, names_at = header_size, header_size + len(info)
    table_at = names_at + len(names)
    header = struct.pack(
        "<16sHHIQQQIHHHHHH",
        b"\x7fELF\x02\x01\x01", 1, 62, 1, 0, 0, table_at, 0, header_size, 0, 0, 64, 3, 2,
    )  # fmt: skip
    sections = [
        (0,) * 10,
        (1, 1, 0, 0, info_at, len(info), 0, 0, 1, 0),
        (10, 3, 0, 0, names_at, len(names), 0, 0, 1, 0),
    ]
    return header + info + names + b"".join(struct.pack("<IIQQQQIIQQ", *s) for s in sections)


def make_bzimage(release: str = "6.1.0-test (somebody) #1") -> bytes:
    """The first bytes of an x86 kernel image."""
    image = bytearray(0x4000)
    image[0x1FE:0x200] = b"\x55\xaa"
    image[0x202:0x206] = b"HdrS"
    image[0x20E:0x210] = (0x3000 - 0x200).to_bytes(2, "little")
    image[0x3000 : 0x3000 + len(release)] = release.encode()
    return bytes(image)


def make_arm64_image() -> bytes:
    image = bytearray(0x2000)
    image[56:60] = b"ARM\x64"
    image[0x1000:0x1030] = b"Linux version 6.1.0-arm (x) #1".ljust(0x30, b"\0")
    return bytes(image)


def make_deb(files: Mapping[str, bytes], *, compression: str = "xz") -> bytes:
    """A Debian package that holds ``files``."""
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    pack: dict[str, Callable[[bytes], bytes]] = {
        "xz": lzma.compress,
        "zst": zstandard.ZstdCompressor().compress,
        "none": bytes,
    }
    suffix = "" if compression == "none" else f".{compression}"
    members = {
        "debian-binary": b"2.0\n",
        "control.tar.xz": b"odd",
        f"data.tar{suffix}": pack[compression](tar.getvalue()),
    }
    ar = b"!<arch>\n"
    for name, data in members.items():
        ar += f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(data):<10}`\n".encode()
        ar += data + b"\n" * (len(data) % 2)
    return ar


def kernel_files(release: str = RELEASE) -> dict[str, bytes]:
    """A kernel package's files: one built-in driver, the rest modules, packed in different ways."""
    base = f"./lib/modules/{release}"
    drivers = f"{base}/kernel/drivers"
    return {
        f"./boot/vmlinuz-{release}": make_bzimage(),
        f"./boot/config-{release}": b"CONFIG_X=y\n",
        f"{base}/modules.builtin": b"kernel/fs/ext4/ext4.ko\nkernel/crypto/crc32c_generic.ko\n",
        f"{drivers}/virtio/virtio.ko": make_module(),
        f"{drivers}/virtio/virtio_ring.ko.xz": lzma.compress(make_module(depends="virtio")),
        f"{drivers}/virtio/virtio_pci.ko": make_module(depends="virtio,virtio_ring"),
        f"{drivers}/char/virtio_console.ko.zst": zstandard.compress(make_module()),
        f"{drivers}/char/hw_random/virtio-rng.ko": make_module(depends="virtio"),
        f"{drivers}/block/virtio_blk.ko": make_module(),
        f"{drivers}/net/virtio_net.ko": make_module(),
        f"{drivers}/gpu/never_wanted.ko": make_module(depends="not_there"),
        f"{base}/kernel/fs/erofs/erofs.ko": make_module(softdep="pre: lz4_test"),
        f"{base}/kernel/lib/lz4_test.ko": make_module(),
        f"{base}/kernel/fs/overlayfs/overlay.ko": make_module(),
        "./etc/passwd": b"root::0:0",
    }
