"""The command in this process, and a store with some of everything to list."""

import dataclasses
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.unit.container.images import add_image
from tests.unit.container.specs import WEB, quiet
from woodlot.cli.app import run_command
from woodlot.container import state
from woodlot.container.spec import ContainerSpec, Mount
from woodlot.network import network
from woodlot.paths import find_paths
from woodlot.store.locks import open_lock, try_flock, unlock_and_close
from woodlot.store.store import Store
from woodlot.volume import volume

PORTS = tuple(
    {"host_ip": ip, "host_port": 8080, "container_port": 80, "protocol": "tcp"}
    for ip in ("0.0.0.0", "::")
)
LEASE = {
    "network": "default",
    "ip": "10.86.0.2",
    "prefix_length": 24,
    "ip_v6": "",
    "prefix_length_v6": 64,
    "gateway": "10.86.0.1",
    "mac": "52:54:00:00:00:01",
}


class Ran(NamedTuple):
    status: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


class Command:
    """``container``, in this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys

    def __call__(self, *args: str) -> Ran:
        self._monkeypatch.setattr(sys, "argv", ["container", *args])
        return Ran(run_command(), *self._capsys.readouterr())

    def ok(self, *args: str) -> list[str]:
        ran = self(*args)
        assert ran.status == 0, ran.err
        return ran.lines


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(monkeypatch, capsys)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    quiet(monkeypatch, tmp_path)
    # Paths of sockets are short, pytest's directories are not.
    with tempfile.TemporaryDirectory(prefix="wl-") as runtime:
        monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
        monkeypatch.setenv("WOODLOT_ROOT", str(tmp_path / "data"))
        made = Store(find_paths())
        yield made
        made.close()


def add(store: Store, digit: str, name: str, current: state.State, **changes: Any) -> ContainerSpec:
    spec = dataclasses.replace(WEB, id=digit * 64, name=name, **changes)
    store.containers.insert(spec.id, name, spec.to_json(), state.to_json(current))
    return spec


@pytest.fixture
def world(store: Store) -> Iterator[Store]:
    """A container of each state, and what they use."""
    now = time.time()
    add_image(store, "busybox:1.35", {"ExposedPorts": {"53/udp": {}}, "Labels": {"tier": "base"}})
    add_image(store, "reg.example:5000/team/app:2", {"Cmd": ["app"]})
    network.create(store, "back", labels={"tier": "back"})
    volume.create(store, "data", labels={"keep": ""})
    volume.create(store, "spare")
    busybox = store.images.get("docker.io/library/busybox:1.35")
    assert busybox is not None
    running = state.Running(
        started_at=now - 200, vm_pid=77, accelerator="tcg", ip="10.86.0.2", networks=(LEASE,), ports=PORTS,
        health=state.Health(status="unhealthy", failing_streak=4),
    )  # fmt: skip
    web = add(store, "a", "web", running, created_at=now - 300, image_digest=busybox.digest)
    mounts = (
        Mount(type="volume", source="data", destination="/var/lib/a-database"),
        Mount(type="bind", source="/srv/with-a-long-name", destination="/srv"),
    )
    add(
        store, "b", "db", state.Stopped(exit_code=3, finished_at=now - 7300, started_at=now - 9000),
        created_at=now - 9000, mounts=mounts, networks=(), labels={"tier": "back"},
    )  # fmt: skip
    add(store, "c", "web-2", state.Created(), created_at=now - 100, networks=(), ports=())
    lock = open_lock(store.paths.container(web.id) / "lock")
    assert try_flock(lock)
    yield store
    unlock_and_close(lock)
