"""What the kernel and other unpackers make of our images."""

import hashlib
import json
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.programs import require_programs, require_root, skip_or_fail
from tests.unit.rootfs.tars import (
    archive,
    directory,
    hard_link,
    member,
    symlink,
    write_layer,
)
from woodlot.progress import NoProgress
from woodlot.rootfs.build import BuildLimits, LayerSource, build_rootfs
from woodlot.rootfs.upper import clone_disk, ensure_upper_template
from woodlot.units import GIB

LIMITS = BuildLimits(max_bytes=8 * GIB, max_ratio=1000, max_entries=1_000_000)
CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")
LONG = b"deep/" + b"/".join([b"d" * 100] * 6)


@contextmanager
def mounted(image: Path, kind: str, options: str) -> Iterator[Path]:
    require_root()
    if kind not in Path("/proc/filesystems").read_text():
        subprocess.run(["modprobe", kind], check=False, capture_output=True)
    with tempfile.TemporaryDirectory() as at:
        argv = ["mount", "-t", kind, "-o", f"loop,{options}", str(image), at]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if done.returncode:
            skip_or_fail(f"this kernel cannot mount {kind} here: {done.stderr.strip()}")
        try:
            yield Path(at)
        finally:
            subprocess.run(["umount", at], check=True)


def describe(root: Path) -> dict[str, dict[str, Any]]:
    """Everything that stat and read tell of a tree, hard links as the set of their names."""
    found: dict[str, dict[str, Any]] = {}
    groups: dict[int, list[str]] = {}
    for at, directories, files in os.walk(root):
        for name in [*directories, *files, *(["."] if at == str(root) else [])]:
            path = os.path.join(at, name)  # noqa: PTH118 - names may be anything
            status = os.lstat(path)
            kind = stat.S_IFMT(status.st_mode)
            seen: dict[str, Any] = {
                "mode": status.st_mode,
                "owner": (status.st_uid, status.st_gid),
                "mtime": status.st_mtime_ns,
                "xattrs": {
                    key: os.getxattr(path, key, follow_symlinks=False)
                    for key in os.listxattr(path, follow_symlinks=False)
                },
            }
            if kind != stat.S_IFDIR:
                seen["size"] = status.st_size
                seen["links"] = groups.setdefault(status.st_ino, [])
                seen["links"].append(os.path.relpath(path, root))
            if kind == stat.S_IFLNK:
                seen["target"] = str(Path(path).readlink())
            elif kind == stat.S_IFREG:
                seen["sha256"] = hashlib.sha256(Path(path).read_bytes()).hexdigest()
            elif kind in {stat.S_IFCHR, stat.S_IFBLK}:
                seen["device"] = (os.major(status.st_rdev), os.minor(status.st_rdev))
            found[os.path.relpath(path, root)] = seen
    for seen in found.values():
        if "links" in seen:
            seen["links"] = sorted(seen["links"])
    return found


def awkward_layers() -> list[bytes]:
    """Legal entries that unpackers get wrong."""
    xattrs = {b"SCHILY.xattr.security.capability": CAPABILITY, b"SCHILY.xattr.user.note": b"hello"}
    one = archive(
        directory(b"./", 0o755, mtime=1),
        directory(b"a"), member(b"a/keep", b"keep\n"), member(b"a/gone", b"gone\n"),
        directory(b"opaque"), member(b"opaque/old"), directory(b"opaque/sub"), member(b"opaque/sub/old"),
        member(b"file-then-dir", b"file"), directory(b"dir-then-file"), member(b"dir-then-file/x"),
        directory(b"dir-then-link"), member(b"dir-then-link/x"),
        directory(b"hard"), member(b"hard/one", b"linked\n", uid=1234, gid=4321, mode=0o600), hard_link(b"hard/two", b"hard/one"),
        member(b"suid", b"#!/bin/sh\n", mode=0o4755), directory(b"sticky", 0o1777),
        member(b"fifo", type=b"6"), member(b"null", type=b"3", major=1, minor=3), member(b"loop", type=b"4", major=7, minor=300),
        member(b"bigid", pax={b"uid": b"3000000000", b"gid": b"3000000001"}),
        member(b"cap", b"\x7fELF", mode=0o755, pax=xattrs), directory(b"cap.d", pax={b"SCHILY.xattr.trusted.x": b"1" * 3000}),
        member(b"mtime", pax={b"mtime": b"1234567890.123456789"}), member(b"y1901", pax={b"mtime": b"-2000000000.5"}),
        member(b"y2106", pax={b"mtime": b"4500000000"}),
        member(b"empty", mode=0), member(b"page", b"p" * 4096), member(b"page1", b"q" * 4097), member(b"big", bytes(range(256)) * 40960),
        symlink(b"dangling", b"../../nowhere"), symlink(b"self", b"self"), symlink(b"long", b"x" * 4095), symlink(b"middling", b"y" * 4000),
        directory(b"deep"), *(directory(LONG[: 5 + 101 * n - 1]) for n in range(1, 7)), member(LONG + b"/leaf", b"leaf\n"),
        member(b"sp ace\ttab\nnewline"), member("ünïcödé-文字".encode()), member(b"n" * 255), member(b"./dotted"), member(b"/leading"),
        directory(b"many"), *(member(b"many/%05d" % i, b"x" * (i % 5000)) for i in range(3000)),
        directory(b"usr"), directory(b"usr/lib"), symlink(b"lib", b"usr/lib"),
    )  # fmt: skip
    two = archive(
        member(b"a/.wh.gone"), member(b"opaque/.wh..wh..opq"), member(b"opaque/new", b"new"),
        directory(b"file-then-dir"), member(b"file-then-dir/in", b"in"), member(b"dir-then-file", b"now a file"),
        symlink(b"dir-then-link", b"a"), member(b"many/.wh.00007"), member(b".wh.never-existed"),
        directory(b"sticky", 0o700, uid=5), member(b"lib/through", b"x"), member(b"twice", b"1"), member(b"twice", b"2", mode=0o600),
    )  # fmt: skip
    three = archive(
        member(b"a/gone", b"back again\n"), member(b"hard/.wh.one"), hard_link(b"hard/three", b"hard/two"),
    )  # fmt: skip
    return [one, two, three]


@pytest.fixture
def layers(tmp_path: Path) -> list[LayerSource]:
    (tmp_path / "blobs" / "sha256").mkdir(parents=True)
    return [write_layer(tmp_path / "blobs" / "sha256", tar) for tar in awkward_layers()]


async def test_the_kernel_sees_what_umoci_unpacks(
    layers: list[LayerSource], tmp_path: Path
) -> None:
    require_programs("umoci")
    write_layout(tmp_path, layers)
    image = tmp_path / "image.erofs"
    await build_rootfs(layers, image, limits=LIMITS, progress=NoProgress())
    unpacked = tmp_path / "unpacked"
    argv = ["umoci", "raw", "unpack", "--image", f"{tmp_path}:test", str(unpacked)]
    with mounted(image, "erofs", "ro") as root:
        subprocess.run(argv, check=True, capture_output=True)
        ours, theirs = describe(root), describe(unpacked)
    assert set(ours) == set(theirs)
    assert {path: seen for path, seen in ours.items() if seen != theirs[path]} == {}


async def test_the_kernel_finds_every_name(tmp_path: Path) -> None:
    """Lookups are binary searches: over blocks, then in a block."""
    names = [b"%s%d" % (b"n" * (i % 200), i) for i in range(5000)]
    layer = write_layer(tmp_path, archive(*(member(b"d/" + name) for name in names)))
    image = tmp_path / "image.erofs"
    await build_rootfs([layer], image, limits=LIMITS, progress=NoProgress())
    with mounted(image, "erofs", "ro") as root:
        for name in names:
            os.lstat(os.path.join(os.fsencode(root), b"d", name))  # noqa: PTH118
        for absent in (b"n", b"zz", b"!", names[7] + b"x"):
            with pytest.raises(FileNotFoundError):
                os.lstat(os.path.join(os.fsencode(root), b"d", absent))  # noqa: PTH118


async def test_gnu_tar_writes_what_we_read(tmp_path: Path) -> None:
    require_programs("tar")
    source = tmp_path / "source"
    source.mkdir()
    with (source / "sparse").open("wb") as file:
        file.truncate(5_000_000)
        for at in range(0, 4_000_000, 100_000):
            file.seek(at)
            file.write(b"data %d" % at)
    (source / ("long" * 50)).write_bytes(b"x" * 5000)
    os.link(source / "sparse", source / "z-link")
    os.utime(source / ("long" * 50), ns=(0, 1_500_000_000_123_456_789))
    forms = [
        "gnu",
        "oldgnu",
        "pax --sparse-version=0.0",
        "pax --sparse-version=0.1",
        "pax --sparse-version=1.0",
    ]
    for form in forms:
        tar = subprocess.run(
            ["tar", "-C", source, "--sparse", *f"--format={form}".split(), "-cf", "-", "."],
            check=True, capture_output=True,
        ).stdout  # fmt: skip
        image = tmp_path / "image.erofs"
        layer = write_layer(tmp_path, tar)
        await build_rootfs([layer], image, limits=LIMITS, progress=NoProgress())
        with mounted(image, "erofs", "ro") as root:
            ours, theirs = describe(root), describe(source)
        for seen in (ours, theirs):
            for entry in seen.values():
                if not form.startswith("pax"):
                    entry["mtime"] //= 10**9
        assert ours == theirs, form


def write_layout(directory: Path, layers: list[LayerSource]) -> None:
    """An OCI layout around layers that lie in it already."""

    def blob(data: dict[str, Any]) -> dict[str, Any]:
        raw = json.dumps(data).encode()
        digest = hashlib.sha256(raw).hexdigest()
        (directory / "blobs" / "sha256" / digest).write_bytes(raw)
        return {"digest": f"sha256:{digest}", "size": len(raw)}

    prefix = "application/vnd.oci.image"
    config = blob(
        {
            "architecture": "amd64",
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
        }
    )
    descriptors = [
        {"mediaType": layer.media_type, "digest": layer.digest, "size": layer.path.stat().st_size}
        for layer in layers
    ]
    manifest = blob(
        {
            "schemaVersion": 2,
            "mediaType": f"{prefix}.manifest.v1+json",
            "config": {"mediaType": f"{prefix}.config.v1+json", **config},
            "layers": descriptors,
        }
    )
    entry = {
        "mediaType": f"{prefix}.manifest.v1+json",
        **manifest,
        "annotations": {"org.opencontainers.image.ref.name": "test"},
    }
    (directory / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    (directory / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')


def test_the_writable_disk_mounts_and_holds(tmp_path: Path) -> None:
    require_root()
    if not shutil.which("mkfs.ext4"):
        skip_or_fail("mkfs.ext4 is not on this machine")
    template = ensure_upper_template(tmp_path, 64 * GIB)
    disk = tmp_path / "disk"
    clone_disk(template, disk)
    before = disk.stat().st_blocks
    with mounted(disk, "ext4", "rw,noatime") as root:
        (root / "file").write_bytes(b"x" * 100_000)
        os.setxattr(root / "file", "trusted.overlay.origin", b"y")
        space = os.statvfs(root)
        assert space.f_bavail * space.f_frsize > 62 * GIB
    assert (disk.stat().st_blocks - before) * 512 < 4 << 20
    subprocess.run(["e2fsck", "-fn", disk], check=True, capture_output=True)
    again = tmp_path / "again"
    clone_disk(template, again)
    with mounted(again, "ext4", "rw") as root:
        assert sorted(path.name for path in root.iterdir()) == ["lost+found"]
