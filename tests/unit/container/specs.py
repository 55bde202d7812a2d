"""Containers to test with."""

import os
from pathlib import Path

import pytest

from woodlot import settings
from woodlot.container.spec import (
    ContainerSpec,
    DnsSpec,
    NetworkSpec,
    PortSpec,
    ProcessSpec,
    Rlimit,
    Tmpfs,
)
from woodlot.units import GIB, MIB

WEB = ContainerSpec(
    id="ab" * 32,
    name="web",
    image="docker.io/library/busybox:1.35",
    image_digest="sha256:" + "cd" * 32,
    platform="linux/amd64",
    rootfs="/data/rootfs/1.erofs",
    process=ProcessSpec(
        args=("sh", "-c", "echo é"),
        env=("PATH=/bin", "A=b=c"),
        cwd="/srv",
        user="www:staff",
        tty=True,
        stdin=True,
        capabilities=("CAP_CHOWN", "CAP_KILL"),
        rlimits=(Rlimit(type="nofile", soft=99, hard=2**64 - 1),),
        init=True,
    ),
    cpus=1.5,
    memory_bytes=200 * MIB,
    disk_bytes=16 * MIB,
    hostname="ab" * 6,
    networks=(NetworkSpec(network="default", aliases=("www",)), NetworkSpec(network="back")),
    ports=(PortSpec(container_port=80, host_ip="127.0.0.1", host_port=8080),),
    dns=DnsSpec(search=("corp",), options=("ndots:2",), hosts=(("db", "192.0.2.7"),)),
    read_only=True,
    tmpfs=(Tmpfs(destination="/a/b"), Tmpfs(destination="/a", options=("size=1m", "exec"))),
    shm_bytes=1 * GIB,
    labels={"tier": "front", "empty": ""},
    cap_add=("ALL",),
    cap_drop=("CAP_BPF",),
    kernel="/boot/vmlinuz",
    kernel_args=("debug",),
    remove=False,
    stop_signal="SIGQUIT",
    created_at=1.5e9,
)


def held_files(directory: Path) -> list[str]:
    """The files below a directory that this process has open, also those that are removed by now."""
    links = [str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    return [link for link in links if link.startswith(f"{directory}/")]


def quiet(monkeypatch: pytest.MonkeyPatch, directory: Path) -> None:
    """No settings of whoever runs the tests."""
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    for name in os.environ:
        if name.startswith(("WOODLOT_", "CONTAINER_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(directory / "xdg"))
    settings._file_values.cache_clear()
