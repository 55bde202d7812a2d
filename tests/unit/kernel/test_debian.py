"""Debian's kernel: its package, and apt, which is played by scripts."""

import os
from pathlib import Path

import pytest

from tests.programs import python_shebang
from tests.unit.kernel.conftest import RELEASE, kernel_files, make_bzimage, make_deb
from woodlot.errors import IntegrityError, LimitError, NotFoundError, UnsupportedError, WoodlotError
from woodlot.kernel import catalog, deb, debian
from woodlot.paths import Paths

ORDER = [
    "virtio.ko", "virtio_ring.ko", "virtio_pci.ko", "virtio_console.ko", "virtio_blk.ko", "lz4_test.ko",
    "erofs.ko", "overlay.ko", "virtio_net.ko", "virtio_rng.ko",
]  # fmt: skip

# A host whose lists hold a metapackage and an image; "download" copies what lies beside the script.
APT_CACHE = """
if "--fresh-only" in config and not any("Dir::State=" in a for a in sys.argv): sys.exit("E: No packages found")
name = sys.argv[-1].split(":")[0]
if name not in packages: sys.exit("E: No packages found")
print(f"Package: {name}\\nVersion: 6.1\\nSize: 1000\\nDescription: x\\n more: y\\nDepends: {packages[name]}\\n\\nPackage: z")
"""
APT_GET = """
if "update" in sys.argv:
    open(here / "updated", "a").write(" ".join(sys.argv)); sys.exit()
if "--stale" in config and not any("Dir::State=" in a for a in sys.argv): sys.exit("E: 404 Not Found")
for part in [a for a in sys.argv if "=6.1" in a]:
    name = part.split(":")[0]
    shutil.copy(here / f"{name}.deb", f"{name}_6.1_amd64.deb")
"""


class Host:
    """apt-get and apt-cache on PATH."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        directory.mkdir()
        self.directory = directory
        monkeypatch.setenv("PATH", f"{directory}{os.pathsep}{os.environ['PATH']}")
        self.configure()
        self.provide(kernel_files())

    def provide(self, files: dict[str, bytes]) -> None:
        (self.directory / f"linux-image-{RELEASE}.deb").write_bytes(make_deb(files))

    def configure(self, *config: str, packages: dict[str, str] | None = None) -> None:
        known = packages or {
            "linux-image-cloud-amd64": f"linux-image-{RELEASE} (= 6.1)",
            f"linux-image-{RELEASE}": "kmod, linux-base (>= 4.3~), initramfs-tools | linux-initramfs-tool",
        }
        prelude = (
            f"{python_shebang()}import shutil, sys\nfrom pathlib import Path\n"
            f"here = Path({str(self.directory)!r}); config = {config!r}; packages = {known!r}\n"
        )
        for name, body in (("apt-cache", APT_CACHE), ("apt-get", APT_GET)):
            path = self.directory / name
            path.write_text(prelude + body)
            path.chmod(0o755)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(tmp_path / "bin", monkeypatch)


class Told:
    """A `Progress` that remembers."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []

    def start(self, key: str, label: str, *, total: int | None = None) -> None:
        self.calls.append(("start", f"{key} {label} {total}"))

    def advance(self, key: str, amount: int) -> None:
        pass

    def finish(self, key: str, note: str = "") -> None:
        self.calls.append(("finish", f"{key} {note}"))


def test_it_is_fetched_once(host: Host, paths: Paths) -> None:
    told = Told()
    kernel = debian.ensure_default(paths, "amd64", told)
    assert kernel.name == "debian-6.1.0-1-cloud-amd64"
    assert kernel.release == RELEASE
    assert kernel.origin == f"linux-image-{RELEASE} 6.1"
    assert [module.name for module in kernel.modules] == ORDER
    assert kernel.image.read_bytes() == make_bzimage()
    assert told.calls[0][0] == "start"
    assert told.calls[-1] == ("finish", "kernel ")
    (host.directory / "apt-get").unlink()
    assert debian.ensure_default(paths, "amd64") == kernel


def test_lists_that_are_missing_or_old_are_made_anew(host: Host, paths: Paths) -> None:
    for config in ("--fresh-only", "--stale"):
        host.configure(config)
        assert debian.fetch(paths, "amd64").release == RELEASE
        command = (host.directory / "updated").read_text()
        assert "APT::Architectures=amd64" in command
        assert "AllowInsecureRepositories=false" in command
        (host.directory / "updated").unlink()


def test_no_such_package(host: Host, paths: Paths) -> None:
    host.configure(packages={"other": ""})
    with pytest.raises(NotFoundError, match="no package linux-image-cloud-amd64") as caught:
        debian.fetch(paths, "amd64")
    assert "--binary" in (caught.value.hint or "")


def test_a_host_without_apt(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(NotFoundError) as caught:
        debian.fetch(paths, "amd64")
    assert caught.value.hint == "give a kernel yourself: container system kernel set --binary PATH"


@pytest.mark.parametrize("name", ["", "-o=x", "a b", "../x"])
def test_the_setting_names_a_package(
    host: Host, paths: Paths, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("WOODLOT_KERNEL_PACKAGE", name)
    with pytest.raises(NotFoundError, match=r"kernel\.package"):
        debian.fetch(paths, "amd64")


def test_modules_in_a_package_of_their_own(host: Host, paths: Paths) -> None:
    files = kernel_files()
    image = {name: data for name, data in files.items() if "boot/vmlinuz" in name}
    host.provide(image)
    (host.directory / f"linux-modules-{RELEASE}.deb").write_bytes(
        make_deb({n: d for n, d in files.items() if n not in image}, compression="zst")
    )
    host.configure(
        packages={
            "linux-image-cloud-amd64": f"linux-image-{RELEASE}, linux-headers",
            f"linux-image-{RELEASE}": f"kmod, linux-modules-{RELEASE}",
            f"linux-modules-{RELEASE}": "",
        }
    )
    assert [module.name for module in debian.fetch(paths, "amd64").modules] == ORDER


def test_a_failure_leaves_nothing(host: Host, paths: Paths) -> None:
    host.provide({"./boot/vmlinuz-1": b"x"})
    with pytest.raises(UnsupportedError, match="lacks drivers"):
        debian.fetch(paths, "amd64")
    host.provide({"./etc/passwd": b"x"})
    with pytest.raises(IntegrityError, match="no kernel"):
        debian.fetch(paths, "amd64")
    assert catalog.list_kernels(paths) == ()


def unpack(tmp_path: Path, package: bytes) -> deb.Unpacked:
    path, into = tmp_path / "x.deb", tmp_path / "into"
    path.write_bytes(package)
    into.mkdir()
    found = deb.Unpacked()
    deb.unpack(path, into, found)
    return found


@pytest.mark.parametrize("compression", ["xz", "zst", "none"])
def test_a_package_is_unpacked(tmp_path: Path, compression: str) -> None:
    found = unpack(tmp_path, make_deb(kernel_files(), compression=compression))
    assert found.release == RELEASE
    assert found.builtin == {"ext4", "crc32c_generic"}
    assert "virtio_pci" in found.modules
    assert {path.parent for path in found.modules.values()} == {tmp_path / "into"}


@pytest.mark.parametrize(
    "name",
    [
        "../../boot/vmlinuz-1",
        "/boot/vmlinuz-1",
        "./boot/vmlinuz-../../x",
        "./lib/modules/1/../../../etc/x.ko",
        "./boot/../lib/modules/1/kernel/x.ko",
    ],
)
def test_nothing_lands_outside(tmp_path: Path, name: str) -> None:
    unpack(tmp_path, make_deb({name: b"hostile"}))
    outside = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "x.deb"]
    assert all(path.parent == tmp_path / "into" for path in outside)


@pytest.mark.parametrize(
    "package",
    [
        b"",
        b"!<arch>\n",
        b"not a package at all",
        make_deb({"a": b"b"})[:200],
        make_deb({"a": b"b"})[:-40],
        make_deb({"a": b"b"}, compression="zst")[:-20],
        make_deb({"a": b"b"}).replace(b"data.tar.xz", b"data.tar.lz"),
        make_deb({"a": b"b"}).replace(b"data.tar.xz ", b"data.tar.zst"),
        make_deb({"a": b"b"}).replace(b"2.0\n", b"2.0\n")[:70] + b"x" * 300,
    ],
)
def test_broken_packages_are_refused(tmp_path: Path, package: bytes) -> None:
    with pytest.raises(IntegrityError):
        unpack(tmp_path, package)


def test_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deb, "MAX_IMAGE_BYTES", 10)
    with pytest.raises(LimitError, match="larger than 10"):
        unpack(tmp_path, make_deb(kernel_files()))


def test_the_control_file() -> None:
    text = "\nA: 1\nB: two: three\n continued\nA: later\n\nC: other paragraph\n"
    assert debian.parse_control(text) == {"A": "1", "B": "two: three"}


def test_apt_that_fails_tells_its_words(host: Host, paths: Paths) -> None:
    path = host.directory / "apt-get"
    path.write_text("#!/bin/sh\necho 'E: the disk is full' >&2; exit 100\n")
    with pytest.raises(WoodlotError) as caught:
        debian.fetch(paths, "amd64")
    assert "the disk is full" in (caught.value.details or "")
