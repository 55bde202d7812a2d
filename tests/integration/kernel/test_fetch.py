"""Debian's kernel through the host's real apt."""

from pathlib import Path

import pytest

from tests.programs import require_programs, skip_or_fail
from woodlot.errors import NotFoundError, WoodlotError
from woodlot.kernel import catalog, debian
from woodlot.paths import Paths

pytestmark = pytest.mark.slow


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    require_programs("apt-get", "apt-cache")
    return Paths(data=tmp_path / "data", runtime=tmp_path / "run")


@pytest.mark.parametrize("arch", ["amd64", "arm64"])
def test_for_either_architecture_without_the_hosts_lists(
    paths: Paths, monkeypatch: pytest.MonkeyPatch, arch: str
) -> None:
    """As on a host that knows only its own architecture, or has never fetched its lists."""
    empty = paths.data / "lists"
    (empty / "partial").mkdir(parents=True)
    signed = (*debian._SIGNED, "-o", f"Dir::State::lists={empty}")
    monkeypatch.setattr(debian, "_SIGNED", signed)
    private = debian._private_state

    def private_state(arch: str, directory: Path) -> tuple[str, ...]:
        # Later options win: these are the lists of the second try.
        return (*private(arch, directory), "-o", f"Dir::State::lists={directory}/state/lists")

    monkeypatch.setattr(debian, "_private_state", private_state)
    try:
        kernel = debian.fetch(paths, arch)
    except NotFoundError as error:
        skip_or_fail(f"no package source to fetch from: {error.message} {error.details}")
    except WoodlotError as error:
        skip_or_fail(f"{error.message} {error.details}")
    assert kernel.arch == arch
    assert catalog.default_kernel(paths, arch) == kernel
    names = [module.name for module in kernel.modules]
    assert names.index("virtio.ko") < names.index("virtio_pci.ko") < names.index("virtio_blk.ko")
    assert {"virtio_console.ko", "erofs.ko", "overlay.ko"} <= set(names)
