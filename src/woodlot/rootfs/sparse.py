"""Maps of sparse files in tar archives, the four ways GNU tar has written them.

A map is a list of (offset, length) of the data; the rest of the file reads as zeros.
Source: GNU tar manual, "Storing Sparse Files".
"""

from collections.abc import Callable

Segments = list[tuple[int, int]]

_OLD_MAP_AT = 386
_OLD_EXTENDED_AT = 482
_OLD_REAL_SIZE_AT = 483
_OLD_HEADER_PAIRS = 4
_OLD_BLOCK_PAIRS = 21
_OLD_BLOCK_EXTENDED_AT = 504
_MAX_SEGMENTS = 1 << 18


def read_old(
    header: bytes, read_block: Callable[[], bytes], number: Callable[[bytes], int]
) -> tuple[Segments, int]:
    """Segments and real size from an old GNU header (type ``S``) and the blocks that continue it.

    Raises:
        ValueError: A number is wrong, or there are too many segments.
    """
    segments: Segments = []

    def collect(block: bytes, start: int, pairs: int) -> None:
        for at in range(start, start + 24 * pairs, 24):
            if not block[at]:  # the list ends early
                return
            segments.append((number(block[at : at + 12]), number(block[at + 12 : at + 24])))

    collect(header, _OLD_MAP_AT, _OLD_HEADER_PAIRS)
    extended = header[_OLD_EXTENDED_AT]
    while extended:
        block = read_block()
        collect(block, 0, _OLD_BLOCK_PAIRS)
        extended = block[_OLD_BLOCK_EXTENDED_AT]
        if len(segments) > _MAX_SEGMENTS:
            raise ValueError("too many segments")
    return segments, number(header[_OLD_REAL_SIZE_AT : _OLD_REAL_SIZE_AT + 12])


def parse_0_1(text: bytes) -> Segments:
    """Segments of a ``GNU.sparse.map`` record: ``offset,length,offset,length``.

    Raises:
        ValueError: It is no such list.
    """
    numbers = [int(part) for part in text.split(b",")] if text else []
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def read_1_0(read_block: Callable[[], bytes]) -> Segments:
    """Segments from the start of the file's data: decimal lines, their count first, in whole blocks.

    Raises:
        ValueError: It is no such list.
    """
    buffer = b""

    def line() -> int:
        nonlocal buffer
        while b"\n" not in buffer:
            if len(buffer) > 32:
                raise ValueError("a line without an end")
            buffer += read_block()
        text, _, buffer = buffer.partition(b"\n")
        return int(text)

    count = line()
    if not 0 <= count <= _MAX_SEGMENTS:
        raise ValueError(f"{count} segments")
    return [(line(), line()) for _ in range(count)]


def check(segments: Segments, real_size: int, stored_bytes: int) -> Segments:
    """The segments that hold data, once they are known to ascend, to fit and to add up.

    Raises:
        ValueError: They do not.
    """
    end = total = 0
    for offset, length in segments:
        if offset < end or length < 0:
            raise ValueError("the segments overlap")
        end = offset + length
        total += length
    if end > real_size:
        raise ValueError("a segment ends behind the file")
    if total != stored_bytes:
        raise ValueError(f"the segments hold {total} bytes, the archive {stored_bytes}")
    return [(offset, length) for offset, length in segments if length]
