"""Random operations on one file, each compared with a model in memory, as fsx does: `python3 random_io.py FILE SEED OPERATIONS`.

Runs in a guest, with nothing but Python. Prints how many operations of each kind were right.
"""

import collections
import mmap
import os
import random
import sys

LARGEST = 256 << 10


def main(path: str, seed: int, operations: int) -> None:
    """Do it, and stop at the first byte that is not what was written."""
    rng = random.Random(seed)
    model = bytearray()
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    done: collections.Counter[str] = collections.Counter()

    def check(kind: str, offset: int, got: bytes, wanted: bytes) -> None:
        if got != wanted:
            first = next(i for i, (a, b) in enumerate(zip(got, wanted, strict=False)) if a != b)
            sys.exit(f"seed {seed}, operation {sum(done.values())}, {kind}: byte {offset + first}")

    for _ in range(operations):
        kind = rng.choice(
            (
                "write",
                "write",
                "read",
                "read",
                "append",
                "truncate",
                "map",
                "zero",
                "reopen",
                "sync",
            )
        )
        offset = rng.randrange(LARGEST)
        data = rng.randbytes(rng.choice((1, 511, 4096, rng.randrange(1, 60_000))))
        data = data[: LARGEST - offset]
        if kind == "write":
            os.pwrite(fd, data, offset)
            model.extend(bytes(max(0, offset - len(model))))
            model[offset : offset + len(data)] = data
        elif kind == "append" and len(model) + len(data) <= LARGEST:
            other = os.open(path, os.O_WRONLY | os.O_APPEND)
            os.write(other, data)
            os.close(other)
            model.extend(data)
        elif kind == "truncate":
            os.ftruncate(fd, offset)
            del model[offset:]
            model.extend(bytes(offset - len(model)))
        elif kind == "map" and offset < len(model):
            with mmap.mmap(fd, len(model)) as mapped:
                check(kind, 0, mapped[:], bytes(model))
                end = min(len(model), offset + len(data))
                mapped[offset:end] = data[: end - offset]
                model[offset:end] = data[: end - offset]
        elif kind == "zero" and offset < len(model):
            end = min(len(model), offset + len(data))
            os.pwrite(fd, bytes(end - offset), offset)
            model[offset:end] = bytes(end - offset)
        elif kind == "reopen":
            os.close(fd)
            fd = os.open(path, os.O_RDWR)
        elif kind == "sync":
            os.fsync(fd)
        else:
            kind = "read"
            got = os.pread(fd, len(data), offset)
            check(kind, offset, got, bytes(model[offset : offset + len(data)]))
        if os.fstat(fd).st_size != len(model):
            sys.exit(f"seed {seed}, {kind}: {os.fstat(fd).st_size} bytes, not {len(model)}")
        done[kind] += 1
    os.close(fd)
    with open(path, "rb") as file:  # noqa: PTH123 - a guest's Python may be any
        check("last read", 0, file.read(), bytes(model))
    print(" ".join(f"{kind}={count}" for kind, count in sorted(done.items())))  # noqa: T201 - the answer


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
