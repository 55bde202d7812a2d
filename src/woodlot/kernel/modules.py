"""Which driver modules a guest needs, and in what order they are loaded."""

import lzma
import struct
from collections.abc import Collection, Mapping, Sequence

from woodlot.errors import IntegrityError, LimitError, UnsupportedError
from woodlot.values import dataclass

MAX_MODULE_BYTES = 64 << 20

# In the order a start needs them: what the agent talks through, what the root filesystem is made of, the rest.
# ext4 and erofs look crc32c up by name at mount time, when nobody would load it for them.
DRIVERS = (
    "virtio_pci", "virtio_console",
    "virtio_blk", "crc32c_generic", "erofs", "overlay", "ext4",
    "virtio_net", "virtio_rng", "af_packet", "ipv6",
    "vmw_vsock_virtio_transport", "virtio_balloon", "fuse", "virtiofs", "virtio_mmio",
)  # fmt: skip
REQUIRED = frozenset(
    {"virtio_pci", "virtio_console", "virtio_blk", "virtio_net", "erofs", "overlay", "ext4"}
)

_COMPRESSION = ("", ".xz", ".zst", ".gz")
_ELF_MAGIC = b"\x7fELF\x02\x01"  # 64 bits, little endian
_ELF_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION_HEADER = struct.Struct("<IIQQQQIIQQ")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleInfo:
    """What a module says of itself in its section ``.modinfo``."""

    depends: tuple[str, ...] = ()
    """Modules whose symbols it uses."""
    soft_before: tuple[str, ...] = ()
    """Modules it wants loaded first, if there are any."""


def load_order(
    available: Mapping[str, ModuleInfo],
    builtin: Collection[str],
    *,
    drivers: Sequence[str] = DRIVERS,
    required: Collection[str] = REQUIRED,
) -> tuple[str, ...]:
    """Names of the modules to load, each after all it depends on.

    Args:
        available: Every module there is, by normalized name.
        builtin: Normalized names of what is in the kernel itself.
        drivers: What to load, in this order as far as dependencies allow.
        required: Those of ``drivers`` a guest cannot do without; the others are left out when this kernel has none.

    Raises:
        UnsupportedError: A required driver is neither a module nor built in.
        IntegrityError: A module depends on one that is not there.
    """
    missing = sorted(name for name in required if name not in available and name not in builtin)
    if missing:
        raise UnsupportedError(
            f"this kernel lacks drivers that a guest needs: {', '.join(missing)}",
            hint="use a kernel with virtio, EROFS, overlayfs and ext4",
        )
    order: dict[str, None] = {}

    def add(name: str, *, wanted_by: str | None, pending: tuple[str, ...]) -> None:
        if name in order or name in builtin or name in pending:
            return
        info = available.get(name)
        if info is None:
            if wanted_by is None:
                return
            raise IntegrityError(f"module {wanted_by} depends on {name}, which is not there")
        for soft in info.soft_before:
            add(soft, wanted_by=None, pending=(*pending, name))
        for dependency in info.depends:
            add(dependency, wanted_by=name, pending=(*pending, name))
        order[name] = None

    for name in drivers:
        add(name, wanted_by=None, pending=())
    return tuple(order)


def normalize(file_name: str) -> str:
    """A module's name as the kernel has it, from a path or file name: ``virtio-rng.ko.xz`` → ``virtio_rng``."""
    stem = file_name.rsplit("/", 1)[-1].split(".ko", 1)[0]
    return stem.replace("-", "_")


def is_module(file_name: str) -> bool:
    """Whether a file of that name is a module, compressed or not."""
    return any(file_name.endswith(f".ko{suffix}") for suffix in _COMPRESSION)


def parse_builtin(text: str) -> frozenset[str]:
    """Normalized names from the file ``modules.builtin``."""
    return frozenset(normalize(line) for line in text.split())


def decompress(file_name: str, data: bytes) -> bytes:
    """The module in ``data``, whatever the end of its name says it is packed with.

    Raises:
        IntegrityError: It is not what its name says.
        LimitError: It unpacks to more than `MAX_MODULE_BYTES`.
    """
    try:
        if file_name.endswith(".xz"):
            unpacked = lzma.LZMADecompressor().decompress(data, MAX_MODULE_BYTES + 1)
        elif file_name.endswith(".zst"):
            import zstandard

            with zstandard.ZstdDecompressor().stream_reader(data) as reader:
                unpacked = reader.read(MAX_MODULE_BYTES + 1)
        elif file_name.endswith(".gz"):
            import zlib

            unpacked = zlib.decompressobj(wbits=31).decompress(data, MAX_MODULE_BYTES + 1)
        else:
            unpacked = data
    except Exception as error:
        if isinstance(error, MemoryError):
            raise
        raise IntegrityError(f"cannot decompress the module {file_name}: {error}") from error
    if len(unpacked) > MAX_MODULE_BYTES:
        raise LimitError(f"the module {file_name} is larger than {MAX_MODULE_BYTES} bytes")
    return unpacked


def parse_modinfo(module: bytes) -> ModuleInfo:
    """What the ELF object ``module`` says of itself.

    Debian's packages carry no ``modules.dep`` (depmod makes it when they are installed), so the modules are asked.

    Raises:
        IntegrityError: It is no 64-bit little-endian ELF file, or a broken one.
    """
    fields = [
        entry.decode("utf-8", "replace").partition("=")
        for entry in _section(module, b".modinfo").split(b"\0")
    ]
    depends: list[str] = []
    before: list[str] = []
    for key, _, value in fields:
        if key == "depends":
            depends += [normalize(name) for name in value.split(",") if name]
        elif key == "softdep" and value.startswith("pre:"):
            before += [normalize(name) for name in value[4:].split(" post:")[0].split()]
    return ModuleInfo(depends=tuple(depends), soft_before=tuple(before))


def _section(elf: bytes, name: bytes) -> bytes:
    if not elf.startswith(_ELF_MAGIC):
        raise IntegrityError("a module is no 64-bit ELF file")
    try:
        header = _ELF_HEADER.unpack_from(elf)
        table, entry_size, count, names_index = (int(header[at]) for at in (6, 11, 12, 13))
        sections = [_section_header(elf, table + index * entry_size) for index in range(count)]
        names = _content(elf, sections[names_index])
    except (struct.error, IndexError) as error:
        raise IntegrityError("a module's ELF headers are broken") from error
    for section in sections:
        start = section[0]
        if names[start : start + len(name) + 1] == name + b"\0":
            return _content(elf, section)
    return b""


def _section_header(elf: bytes, offset: int) -> tuple[int, ...]:
    return _SECTION_HEADER.unpack_from(elf, offset)


def _content(elf: bytes, section: tuple[int, ...]) -> bytes:
    offset, size = section[4], section[5]
    return elf[offset : offset + size]
