"""The initial RAM filesystem, read back."""

import io
import os
import shutil
import stat
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.programs import skip_or_fail
from woodlot.errors import NotFoundError
from woodlot.kernel import initramfs
from woodlot.kernel.catalog import Kernel
from woodlot.kernel.initramfs import AgentBinaries, Entry
from woodlot.paths import Paths


@dataclass(frozen=True)
class Member:
    mode: int
    device: tuple[int, int]
    data: bytes


def read_cpio(data: bytes) -> dict[str, Member]:
    """A reader of its own, by the kernel's description of the format."""
    members: dict[str, Member] = {}
    at = 0
    while True:
        assert data[at : at + 6] == b"070701"
        fields = [int(data[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        mode, size, device, name_size = fields[1], fields[6], (fields[9], fields[10]), fields[11]
        name = data[at + 110 : at + 110 + name_size - 1].decode()
        at = (at + 110 + name_size + 3) & ~3
        if name == "TRAILER!!!":
            return members
        assert name not in members
        members[name] = Member(mode, device, data[at : at + size])
        at = (at + size + 3) & ~3


@pytest.fixture
def binaries(tmp_path: Path) -> AgentBinaries:
    agent, launch = tmp_path / "agent-amd64", tmp_path / "launch-amd64"
    agent.write_bytes(b"the agent")
    watchfs = tmp_path / "watchfs-amd64"
    launch.write_bytes(b"launches")
    watchfs.write_bytes(b"watches")
    return AgentBinaries(agent=agent, launch=launch, watchfs=watchfs)


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    modules: list[Path] = []
    for name in ("virtio", "virtio_pci"):
        path = tmp_path / f"{name}.ko"
        path.write_bytes(name.encode() * 3)
        modules.append(path)
    return Kernel(
        name="debian-1",
        release="1",
        arch="amd64",
        origin="a test",
        image=tmp_path / "vmlinuz",
        sha256="0" * 64,
        modules=tuple(modules),
    )


def test_it_holds_what_the_agent_expects(
    paths: Paths, kernel: Kernel, binaries: AgentBinaries
) -> None:
    path = initramfs.ensure_initramfs(paths, kernel, binaries)
    assert path.parent == paths.initramfs
    members = read_cpio(path.read_bytes())
    assert members["init"] == Member(stat.S_IFREG | 0o755, (0, 0), b"the agent")
    assert members["launch"].data == b"launches"
    assert members["modules/load"].data == b"virtio.ko\nvirtio_pci.ko\n"
    assert members["modules/virtio.ko"].data == b"virtiovirtiovirtio"
    assert members["dev/console"] == Member(stat.S_IFCHR | 0o600, (5, 1), b"")
    for name in ("dev", "proc", "sys", "run", "tmp", "modules"):
        assert stat.S_ISDIR(members[name].mode)
    names = list(members)
    assert names.index("dev") < names.index("dev/console")


def test_the_same_inputs_give_the_same_bytes(kernel: Kernel, binaries: AgentBinaries) -> None:
    def write() -> bytes:
        stream = io.BytesIO()
        initramfs.write_cpio(stream, initramfs.build_entries(kernel, binaries))
        return stream.getvalue()

    first = write()
    os.utime(binaries.agent, (1, 1))
    binaries.agent.chmod(0o600)
    assert write() == first
    assert len(first) % 512 == 0


@pytest.mark.parametrize("size", range(9))
def test_padding(size: int) -> None:
    stream = io.BytesIO()
    entries = [Entry(name="n" * (size + 1), mode=stat.S_IFREG | 0o644, data=b"x" * size)] * 1
    initramfs.write_cpio(stream, [*entries, Entry(name="last", mode=stat.S_IFREG, data=b"end")])
    members = read_cpio(stream.getvalue())
    assert members["n" * (size + 1)].data == b"x" * size
    assert members["last"].data == b"end"


def test_cpio_reads_it(paths: Paths, kernel: Kernel, binaries: AgentBinaries) -> None:
    if shutil.which("cpio") is None:
        skip_or_fail("cpio is not installed")
    path = initramfs.ensure_initramfs(paths, kernel, binaries)
    with path.open("rb") as stream:
        listed = subprocess.run(["cpio", "-t", "--quiet"], stdin=stream, capture_output=True, text=True, check=True)  # fmt: skip
    assert set(listed.stdout.split()) == set(read_cpio(path.read_bytes()))


def test_it_is_made_once(paths: Paths, kernel: Kernel, binaries: AgentBinaries) -> None:
    first = initramfs.ensure_initramfs(paths, kernel, binaries)
    inode = first.stat().st_ino
    found: list[Path] = []
    threads = [
        threading.Thread(
            target=lambda: found.append(initramfs.ensure_initramfs(paths, kernel, binaries))
        )
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [first] * 4
    assert first.stat().st_ino == inode


def test_another_agent_is_another_archive(
    paths: Paths, kernel: Kernel, binaries: AgentBinaries
) -> None:
    first = initramfs.ensure_initramfs(paths, kernel, binaries)
    binaries.agent.write_bytes(b"a new agent")
    second = initramfs.ensure_initramfs(paths, kernel, binaries)
    assert second != first
    assert read_cpio(second.read_bytes())["init"].data == b"a new agent"
    # Another process may be about to use the first; a day later nobody is.
    assert first.exists()
    long_ago = time.time() - 2 * 24 * 3600
    os.utime(first, (long_ago, long_ago))
    (paths.initramfs / ".new-left").touch()
    binaries.agent.write_bytes(b"a newer agent still")
    initramfs.ensure_initramfs(paths, kernel, binaries)
    assert not first.exists()
    assert not list(paths.initramfs.glob(".new-*"))


def test_no_agent_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(initramfs, "__file__", str(tmp_path / "kernel/initramfs.py"))
    with pytest.raises(NotFoundError) as caught:
        initramfs.find_agent_binaries("amd64")
    assert "make setup" in (caught.value.hint or "")
    (tmp_path / "guest/bin").mkdir(parents=True)
    for name in ("agent-amd64", "launch-amd64", "watchfs-amd64"):
        (tmp_path / "guest/bin" / name).touch()
    assert initramfs.find_agent_binaries("amd64").agent.name == "agent-amd64"
