"""Random layers against a model that is too simple to be wrong: whiteouts first, then the entries in order."""

import asyncio
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.rootfs.erofs_reader import Image
from tests.unit.rootfs.tars import LIMITS, archive, directory, hard_link, member, write_layer
from woodlot.errors import IntegrityError
from woodlot.progress import NoProgress
from woodlot.rootfs.build import build_rootfs

Name = tuple[bytes, ...]


@dataclass
class Op:
    """One entry of a layer."""

    kind: str
    name: Name
    mark: int
    size: int
    target: Name

    def build(self) -> bytes:
        head, base = self.name[:-1], self.name[-1]
        path = b"/".join(self.name)
        match self.kind:
            case "file":
                return member(path, self.data, mode=self.mark)
            case "dir":
                return directory(path, self.mark)
            case "link":
                return hard_link(path, b"/".join(self.target))
            case "opaque":
                return member(b"/".join((*self.name, b".wh..wh..opq")))
            case _:
                return member(b"/".join((*head, b".wh." + base)))

    @property
    def data(self) -> bytes:
        return bytes([self.mark % 256]) * self.size


class Directory(dict[bytes, "Directory | list[int | bytes]"]):
    """A directory of the model; a file is a list of its mode and data, shared by its names."""

    mode = 0o755


def find(root: Directory, name: Name) -> Directory | list[int | bytes] | None:
    here: Directory | list[int | bytes] | None = root
    for part in name:
        here = here.get(part) if isinstance(here, Directory) else None
    return here


def ensure(root: Directory, name: Name) -> Directory:
    for part in name:
        child = root.get(part)
        if not isinstance(child, Directory):
            child = root[part] = Directory()
        root = child
    return root


def apply(root: Directory, ops: list[Op]) -> None:
    for op in ops:
        if op.kind == "opaque":
            found = find(root, op.name)
            if isinstance(found, Directory):
                found.clear()
        elif op.kind == "whiteout":
            parent = find(root, op.name[:-1])
            if isinstance(parent, Directory):
                parent.pop(op.name[-1], None)
    for op in ops:
        if op.kind == "opaque":
            ensure(root, op.name)
            continue
        parent = ensure(root, op.name[:-1])
        base = op.name[-1]
        if op.kind == "file":
            parent[base] = [op.mark, op.data]
        elif op.kind == "dir":
            child = parent.get(base)
            if not isinstance(child, Directory):
                child = parent[base] = Directory()
            child.mode = op.mark
        elif op.kind == "link":
            target = find(root, op.target)
            if target is None or isinstance(target, Directory):
                raise IntegrityError("no target")
            parent[base] = target


def flatten(root: Directory) -> dict[bytes, tuple[int, bytes]]:
    found: dict[bytes, tuple[int, bytes]] = {b"": (stat.S_IFDIR | root.mode, b"")}

    def walk(node: Directory, path: bytes) -> None:
        for name, child in node.items():
            below = path + b"/" + name if path else name
            if isinstance(child, Directory):
                found[below] = (stat.S_IFDIR | child.mode, b"")
                walk(child, below)
            else:
                mode, data = child
                assert isinstance(mode, int)
                assert isinstance(data, bytes)
                found[below] = (stat.S_IFREG | mode, data)

    walk(root, b"")
    return found


names = st.lists(st.sampled_from([b"a", b"b", b"c"]), min_size=1, max_size=4).map(tuple)
ops = st.builds(
    Op,
    kind=st.sampled_from(["file", "file", "dir", "dir", "whiteout", "opaque", "link"]),
    name=names,
    mark=st.integers(0, 0o7777),
    size=st.sampled_from([0, 1, 100, 4000, 4096, 5000, 9000]),
    target=names,
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.lists(ops, max_size=12), max_size=4))
def test_random_layers(layers: list[list[Op]]) -> None:
    # A link to what its own layer takes away depends on their order, in every runtime.
    for layer in layers[1:]:
        if any(op.kind in {"whiteout", "opaque"} for op in layer):
            layer[:] = [op for op in layer if op.kind != "link"]
    root = Directory()
    expected: dict[bytes, tuple[int, bytes]] | None = None
    try:
        for layer in layers:
            apply(root, layer)
        expected = flatten(root)
    except IntegrityError:
        expected = None
    with tempfile.TemporaryDirectory() as scratch:
        base = Path(scratch)
        sources = [
            write_layer(base, archive(*(op.build() for op in layer)), "") for layer in layers
        ]
        work = build_rootfs(sources, base / "out", limits=LIMITS, progress=NoProgress())
        try:
            asyncio.run(work)
        except IntegrityError:
            assert expected is None
            return
        tree = Image(base / "out").tree()
    assert expected is not None
    found = {
        path: (seen.mode, seen.data if stat.S_ISREG(seen.mode) else b"")
        for path, seen in tree.items()
    }
    assert found == expected
