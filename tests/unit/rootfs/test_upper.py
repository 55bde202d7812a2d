"""The writable disk's template and its copies."""

import errno
import fcntl
import os
import shutil
import subprocess
import threading
from pathlib import Path

import pytest

from tests.programs import skip_or_fail
from woodlot.errors import ConfigError, LimitError, NotFoundError
from woodlot.rootfs import upper
from woodlot.rootfs.upper import build_mkfs_argv, clone_disk, ensure_upper_template
from woodlot.units import GIB, MIB


@pytest.fixture
def mkfs() -> None:
    if not any(shutil.which(p) for p in ("mkfs.ext4", "/sbin/mkfs.ext4", "/usr/sbin/mkfs.ext4")):
        skip_or_fail("mkfs.ext4 is not on this machine")


@pytest.mark.usefixtures("mkfs")
def test_a_template_is_made_once(tmp_path: Path) -> None:
    disks = tmp_path / "disks"
    template = ensure_upper_template(disks, 64 * GIB)
    assert template.name == "upper-v1-68719476736.ext4"
    found = template.stat()
    assert found.st_size == 64 * GIB
    assert found.st_blocks * 512 < 2 * MIB
    assert found.st_mode & 0o777 == 0o400
    assert ensure_upper_template(disks, 64 * GIB + 5) == template
    assert template.stat().st_ino == found.st_ino
    assert sorted(path.name for path in disks.iterdir()) == [".lock", template.name]


@pytest.mark.usefixtures("mkfs")
def test_a_copy_is_sound_and_small(tmp_path: Path) -> None:
    template = ensure_upper_template(tmp_path, GIB)
    dest = tmp_path / "copy"
    clone_disk(template, dest)
    assert dest.stat().st_mode & 0o777 == 0o600
    assert dest.stat().st_size == GIB
    assert dest.stat().st_blocks <= template.stat().st_blocks
    e2fsck = shutil.which("e2fsck") or shutil.which("e2fsck", path="/sbin:/usr/sbin")
    if e2fsck:
        done = subprocess.run(
            [e2fsck, "-fn", str(dest)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout
    dumpe2fs = shutil.which("dumpe2fs") or shutil.which("dumpe2fs", path="/sbin:/usr/sbin")
    if dumpe2fs:
        argv = [dumpe2fs, str(dest)]
        text = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
        groups = [
            line for line in text.splitlines() if line.startswith("Group ") and "Blocks" in line
        ]
        assert groups
        assert all("ITABLE_ZEROED" in line for line in groups), (
            "nothing is left to do at the first mount"
        )


def test_holes_and_data_are_copied(tmp_path: Path) -> None:
    template = tmp_path / "t"
    with template.open("wb") as file:
        file.truncate(50 * MIB)
        for at in (0, 5 * MIB, 40 * MIB + 123):
            file.seek(at)
            file.write(os.urandom(10_000))
    clone_disk(template, tmp_path / "c")
    assert (tmp_path / "c").read_bytes() == template.read_bytes()
    assert (tmp_path / "c").stat().st_blocks * 512 < MIB


def test_it_copies_without_help_from_the_kernel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_args: object) -> None:
        raise OSError(errno.EXDEV, "no")

    monkeypatch.setattr(fcntl, "ioctl", refuse)
    monkeypatch.setattr(os, "copy_file_range", refuse)
    test_holes_and_data_are_copied(tmp_path)


def test_a_copy_never_overwrites(tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes(b"new")
    (tmp_path / "c").write_bytes(b"old")
    with pytest.raises(FileExistsError):
        clone_disk(tmp_path / "t", tmp_path / "c")
    assert (tmp_path / "c").read_bytes() == b"old"


@pytest.mark.parametrize("step", ["ftruncate", "pwrite"])
def test_a_full_disk_leaves_no_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def full(*_args: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    (tmp_path / "t").write_bytes(b"x" * 10_000)
    monkeypatch.setattr(upper, "_reflink", lambda *_args: False)
    monkeypatch.setattr(os, "copy_file_range", lambda *_args: 1 / 0 if step != "pwrite" else full())
    monkeypatch.setattr(os, step, full)
    with pytest.raises(LimitError, match="cannot write a container's disk"):
        clone_disk(tmp_path / "t", tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_a_disk_too_small(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="too small"):
        ensure_upper_template(tmp_path, 15 * MIB)


def test_no_mkfs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_args, **_kwargs: None)
    with pytest.raises(NotFoundError) as caught:
        ensure_upper_template(tmp_path, GIB)
    assert "apt install e2fsprogs" in (caught.value.hint or "")
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def script(path: Path, body: str) -> None:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


def test_a_failing_mkfs_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    binaries = tmp_path / "bin"
    binaries.mkdir()
    script(binaries / "mkfs.ext4", "echo broken >&2; exit 3")
    monkeypatch.setenv("PATH", f"{binaries}:/usr/bin:/bin")
    with pytest.raises(ConfigError, match="status 3") as caught:
        ensure_upper_template(tmp_path / "disks", GIB)
    assert "broken" in (caught.value.details or "")
    assert [path.name for path in (tmp_path / "disks").iterdir()] == [".lock"]


def test_an_old_mkfs_is_asked_differently(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    binaries = tmp_path / "bin"
    binaries.mkdir()
    script(binaries / "mkfs.ext4", 'case "$*" in *prezeroed*) exit 1;; esac; exit 0')
    monkeypatch.setenv("PATH", f"{binaries}:/usr/bin:/bin")
    assert ensure_upper_template(tmp_path / "disks", GIB).stat().st_size == GIB


@pytest.mark.usefixtures("mkfs")
def test_many_at_once_make_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Path] = []
    original = upper._make

    def counting(template: Path, size_bytes: int) -> None:
        made.append(template)
        original(template, size_bytes)

    monkeypatch.setattr(upper, "_make", counting)
    threads = [
        threading.Thread(target=ensure_upper_template, args=(tmp_path, GIB)) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1


def test_the_command() -> None:
    argv = build_mkfs_argv(Path("/sbin/mkfs.ext4"), Path("/d/x"), 2 * GIB, prezeroed=True)
    assert argv == [
        "/sbin/mkfs.ext4", "-q", "-F", "-t", "ext4", "-b", "4096", "-I", "256", "-i", "16384", "-m", "0",
        "-J", "size=16",
        "-O", ("none,has_journal,ext_attr,dir_index,filetype,extent,64bit,flex_bg,sparse_super,large_file,"
        "huge_file,dir_nlink,extra_isize,metadata_csum"),
        "-E", "assume_storage_prezeroed=1,lazy_journal_init=1,packed_meta_blocks=1,nodiscard,root_owner=0:0",
        "/d/x", "524288",
    ]  # fmt: skip
