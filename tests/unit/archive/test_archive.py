"""Tars of the host's files, and tars of hostile guests unpacked among them."""

import io
import os
import socket
import stat
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.programs import require_root
from tests.unit.rootfs.tars import END, Header
from woodlot.archive import unpack as unpack_module
from woodlot.archive.pack import pack, pack_bytes
from woodlot.archive.unpack import Unpacked, unpack
from woodlot.errors import (
    ConfigError,
    IntegrityError,
    LimitError,
    NotFoundError,
    StateError,
    WoodlotError,
)


def tar_of(source: Path, name: str, *, keep_owner: bool = False) -> bytes:
    pieces: list[bytes] = []
    pack(source, name, pieces.append, keep_owner=keep_owner)
    return b"".join(pieces)


def members(tar: bytes) -> list[tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        return archive.getmembers()


def unpack_to(
    directory: Path, tar: bytes, name: str = ".", *, keep_owner: bool = False
) -> Unpacked:
    def pieces() -> Iterator[bytes]:
        for start in range(0, len(tar), 700):
            yield tar[start : start + 700]

    before = len(list(Path("/proc/self/fd").iterdir()))
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return unpack(pieces(), fd, name, keep_owner=keep_owner)
    finally:
        os.close(fd)
        assert len(list(Path("/proc/self/fd").iterdir())) == before


def entries(*headers: Header | tuple[Header, bytes]) -> bytes:
    tar = b""
    for item in headers:
        header, content = item if isinstance(item, tuple) else (item, b"")
        header.size = len(content)
        tar += header.build() + content + bytes(-len(content) % 512)
    return tar + END


def directory(name: bytes, mode: int = 0o755) -> Header:
    return Header(name=name, type=b"5", mode=mode)


def link(name: bytes, target: bytes, kind: bytes = b"2") -> Header:
    return Header(name=name, type=kind, link=target)


def make_tree(at: Path) -> None:
    (at / "sub/deep").mkdir(parents=True)
    (at / "sub/f").write_bytes(b"x" * 300_001)
    (at / "sub/empty").touch()
    os.link(at / "sub/f", at / "same")
    (at / "link").symlink_to("/nowhere")
    (at / os.fsdecode(b"\xff\n")).write_text("odd")
    (at / "sub/f").chmod(0o4751)
    (at / "sub").chmod(0o1570)
    os.utime(at / "sub/f", ns=(0, 1_000_000_000_123_456_789))
    os.utime(at / "sub", ns=(0, 5))


def describe(at: Path) -> dict[str, tuple[object, ...]]:
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(at.rglob("*")):
        info = path.lstat()
        content = b"" if not path.is_file() or path.is_symlink() else path.read_bytes()
        target = str(path.readlink()) if path.is_symlink() else ""
        found[str(path.relative_to(at))] = (
            stat.S_IFMT(info.st_mode), stat.S_IMODE(info.st_mode) & 0o777, info.st_mtime_ns, info.st_nlink, content, target,
        )  # fmt: skip
    return found


def test_there_and_back(tmp_path: Path) -> None:
    source, target = tmp_path / "s", tmp_path / "t"
    make_tree(source)
    target.mkdir()
    done = unpack_to(target, tar_of(source, "u"), "u")
    assert describe(target / "u") == describe(source)
    assert done == Unpacked(bytes=300_004, left_out=())
    assert stat.S_IMODE((target / "u/sub/f").stat().st_mode) == 0o751


def test_owners_are_kept_on_request(tmp_path: Path) -> None:
    require_root()
    source, target = tmp_path / "s", tmp_path / "t"
    make_tree(source)
    target.mkdir()
    os.chown(source / "sub/f", 70, 71)
    os.chmod(source / "sub/f", 0o4751)  # noqa: PTH101
    assert {(m.uid, m.gid) for m in members(tar_of(source, "u"))} == {(0, 0)}
    unpack_to(target, tar_of(source, ".", keep_owner=True), keep_owner=True)
    info = (target / "same").stat()
    assert (info.st_uid, info.st_gid, stat.S_IMODE(info.st_mode)) == (70, 71, 0o4751)


def test_names_in_a_tar(tmp_path: Path) -> None:
    (tmp_path / "d/e").mkdir(parents=True)
    (tmp_path / "d/e/f").touch()
    assert [m.name for m in members(tar_of(tmp_path / "d", "x"))] == ["x", "x/e", "x/e/f"]
    assert [m.name for m in members(tar_of(tmp_path / "d", "."))] == [".", "./e", "./e/f"]
    assert [m.name for m in members(tar_of(tmp_path / "d/e/f", "g"))] == ["g"]


def test_what_cannot_be_packed(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="nothing"):
        tar_of(tmp_path / "nothing", "x")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        with pytest.raises(StateError, match="socket"):
            tar_of(tmp_path / "s", "x")
        assert [m.name for m in members(tar_of(tmp_path, "x"))] == ["x"]


def test_a_file_that_shrinks_is_told(tmp_path: Path) -> None:
    source = tmp_path / "f"
    source.write_bytes(bytes(1 << 20))

    def put(_: bytes) -> None:
        os.truncate(source, 10)

    with pytest.raises(StateError, match="shorter"):
        pack(source, "f", put, keep_owner=False)


def test_content_as_a_file(tmp_path: Path) -> None:
    for size in (0, 1, 512, 600_000):
        pieces: list[bytes] = []
        pack_bytes(b"y" * size, "f", pieces.append, mode=0o640, mtime=7.5)
        unpack_to(tmp_path, b"".join(pieces), "f")
        found = tmp_path / "f"
        assert found.read_bytes() == b"y" * size
        assert (stat.S_IMODE(found.stat().st_mode), found.stat().st_mtime) == (0o640, 7)


LEADS_OUT = [
    entries((Header(name=b"../out"), b"x")),
    entries((Header(name=b"/out"), b"x")),
    entries((Header(name=b"a/../../out"), b"x")),
    entries(link(b"l", b".."), (Header(name=b"l/out"), b"x")),
    entries(directory(b"d"), link(b"d/l", b"/"), directory(b"d/l/out")),
    entries(link(b"h", b"../secret", b"1")),
    entries(link(b"h", b"/secret", b"1")),
    entries(link(b"old", b"out", b"1")),
    entries(link(b"l", b".."), link(b"h", b"l/secret", b"1")),
    entries(link(b"l", b"../secret"), link(b"h", b"l", b"1")),
    entries(directory(b"there/out")),
    entries(link(b"h", b"mine", b"1")),
]


@pytest.mark.parametrize("tar", LEADS_OUT)
def test_nothing_leads_out(tmp_path: Path, tar: bytes) -> None:
    target = tmp_path / "t"
    target.mkdir()
    (tmp_path / "secret").write_text("whole")
    (tmp_path / "elsewhere").mkdir()
    (target / "there").symlink_to("../elsewhere")
    (target / "mine").write_text("mine")
    with pytest.raises((IntegrityError, StateError)):
        unpack_to(target, tar)
    assert {p.name for p in tmp_path.iterdir()} == {"t", "secret", "elsewhere"}
    assert (tmp_path / "secret").read_text() == "whole"
    assert (tmp_path / "secret").stat().st_nlink == 1
    assert (target / "mine").stat().st_nlink == 1
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_symlink_is_replaced_and_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "t"
    target.mkdir()
    (tmp_path / "victim").write_text("whole")
    (target / "f").symlink_to("../victim")
    unpack_to(
        target,
        entries(link(b"g", b"../victim"), (Header(name=b"g"), b"new"), (Header(name=b"f"), b"new")),
    )
    assert (tmp_path / "victim").read_text() == "whole"
    assert not (target / "f").is_symlink()
    assert ((target / "f").read_text(), (target / "g").read_text()) == ("new", "new")


def test_only_what_was_asked_for_is_made(tmp_path: Path) -> None:
    for name in (b"g", b"ff/x", b".", b"./g"):
        with pytest.raises(IntegrityError):
            unpack_to(tmp_path, entries((Header(name=name), b"x")), "f")
    assert list(tmp_path.iterdir()) == []


def test_files_and_directories_do_not_replace_each_other(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir(mode=0o700)
    (tmp_path / "d/kept").touch()
    (tmp_path / "f").write_text("old")
    with pytest.raises(StateError, match="cannot overwrite a directory"):
        unpack_to(tmp_path, entries((Header(name=b"d"), b"x")))
    with pytest.raises(StateError, match="what is none"):
        unpack_to(tmp_path, entries(directory(b"f")))
    unpack_to(tmp_path, entries(directory(b"d", 0o755), (Header(name=b"d/new"), b"x")))
    assert {p.name for p in (tmp_path / "d").iterdir()} == {"kept", "new"}
    assert stat.S_IMODE((tmp_path / "d").stat().st_mode) == 0o700


def test_a_file_is_replaced_when_it_is_whole(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("old")
    tar = entries((Header(name=b"f"), b"n" * 5000))
    with pytest.raises(IntegrityError, match="too early"):
        unpack_to(tmp_path, tar[:2000])
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"f": "old"}


def test_devices_and_pipes_are_left_out(tmp_path: Path) -> None:
    made = [Header(name=b"n%d" % n, type=b"%d" % kind) for n, kind in enumerate((3, 4, 6))]
    done = unpack_to(tmp_path, entries(*made, (Header(name=b"f"), b"x")))
    assert done.left_out == ("'n0'", "'n1'", "'n2'")
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpack_module, "MAX_FILES", 3)
    with pytest.raises(LimitError, match="3 files"):
        unpack_to(tmp_path, entries(*((Header(name=b"f%d" % n), b"x") for n in range(4))))
    deep = b"/".join([b"d"] * 40)
    monkeypatch.setattr(unpack_module, "_MAX_DEPTH", 30)
    with pytest.raises(LimitError, match="directories"):
        unpack_to(tmp_path, entries(directory(deep)))


def test_wild_times_are_brought_within_bounds(tmp_path: Path) -> None:
    tar = b""
    for name, value in ((b"a", b"9" * 40), (b"b", b"-" + b"9" * 40)):
        record = b" mtime=" + value + b"\n"
        record = b"%d" % (len(record) + 2) + record
        header = Header(name=b"x", type=b"x", size=len(record)).build()
        tar += header + record + bytes(-len(record) % 512) + Header(name=name).build()
    unpack_to(tmp_path, tar + END)
    assert (tmp_path / "a").stat().st_mtime > (tmp_path / "b").stat().st_mtime


def test_only_root_gives_files_away(tmp_path: Path) -> None:
    require_root()
    tmp_path.chmod(0o777)
    shared = Path(tempfile.gettempdir())
    for parent in tmp_path.parents:
        if parent.is_relative_to(shared) and parent != shared:
            parent.chmod(0o755)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.setuid(65534)
            unpack_to(tmp_path, entries((Header(name=b"f", uid=7), b"x")), keep_owner=True)
        except ConfigError as error:
            status = 0 if "--archive" in (error.hint or "") else 2
        except WoodlotError:
            status = 3
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert list(tmp_path.iterdir()) == []
