"""``container system``: what it shows, with a kernel and a choice that are played."""

import json
from pathlib import Path
from types import SimpleNamespace

import click.testing
import pytest

from woodlot.aio.system import System
from woodlot.cli.system import system
from woodlot.container import boot
from woodlot.errors import NotFoundError
from woodlot.kernel import catalog
from woodlot.kernel.catalog import Kernel
from woodlot.paths import Paths
from woodlot.progress import Progress
from woodlot.store.store import Store
from woodlot.vmm.accelerator import Choice
from woodlot.vmm.base import Accelerator
from woodlot.vmm.qemu.machine import QemuVmm


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(data=tmp_path / "data", runtime=tmp_path / "run")


@pytest.fixture
def kernel(paths: Paths, tmp_path: Path) -> Kernel:
    image = tmp_path / "image"
    image.write_bytes(b"x")
    return catalog.install(
        paths, name="debian-1", release="1", arch="amd64", origin="a test", image=image
    )


def run(paths: Paths, *argv: str) -> click.testing.Result:
    runner = click.testing.CliRunner()
    client = SimpleNamespace(paths=paths, system=System(Store(paths)))
    return runner.invoke(system, argv, obj=SimpleNamespace(client=client), catch_exceptions=False)


def test_status(paths: Paths, kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    async def guest_kernel(paths: Paths, progress: Progress) -> tuple[Kernel, Path]:
        return kernel, Path("/x")

    async def accelerator(paths: Paths, progress: Progress) -> Choice:
        return Choice(accelerator=Accelerator.TCG, reason="KVM: it hangs", remembered=True)

    monkeypatch.setattr(boot, "guest_kernel", guest_kernel)
    monkeypatch.setattr(boot, "accelerator", accelerator)
    monkeypatch.setattr(QemuVmm, "version", lambda self: "9.9")
    table = run(paths, "status").stdout
    assert table.startswith("FIELD")
    assert "KVM: it hangs" in table
    fields = json.loads(run(paths, "status", "--format", "json").stdout)
    assert fields["accelerator"] == "tcg"
    assert fields["kernel"] == "debian-1"
    assert fields["qemu"] == "9.9"
    assert fields["ready"] is True


def test_status_tells_what_is_missing(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    def version(self: QemuVmm) -> str:
        raise NotFoundError("no QEMU", hint="install it")

    monkeypatch.setattr(QemuVmm, "version", version)
    done = run(paths, "status", "--format", "json")
    assert done.exit_code == 0
    fields = json.loads(done.stdout)
    assert (fields["ready"], fields["problem"], fields["hint"]) == (False, "no QEMU", "install it")


def test_kernels(paths: Paths, kernel: Kernel, tmp_path: Path) -> None:
    assert run(paths, "kernel", "list", "-q").stdout == "debian-1\n"
    listed = json.loads(run(paths, "kernel", "list", "--format", "json").stdout)
    assert [(one["name"], one["default"]) for one in listed] == [("debian-1", True)]
    assert "NAME" in run(paths, "kernel", "list").stdout
    assert run(paths, "kernel", "set", "debian-1").stdout == "debian-1\n"
    assert run(paths, "kernel", "set").exit_code == 2
    assert run(paths, "kernel", "set", "debian-1", "--recommended").exit_code == 2
