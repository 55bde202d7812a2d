"""Modules: what they say of themselves, and the order they are loaded in."""

import contextlib
import gzip
import lzma

import pytest
import zstandard

from tests.unit.kernel.conftest import make_module
from woodlot.errors import IntegrityError, UnsupportedError
from woodlot.kernel import modules
from woodlot.kernel.modules import ModuleInfo, load_order


def info(*depends: str, before: tuple[str, ...] = ()) -> ModuleInfo:
    return ModuleInfo(depends=depends, soft_before=before)


def test_dependencies_come_first_and_once() -> None:
    available = {
        "console": info("virtio", "ring"),
        "ring": info("virtio"),
        "virtio": info(),
        "blk": info("virtio"),
        "other": info("missing"),
    }
    order = load_order(available, (), drivers=("console", "blk"), required={"console", "blk"})
    assert order == ("virtio", "ring", "console", "blk")


def test_what_is_built_in_is_not_loaded() -> None:
    available, builtin = {"blk": info("virtio")}, {"virtio", "console"}
    assert load_order(available, builtin, drivers=("console", "blk"), required=()) == ("blk",)


def test_soft_dependencies_are_loaded_if_they_are_there() -> None:
    available = {"fs": info(before=("crc", "absent")), "crc": info()}
    assert load_order(available, (), drivers=("fs",), required={"fs"}) == ("crc", "fs")


def test_a_circle_ends() -> None:
    available = {"a": info("b"), "b": info("a")}
    assert load_order(available, (), drivers=("a",), required={"a"}) == ("b", "a")


def test_an_optional_driver_may_be_missing_a_required_one_not() -> None:
    assert load_order({}, (), drivers=("nice",), required=()) == ()
    with pytest.raises(UnsupportedError, match=r"lacks drivers.*: blk, fs"):
        load_order({}, (), drivers=("fs", "blk"), required={"fs", "blk"})


def test_a_missing_dependency_is_told() -> None:
    with pytest.raises(IntegrityError, match="module fs depends on lib"):
        load_order({"fs": info("lib")}, (), drivers=("fs",), required={"fs"})


def test_what_a_module_says() -> None:
    module = make_module(depends="virtio,virtio-ring", softdep="pre: crc32c-x lz4 post: later")
    assert modules.parse_modinfo(module) == ModuleInfo(
        depends=("virtio", "virtio_ring"), soft_before=("crc32c_x", "lz4")
    )
    assert modules.parse_modinfo(make_module()) == ModuleInfo()


@pytest.mark.parametrize("size", [0, 3, 20, 63, 100])
def test_a_broken_module_is_refused(size: int) -> None:
    with pytest.raises(IntegrityError):
        modules.parse_modinfo(make_module(depends="virtio")[:size])


@pytest.mark.parametrize("position", range(0, 64, 3))
def test_a_damaged_header_does_no_harm(position: int) -> None:
    module = bytearray(make_module(depends="virtio"))
    module[position] ^= 0xFF
    with contextlib.suppress(IntegrityError):
        modules.parse_modinfo(bytes(module))


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("kernel/drivers/char/hw_random/virtio-rng.ko", "virtio_rng"),
        ("erofs.ko.xz", "erofs"),
        ("fuse.ko.zst", "fuse"),
    ],
)
def test_names(path: str, name: str) -> None:
    assert modules.is_module(path)
    assert modules.normalize(path) == name


def test_the_builtin_list() -> None:
    assert modules.parse_builtin("kernel/a/b-c.ko\nkernel/d.ko\n") == {"b_c", "d"}


def test_decompression(monkeypatch: pytest.MonkeyPatch) -> None:
    data = b"module" * 1000
    packed = {
        "a.ko": data,
        "a.ko.xz": lzma.compress(data),
        "a.ko.zst": zstandard.compress(data),
        "a.ko.gz": gzip.compress(data),
    }
    for name, content in packed.items():
        assert modules.decompress(name, content) == data
    for name in ("a.ko.xz", "a.ko.zst", "a.ko.gz"):
        with pytest.raises(IntegrityError):
            modules.decompress(name, b"nonsense that is long enough")
    monkeypatch.setattr(modules, "MAX_MODULE_BYTES", 100)
    for name, content in packed.items():
        with pytest.raises(Exception, match="larger than 100 bytes"):
            modules.decompress(name, content)
