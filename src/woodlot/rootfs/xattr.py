"""Extended attributes in EROFS inodes.

The area behind an inode: a header of 12 bytes, all zero here as no attribute is shared, then for each attribute
its name's length, its prefix's number, its value's size, the name without the prefix, and the value; every one
padded to 4 bytes.

Source: Linux Documentation/filesystems/erofs.rst, "Inode metadata space".
"""

import struct
from collections.abc import Mapping

_HEADER_BYTES = 12
_ENTRY = struct.Struct("<BBH")
_PREFIXES = (
    (b"user.", 1),
    (b"trusted.", 4),
    (b"security.", 6),
)
_WHOLE_NAMES = {b"system.posix_acl_access": 2, b"system.posix_acl_default": 3}
# The guest's overlayfs would obey these, and they speak of other directories than ours.
_OVERLAY = (b"trusted.overlay.", b"user.overlay.")
_MAX_NAME_BYTES = 255
_MAX_VALUE_BYTES = (1 << 16) - 1
_MAX_AREA_BYTES = _HEADER_BYTES + 4 * ((1 << 16) - 2)


def encode_xattrs(xattrs: Mapping[bytes, bytes]) -> bytes:
    """The attributes as the inode carries them, empty for none.

    Attributes that Linux has no place for (``com.apple.…``) are left out, as Docker does, and so are overlayfs's.

    Raises:
        ValueError: A name or value is too long, or all of them together.
    """
    entries: list[tuple[int, bytes, bytes]] = []
    for name, value in xattrs.items():
        if name.startswith(_OVERLAY):
            continue
        if len(name) > _MAX_NAME_BYTES or 0 in name:
            raise ValueError(f"the extended attribute {name[:80]!r} has an impossible name")
        if len(value) > _MAX_VALUE_BYTES:
            raise ValueError(f"the extended attribute {name!r} has {len(value)} bytes")
        if name in _WHOLE_NAMES:
            entries.append((_WHOLE_NAMES[name], b"", value))
            continue
        for prefix, index in _PREFIXES:
            if name.startswith(prefix) and len(name) > len(prefix):
                entries.append((index, name[len(prefix) :], value))
    if not entries:
        return b""
    area = bytearray(_HEADER_BYTES)
    for index, suffix, value in sorted(entries):
        area += _ENTRY.pack(len(suffix), index, len(value)) + suffix + value
        area += bytes(-len(area) % 4)
    if len(area) > _MAX_AREA_BYTES:
        raise ValueError(f"the extended attributes take {len(area)} bytes")
    return bytes(area)


def count_field(encoded: bytes) -> int:
    """The inode's ``i_xattr_icount`` for an encoded area: 0, or 1 for the header and 1 for each 4 bytes more."""
    return (len(encoded) - _HEADER_BYTES) // 4 + 1 if encoded else 0
