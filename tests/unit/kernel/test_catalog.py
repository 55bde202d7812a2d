"""The catalogue of kernels, and kernels given as files."""

import threading
from pathlib import Path

import pytest

from tests.unit.kernel.conftest import make_arm64_image, make_bzimage
from woodlot.errors import ConfigError, IntegrityError, NotFoundError, UnsupportedError
from woodlot.kernel import catalog, custom
from woodlot.kernel.catalog import Kernel
from woodlot.paths import Paths


def install(paths: Paths, name: str, *, release: str = "6.1.0", arch: str = "amd64") -> Kernel:
    source = paths.data / "source"
    source.mkdir(parents=True, exist_ok=True)
    image, module = source / "image", source / "b.ko"
    image.write_bytes(name.encode())
    module.write_bytes(b"module")
    return catalog.install(
        paths,
        name=name,
        release=release,
        arch=arch,
        origin="a test",
        image=image,
        modules=[module],
        cmdline=["one=1"],
    )


def test_what_is_installed_is_found_again(paths: Paths) -> None:
    kernel = install(paths, "debian-1")
    assert catalog.list_kernels(paths) == (kernel,)
    assert catalog.load(paths, "debian-1") == kernel
    assert kernel.image.read_bytes() == b"debian-1"
    assert [module.name for module in kernel.modules] == ["b.ko"]
    assert kernel.modules[0].read_bytes() == b"module"
    assert kernel.cmdline == ("one=1",)


def test_nothing_there(paths: Paths) -> None:
    assert catalog.list_kernels(paths) == ()
    assert catalog.default_kernel(paths, "amd64") is None
    assert catalog.chosen_name(paths, "amd64") is None
    with pytest.raises(NotFoundError):
        catalog.load(paths, "debian-1")


def test_which_is_the_default(paths: Paths) -> None:
    def default(arch: str = "amd64") -> str | None:
        kernel = catalog.default_kernel(paths, arch)
        return kernel.name if kernel else None

    install(paths, "custom-1")
    assert default() is None
    install(paths, "debian-9", release="6.1.0-9-cloud")
    install(paths, "debian-56", release="6.1.0-56-cloud")
    assert default() == "debian-56"
    install(paths, "woodlot-1", release="5.10.0")
    assert default() == "woodlot-1"
    assert default("arm64") is None
    catalog.set_default(paths, catalog.load(paths, "custom-1"))
    assert default() == "custom-1"
    catalog.set_default(paths, catalog.load(paths, "debian-9"))
    assert default() == "debian-9"
    catalog.unset_default(paths, "amd64")
    assert default() == "woodlot-1"


def test_a_default_that_was_removed_counts_as_not_set(paths: Paths) -> None:
    install(paths, "debian-1")
    catalog.set_default(paths, install(paths, "custom-1"))
    for path in sorted((paths.kernels / "custom-1").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    assert catalog.chosen_name(paths, "amd64") == "custom-1"
    found = catalog.default_kernel(paths, "amd64")
    assert found is not None
    assert found.name == "debian-1"


def test_a_kernel_is_replaced(paths: Paths) -> None:
    first = install(paths, "debian-1", release="1")
    assert install(paths, "debian-1", release="2").release == "2"
    assert first.image.exists()
    assert not list(paths.kernels.glob(".install-*"))


def test_many_install_the_same(paths: Paths) -> None:
    install(paths, "debian-1")
    threads = [threading.Thread(target=install, args=(paths, "debian-1")) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(catalog.list_kernels(paths)) == 1


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "A", ".hidden", "x" * 200])
def test_names_stay_inside(paths: Paths, name: str) -> None:
    with pytest.raises(ConfigError):
        install(paths, name)
    with pytest.raises(NotFoundError):
        catalog.load(paths, name)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"modules": 3}'])
def test_a_damaged_manifest_is_told_and_left_out(paths: Paths, text: str) -> None:
    kernel = install(paths, "debian-1")
    (kernel.image.parent / "manifest.json").write_text(text)
    with pytest.raises(IntegrityError, match="debian-1"):
        catalog.load(paths, "debian-1")
    assert catalog.list_kernels(paths) == ()


def test_a_manifest_names_no_file_outside(paths: Paths) -> None:
    kernel = install(paths, "debian-1")
    manifest = kernel.image.parent / "manifest.json"
    manifest.write_text(manifest.read_text().replace("b.ko", "../../../etc/passwd"))
    assert catalog.load(paths, "debian-1").modules[0].parent == kernel.image.parent / "modules"


def test_architectures() -> None:
    assert catalog.parse_arch("x86_64") == "amd64"
    assert catalog.parse_arch("AARCH64") == "arm64"
    with pytest.raises(UnsupportedError):
        catalog.parse_arch("riscv64")


def test_a_kernel_file(tmp_path: Path, paths: Paths) -> None:
    path = tmp_path / "bzImage"
    path.write_bytes(make_bzimage())
    kernel = custom.from_file(path)
    assert (kernel.arch, kernel.release) == ("amd64", "6.1.0-test")
    assert kernel.image == path
    assert kernel.modules == ()
    installed = custom.install_file(paths, path)
    path.unlink()
    assert installed.image.exists()
    assert catalog.default_kernel(paths, "amd64") == installed


def test_an_arm64_image(tmp_path: Path) -> None:
    path = tmp_path / "Image"
    path.write_bytes(make_arm64_image())
    assert (custom.from_file(path).arch, custom.from_file(path).release) == ("arm64", "6.1.0-arm")


def test_a_kernel_of_another_architecture_is_refused(tmp_path: Path, paths: Paths) -> None:
    path = tmp_path / "Image"
    path.write_bytes(make_arm64_image())
    with pytest.raises(ConfigError, match="for arm64, not for amd64"):
        custom.install_file(paths, path, arch="amd64")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no Linux kernel"),
        (b"hello" * 1000, "no Linux kernel"),
        (b"\x7fELF" + bytes(5000), "ELF"),
        (b"\x1f\x8b" + bytes(5000), "compressed"),
    ],
)
def test_what_is_no_kernel(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=words):
        custom.from_file(path)


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        custom.from_file(tmp_path / "none")
