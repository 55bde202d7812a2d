"""The writable disk of a container: a sparse ext4 file, formatted once and copied for each container.

    disks/
      upper-v1-68719476736.ext4    one for each size; complete if it is there (made elsewhere, then renamed)
      .lock                        held while one is made (flock)

A copy shares the template's blocks where the file system can (reflink), and is sparse elsewhere.
"""

import contextlib
import errno
import fcntl
import os
import sys
from collections.abc import Generator
from pathlib import Path

from woodlot.errors import ConfigError
from woodlot.process import find_binary, run
from woodlot.store.disk import full_disk
from woodlot.units import KIB, MIB, format_size

# Raised when the options below change: containers keep the disks they have, new ones get the new format.
FORMAT_VERSION = 1

MIN_DISK_BYTES = 16 * MIB
_MKFS_TIMEOUT_S = 120.0
_COPY_BYTES = 1 << 30
_FICLONE = 0x40049409  # linux/fs.h
_BLOCK_BYTES = 4 * KIB

# Named one by one, so that the host's mke2fs.conf has no say and every kernel from 4.4 on can mount it.
_FEATURES = (
    "has_journal,ext_attr,dir_index,filetype,extent,64bit,flex_bg,sparse_super,large_file,huge_file,"
    "dir_nlink,extra_isize,metadata_csum"
)


def ensure_upper_template(disks: Path, size_bytes: int) -> Path:
    """A formatted, empty disk of ``size_bytes``, made on first use; blocking.

    Args:
        disks: The directory of templates; made if missing.
        size_bytes: Size that the guest sees; rounded down to whole blocks of 4 KiB.

    Returns:
        A file that must not be written to; see `clone_disk`.

    Raises:
        ConfigError: The size is too small, or mkfs.ext4 refuses it.
        LimitError: The disk is full.
        NotFoundError: There is no mkfs.ext4 on this host.
    """
    size_bytes -= size_bytes % _BLOCK_BYTES
    if size_bytes < MIN_DISK_BYTES:
        raise ConfigError(
            f"a writable disk of {format_size(size_bytes)} is too small",
            hint=f"give it at least {format_size(MIN_DISK_BYTES)}",
        )
    template = disks / f"upper-v{FORMAT_VERSION}-{size_bytes}.ext4"
    if template.exists():
        return template
    with _translate_full_disk(disks):
        disks.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _locked(disks / ".lock"):
            if not template.exists():
                _make(template, size_bytes)
    return template


def clone_disk(template: Path, dest: Path) -> None:
    """Copy a disk to the new file ``dest``, by reference or sparsely; blocking.

    After a failure there is no ``dest``.

    Raises:
        FileExistsError: ``dest`` exists.
        LimitError: The disk is full.
    """
    with _translate_full_disk(dest.parent), template.open("rb", buffering=0) as source:
        fd = os.open(dest, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            try:
                if not _reflink(source.fileno(), fd):
                    _copy_sparse(source.fileno(), fd)
            finally:
                os.close(fd)
        except BaseException:
            dest.unlink(missing_ok=True)
            raise


def _make(template: Path, size_bytes: int) -> None:
    import tempfile

    mkfs = find_binary(
        "mkfs.ext4",
        also=(
            "/sbin/mkfs.ext4",
            "/usr/sbin/mkfs.ext4",
            "/opt/homebrew/opt/e2fsprogs/sbin/mkfs.ext4",
        ),
        hint="install it with: apt install e2fsprogs",
    )
    fd, name = tempfile.mkstemp(prefix=".upper-", suffix=".tmp", dir=template.parent)
    try:
        try:
            os.ftruncate(fd, size_bytes)
            _format(mkfs, Path(name), size_bytes)
            os.fsync(fd)
            os.fchmod(fd, 0o400)
        finally:
            os.close(fd)
        Path(name).replace(template)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _format(mkfs: Path, disk: Path, size_bytes: int) -> None:
    try:
        argv = build_mkfs_argv(mkfs, disk, size_bytes, prezeroed=True)
        run(argv, timeout_s=_MKFS_TIMEOUT_S, error=ConfigError)
    except ConfigError:
        # Before 1.46.6 it does not know the option; then it reserves the tables' room, which a copy does not.
        argv = build_mkfs_argv(mkfs, disk, size_bytes, prezeroed=False)
        run(argv, timeout_s=_MKFS_TIMEOUT_S, error=ConfigError)


def build_mkfs_argv(mkfs: Path, disk: Path, size_bytes: int, *, prezeroed: bool) -> list[str]:
    """The command that formats ``disk``.

    Inode tables are marked as zeroed, which they are in a new sparse file: so the guest's kernel has no thread that
    zeroes them after the first mount, which would make every container's disk grow by itself.

    Args:
        mkfs: The program.
        disk: A sparse file of ``size_bytes``.
        size_bytes: A multiple of 4096.
        prezeroed: Tell mkfs.ext4 that the file holds zeros, so that it writes none.
    """
    zeroed = "assume_storage_prezeroed=1" if prezeroed else "lazy_itable_init=0"
    journal_mib = 4 if size_bytes < 1 << 30 else 16
    return [
        str(mkfs), "-q", "-F", "-t", "ext4",
        "-b", str(_BLOCK_BYTES),
        "-I", "256",
        "-i", "16384",
        "-m", "0",
        "-J", f"size={journal_mib}",
        "-O", f"none,{_FEATURES}",
        "-E", f"{zeroed},lazy_journal_init=1,packed_meta_blocks=1,nodiscard,root_owner=0:0",
        str(disk), str(size_bytes // _BLOCK_BYTES),
    ]  # fmt: skip


def _reflink(source: int, dest: int) -> bool:
    """Make ``dest`` share all of ``source``'s blocks; False where the file system cannot."""
    if sys.platform != "linux":
        return False
    try:
        fcntl.ioctl(dest, _FICLONE, source)
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise
        return False
    return True


def _copy_sparse(source: int, dest: int) -> None:
    """Copy what holds data and leave the rest a hole."""
    size = os.fstat(source).st_size
    os.ftruncate(dest, size)
    start = 0
    while True:
        try:
            start = os.lseek(source, start, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:  # no more data
                raise
            return
        end = os.lseek(source, start, os.SEEK_HOLE)
        _copy_range(source, dest, start, end)
        start = end


def _copy_range(source: int, dest: int, start: int, end: int) -> None:
    if sys.platform == "linux":
        try:
            while start < end:
                start += os.copy_file_range(
                    source, dest, min(end - start, _COPY_BYTES), start, start
                )
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EIO}:
                raise
    while start < end:
        data = os.pread(source, min(end - start, MIB), start)
        if not data:
            raise OSError(errno.EIO, "the disk became shorter while it was copied")
        start += os.pwrite(dest, data, start)


@contextlib.contextmanager
def _locked(path: Path) -> Generator[None]:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


@contextlib.contextmanager
def _translate_full_disk(directory: Path) -> Generator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise full_disk(directory, "a container's disk", error) from error
        raise
