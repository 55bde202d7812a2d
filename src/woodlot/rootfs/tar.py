"""Entries of a tar stream, each with the way to its data.

Reads v7, ustar, pax (POSIX.1-2001) and GNU tar in one pass without seeking. Where the formats leave room, this
reader decides as Go's archive/tar does, because that is what made and unpacked most images: header-only types
carry no data whatever their size field says, two zero blocks or the end of the stream end the archive, and what
follows them is ignored.

Sources: POSIX.1-2017 pax, "ustar Interchange Format" and "pax Interchange Format"; GNU tar manual, "Basic Tar
Format" and "Storing Sparse Files"; star(5) for ``SCHILY.*``, libarchive's tar(5) for ``LIBARCHIVE.*``.
"""

import base64
import binascii
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass  # noqa: TID251 - one is made for each entry of an archive
from enum import Enum, auto
from functools import lru_cache
from urllib.parse import unquote_to_bytes

from woodlot.errors import IntegrityError, UnsupportedError
from woodlot.rootfs import sparse

BLOCK_BYTES = 512
_ZERO_BLOCK = bytes(BLOCK_BYTES)
# name mode uid gid size mtime chksum typeflag linkname magic+version uname gname devmajor devminor prefix
_HEADER = struct.Struct("100s8s8s8s12s12s8sc100s8s64x8s8s155s12x")
# A long name, a pax header or a sparse map larger than this is no tar of this world (Go has the same limit).
_MAX_SPECIAL_BYTES = 1 << 20
# Global records are looked at again for each entry.
_MAX_GLOBAL_BYTES = 64 << 10
_NS_PER_S = 1_000_000_000
_ADLER_MODULUS = 65521


class Kind(Enum):
    """What an entry makes."""

    FILE = auto()
    DIRECTORY = auto()
    SYMLINK = auto()
    HARD_LINK = auto()
    CHARACTER_DEVICE = auto()
    BLOCK_DEVICE = auto()
    FIFO = auto()


_DESCRIBES_NEXT = frozenset((b"x", b"X", b"g", b"L", b"K"))
_KINDS = {
    b"0": Kind.FILE,
    b"\0": Kind.FILE,
    b"7": Kind.FILE,
    b"S": Kind.FILE,
    b"1": Kind.HARD_LINK,
    b"2": Kind.SYMLINK,
    b"3": Kind.CHARACTER_DEVICE,
    b"4": Kind.BLOCK_DEVICE,
    b"5": Kind.DIRECTORY,
    b"6": Kind.FIFO,
}


@dataclass(slots=True)
class TarEntry:
    """One entry; names are bytes as they stand in the archive, not cleaned.

    Attributes:
        mode: Permission bits, without the file type.
        size: Bytes of a file, holes included; 0 for everything else.
        mtime_s: Seconds since 1970, negative before.
        mtime_ns: Nanoseconds to add, 0 to 999999999.
        link: Target of a symbolic or hard link.
        xattrs: Extended attributes by full name, if there are any.
        segments: Where the data of a sparse file lies: (offset, length), ascending; None for all other files.
    """

    name: bytes
    kind: Kind
    mode: int
    uid: int
    gid: int
    size: int
    mtime_s: int
    mtime_ns: int
    link: bytes
    dev_major: int
    dev_minor: int
    xattrs: dict[bytes, bytes] | None
    segments: list[tuple[int, int]] | None


class _Told:
    """What headers have said about the entry that follows them."""

    __slots__ = ("link", "name", "pairs", "pax")

    def __init__(self) -> None:
        self.pax: dict[bytes, bytes] | None = None
        self.pairs: list[tuple[int, int]] | None = None
        self.name: bytes | None = None
        self.link: bytes | None = None

    @property
    def anything(self) -> bool:
        return any(told is not None for told in (self.pax, self.name, self.link))


class TarReader:
    """Iterates the entries of one archive; the data of the current one is had with `pieces`.

    Args:
        chunks: The archive in pieces of any size but 0.
        what: Name of the archive, for errors.
    """

    def __init__(self, chunks: Iterator[bytes], what: str) -> None:
        self._chunks = chunks
        self._what = what
        self._chunk: bytes = b""
        self._view = memoryview(b"")
        self._position = 0
        self._left = 0  # data of the current entry not read yet
        self._padding = 0
        self._global: dict[bytes, bytes] = {}
        self._global_bytes = 0

    def __iter__(self) -> Iterator[TarEntry]:
        """The entries in order; data not read is skipped."""
        while True:
            entry = self._next()
            if entry is None:
                return
            yield entry

    def pieces(self, size: int) -> Iterator[memoryview]:
        """The next ``size`` bytes of the current entry's data, valid until the next call."""
        self._left -= size
        while size:
            available = len(self._chunk) - self._position
            if not available:
                self._load()
                continue
            amount = min(size, available)
            start = self._position
            self._position = start + amount
            size -= amount
            yield self._view[start : start + amount]

    def drain(self) -> None:
        """Read to the end of the stream, so that its source can check it as a whole."""
        self._chunk = b""
        self._view = memoryview(b"")
        self._position = 0
        for _ in self._chunks:
            pass

    def _load(self) -> None:
        chunk = next(self._chunks, None)
        if chunk is None:
            raise IntegrityError(f"{self._what}: the tar archive ends too early")
        self._chunk = chunk
        self._view = memoryview(chunk)
        self._position = 0

    def _take(self, size: int) -> bytes:
        end = self._position + size
        if end <= len(self._chunk):
            data = self._chunk[self._position : end]
            self._position = end
            return data
        parts: list[bytes] = []
        while size:
            if self._position == len(self._chunk):
                self._load()
            part = self._chunk[self._position : self._position + size]
            self._position += len(part)
            size -= len(part)
            parts.append(part)
        return b"".join(parts)

    def _skip(self, size: int) -> None:
        while size:
            amount = min(size, len(self._chunk) - self._position)
            self._position += amount
            size -= amount
            if size:
                self._load()

    def _at_end(self) -> bool:
        while self._position == len(self._chunk):
            chunk = next(self._chunks, None)
            if chunk is None:
                return True
            self._chunk = chunk
            self._view = memoryview(chunk)
            self._position = 0
        return False

    def _next(self) -> TarEntry | None:
        """The next entry, with what the headers before it say about it."""
        told = _Told()
        while True:
            self._skip(self._left + self._padding)
            self._left = self._padding = 0
            block = self._header()
            if block is None:
                if told.anything:
                    raise self._broken("ends behind a header that describes no entry")
                return None
            fields = _HEADER.unpack(block)
            if not _sum_is_right(block, fields[6]):
                raise self._broken("has a header with a wrong checksum")
            flag: bytes = fields[7]
            if flag in _DESCRIBES_NEXT:
                self._listen(told, flag, self._special(fields[4]))
            elif flag != b"V":  # GNU volume label
                if self._global:
                    told.pax = {**self._global, **(told.pax or {})}
                return self._entry(block, fields, told)

    def _header(self) -> bytes | None:
        """The next header, None at the end of the archive."""
        if self._at_end():
            return None
        block = self._take(BLOCK_BYTES)
        if block != _ZERO_BLOCK:
            return block
        if not self._at_end() and self._take(BLOCK_BYTES) != _ZERO_BLOCK:
            raise self._broken("has an empty block between its entries")
        return None

    def _special(self, size_field: bytes) -> bytes:
        try:
            size = _number(size_field)
        except ValueError:
            size = -1
        if not 0 <= size <= _MAX_SPECIAL_BYTES:
            raise self._broken(f"has a header of {size} bytes")
        data = self._take(size)
        self._skip(-size % BLOCK_BYTES)
        return data

    def _listen(self, told: "_Told", flag: bytes, data: bytes) -> None:
        if flag == b"L":
            told.name = data.partition(b"\0")[0]
        elif flag == b"K":
            told.link = data.partition(b"\0")[0]
        else:
            try:
                records, pairs = _pax_records(data)
            except ValueError as error:
                raise self._broken(f"has a wrong pax header: {error}") from error
            if flag == b"g":
                self._global_bytes += len(data)
                if self._global_bytes > _MAX_GLOBAL_BYTES:
                    raise self._broken("has global headers without end")
                self._global.update(records)
            else:
                told.pax, told.pairs = records, pairs

    def _entry(self, block: bytes, fields: tuple[bytes, ...], told: "_Told") -> TarEntry:
        flag = fields[7]
        name = _full_name(block, fields) if told.name is None else told.name
        link = fields[8].partition(b"\0")[0] if told.link is None else told.link
        kind = _KINDS.get(flag)
        if kind is None:
            raise UnsupportedError(f"{self._what}: {show_name(name)} has the unknown type {flag!r}")
        try:
            entry = TarEntry(
                name, kind, _number(fields[1]) & 0o7777, _number(fields[2]), _number(fields[3]),
                _number(fields[4]), _number(fields[5]), 0, link, 0, 0, None, None,
            )  # fmt: skip
            if kind is Kind.CHARACTER_DEVICE or kind is Kind.BLOCK_DEVICE:
                entry.dev_major, entry.dev_minor = _number(fields[10]), _number(fields[11])
            if told.pax:
                _apply_pax(entry, told.pax)
        except ValueError as error:
            raise self._broken(f"has a wrong header for {show_name(name)}: {error}") from error
        if entry.size < 0 or entry.uid < 0 or entry.gid < 0:
            raise self._broken(f"has a negative number for {show_name(name)}")
        if kind is Kind.FILE and entry.name.endswith(b"/"):
            # Before ustar a directory was a file whose name ends in a slash.
            entry.kind = kind = Kind.DIRECTORY
        if kind is not Kind.FILE:
            entry.size = 0
            return entry
        self._left = entry.size
        self._padding = -entry.size % BLOCK_BYTES
        if flag == b"S" or told.pax:
            self._find_holes(entry, block, flag, told)
        return entry

    def _find_holes(self, entry: TarEntry, block: bytes, flag: bytes, told: "_Told") -> None:
        """Give a sparse file its real name, size and segments, whichever way they are told."""
        pax = told.pax or {}
        try:
            if flag == b"S":
                segments, real_size = sparse.read_old(
                    block, lambda: self._take(BLOCK_BYTES), _number
                )
            elif pax.get(b"GNU.sparse.major") == b"1" and pax.get(b"GNU.sparse.minor") == b"0":
                real_size = int(pax[b"GNU.sparse.realsize"])
                segments = sparse.read_1_0(self._data_block)
            elif b"GNU.sparse.map" in pax:
                real_size = int(pax[b"GNU.sparse.size"])
                segments = sparse.parse_0_1(pax[b"GNU.sparse.map"])
            elif told.pairs is not None:
                real_size = int(pax[b"GNU.sparse.size"])
                segments = told.pairs
            else:
                return
            entry.segments = sparse.check(segments, real_size, self._left)
        except (ValueError, KeyError) as error:
            raise self._broken(
                f"has a wrong sparse map for {show_name(entry.name)}: {error}"
            ) from error
        entry.size = real_size
        entry.name = pax.get(b"GNU.sparse.name", entry.name)

    def _data_block(self) -> bytes:
        if self._left < BLOCK_BYTES:
            raise ValueError("the map is longer than the data")
        self._left -= BLOCK_BYTES
        return self._take(BLOCK_BYTES)

    def _broken(self, problem: str) -> IntegrityError:
        return IntegrityError(f"{self._what}: the tar archive {problem}")


def _full_name(block: bytes, fields: tuple[bytes, ...]) -> bytes:
    """The name of the header itself, with ustar's prefix."""
    name = fields[0].partition(b"\0")[0]
    prefix = fields[12]
    if prefix[0] and fields[9].startswith(b"ustar\0"):
        if block.endswith(b"tar\0"):  # star keeps times at the end of the prefix
            prefix = prefix[:131]
        return prefix.partition(b"\0")[0] + b"/" + name
    return name


def _sum_is_right(block: bytes, field: bytes) -> bool:
    """Whether the header's checksum is right: the sum of its bytes, its own field taken as spaces.

    Adler-32's low half is 1 + the sum, modulo 65521, and is had without a loop in Python. That the modulus lets
    one wrong sum through in 65521 does no harm: the layer's digest covers the same bytes.
    """
    try:
        told = _number(field)
    except ValueError:
        return False
    low = (zlib.adler32(block) & 0xFFFF) - 1
    if (low - sum(field) + 8 * 0x20 - told) % _ADLER_MODULUS == 0:
        return True
    # Some old tars added signed bytes.
    signed = sum(byte - 256 if byte > 127 else byte for byte in block)
    return signed - sum(b - 256 if b > 127 else b for b in field) + 8 * 0x20 == told


@lru_cache(maxsize=4096)
def _number(field: bytes) -> int:
    """A number in octal digits, or in GNU's base-256 (two's complement, the top bit set).

    Raises:
        ValueError: It is neither.
    """
    if field[0] & 0x80:
        # 0x80 begins a positive number, 0xff a negative one; the flag bit itself carries no value.
        value = int.from_bytes(field, "big") & ~(0x80 << (8 * (len(field) - 1)))
        bits = 8 * len(field) - 1
        return value - (1 << bits) if field[0] & 0x40 else value
    text = field.strip(b" \0").partition(b"\0")[0]
    if not text:
        return 0
    if not text.isdigit():
        raise ValueError(f"{text!r} is no octal number")
    return int(text, 8)


def _pax_records(data: bytes) -> tuple[dict[bytes, bytes], list[tuple[int, int]] | None]:
    """The records of a pax header, and the sparse pairs that format 0.0 tells by repeating its keys.

    Raises:
        ValueError: A record is not of the form ``LENGTH KEY=VALUE``.
    """
    records: dict[bytes, bytes] = {}
    offsets: list[int] = []
    lengths: list[int] = []
    position = 0
    while position < len(data):
        space = data.find(b" ", position, position + 20)
        digits = data[position : max(space, position)]
        if not digits.isdigit():
            raise ValueError("a record without a length")
        end = position + int(digits)
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if not key or not equals or not space < end <= len(data) or data[end - 1] != 0x0A:
            raise ValueError("a record of a wrong length")
        if key == b"GNU.sparse.offset":
            offsets.append(int(value))
        elif key == b"GNU.sparse.numbytes":
            lengths.append(int(value))
        records[key] = value
        position = end
    pairs = list(zip(offsets, lengths, strict=True)) if offsets or lengths else None
    return records, pairs


def _set_name(entry: TarEntry, value: bytes) -> None:
    entry.name = value


def _set_link(entry: TarEntry, value: bytes) -> None:
    entry.link = value


def _set_size(entry: TarEntry, value: bytes) -> None:
    entry.size = int(value)


def _set_uid(entry: TarEntry, value: bytes) -> None:
    entry.uid = int(value)


def _set_gid(entry: TarEntry, value: bytes) -> None:
    entry.gid = int(value)


def _set_mtime(entry: TarEntry, value: bytes) -> None:
    entry.mtime_s, entry.mtime_ns = parse_time(value)


_PAX_FIELDS: dict[bytes, Callable[[TarEntry, bytes], None]] = {
    b"path": _set_name,
    b"linkpath": _set_link,
    b"size": _set_size,
    b"uid": _set_uid,
    b"gid": _set_gid,
    b"mtime": _set_mtime,
}
_SCHILY_XATTR = b"SCHILY.xattr."
_LIBARCHIVE_XATTR = b"LIBARCHIVE.xattr."


def _apply_pax(entry: TarEntry, records: dict[bytes, bytes]) -> None:
    """Let the records override the header; an empty value leaves the header's."""
    xattrs: dict[bytes, bytes] = {}
    for key, value in records.items():
        setter = _PAX_FIELDS.get(key)
        if setter is not None:
            if value:
                setter(entry, value)
        elif key.startswith(_SCHILY_XATTR):
            xattrs[key[len(_SCHILY_XATTR) :]] = value
        elif key.startswith(_LIBARCHIVE_XATTR):
            name = unquote_to_bytes(key[len(_LIBARCHIVE_XATTR) :])
            if _SCHILY_XATTR + name not in records:
                try:
                    decoded = base64.b64decode(value + b"=" * (-len(value) % 4), validate=True)
                except binascii.Error as error:
                    raise ValueError(f"the extended attribute {name!r} is no base64") from error
                xattrs[name] = decoded
    if xattrs:
        entry.xattrs = xattrs


def parse_time(value: bytes) -> tuple[int, int]:
    """Seconds and nanoseconds of a decimal number such as ``-1.5``, which is (-2, 500000000).

    Digits behind the ninth are cut off.

    Raises:
        ValueError: ``value`` is no such number.
    """
    negative = value.startswith(b"-")
    whole, _, fraction = value[negative:].partition(b".")
    if not whole.isdigit() or not (fraction.isdigit() or not fraction):
        raise ValueError(f"{value!r} is no time")
    seconds = int(whole)
    nanoseconds = int(fraction[:9].ljust(9, b"0"))
    if not negative:
        return seconds, nanoseconds
    if nanoseconds:
        return -seconds - 1, _NS_PER_S - nanoseconds
    return -seconds, 0


def show_name(name: bytes) -> str:
    """A name for people: quoted, of bounded length."""
    text = name.decode(errors="replace")
    return repr(text if len(text) <= 200 else f"{text[:200]}…")
