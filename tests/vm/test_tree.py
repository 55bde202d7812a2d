"""The file tree that a container sees is the one it sees under Docker, or, where Docker refuses an image, umoci's."""

import json
import os
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.cli import PROGRAM, Cli
from tests.peer import Docker
from tests.programs import require_programs, require_root
from tests.registry.server import Registry

pytestmark = pytest.mark.vm

LISTER = "/.lister"
# Reads the program from stdin, since not every image can fetch one.
SCRIPT = f"cat >{LISTER} && chmod 755 {LISTER} && exec {LISTER} / $0"
# Written for each container, Docker's own mark, and ours.
OWN = {"/etc/hostname", "/etc/hosts", "/etc/resolv.conf", "/etc/mtab", "/.dockerenv", LISTER}

Tree = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def lister(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program that runs in any image and prints its tree."""
    require_programs("go")
    program = tmp_path_factory.mktemp("lister") / "lister"
    source = Path(__file__).parent / "lister" / "main.go"
    argv: list[str | Path] = ["go", "build", "-trimpath", "-o", program, source]
    subprocess.run(argv, check=True, env={**os.environ, "CGO_ENABLED": "0"}, timeout=300)
    return program


def tree(listing: bytes) -> Tree:
    entries = [json.loads(line) for line in listing.splitlines()]
    return {entry.pop("path"): entry for entry in entries}


def run(argv: list[str | Path], lister: Path, env: dict[str, str] | None = None) -> Tree:
    with lister.open("rb") as program:
        done = subprocess.run(argv, stdin=program, capture_output=True, env=env, timeout=600)  # noqa: PLW1510
    assert done.returncode == 0, f"{shlex.join(map(str, argv))}\n{done.stderr.decode()}"
    return tree(done.stdout)


def command(reference: str, what: str = "contents") -> list[str]:
    return ["--rm", "-i", "--user", "0", "--entrypoint", "sh", reference, "-c", SCRIPT, what]


def ours(container: Cli, reference: str, lister: Path, what: str = "contents") -> Tree:
    return run([PROGRAM, "run", *command(reference, what)], lister, container.environment())


def assert_equal(ours: Tree, theirs: Tree, *, without: set[str]) -> None:
    assert set(ours) - without == set(theirs) - without
    for path in sorted(set(ours) - without):
        assert ours[path] == theirs[path], path


# Reading a whole tree takes an emulated guest minutes; python:3.11 holds all of debian:12.
TREES = [("edge:1", "contents"), ("python:3.11", "attributes")]
if os.environ.get("WOODLOT_TEST_SOAK"):
    TREES += [("python:3.11", "contents"), ("debian:12", "contents")]


@pytest.mark.parametrize(("name", "what"), TREES)
def test_it_is_dockers(
    container: Cli, registry: Registry, docker: Docker, lister: Path, *, name: str, what: str
) -> None:
    reference = registry.reference(name)
    docker("pull", "-q", reference)
    theirs = run(["docker", "-H", docker.host, "run", *command(reference, what)], lister)
    seen = ours(container, reference, lister, what)
    if name == "edge:1":
        # Docker takes times before 1970 for 1970.
        assert seen["/y1901"].pop("mtime") == "-2000000000.000000000"
        assert theirs["/y1901"].pop("mtime") == "0.000000000"
    # edge:1's VOLUME, which we do not mount yet.
    assert_equal(seen, theirs, without={*OWN, "/data"})
    assert len(theirs) > 400


def test_it_is_umocis(
    container: Cli, registry: Registry, images: Path, lister: Path, tmp_path: Path
) -> None:
    """edge:2 has one path twice in a layer, which Docker refuses."""
    require_root()
    require_programs("umoci")
    layout = tmp_path / "layout"
    layout.mkdir()
    (layout / "oci-layout").write_bytes((images / "oci-layout").read_bytes())
    (layout / "blobs").symlink_to(images / "blobs")
    index = json.loads((images / "index.json").read_bytes())
    name = "org.opencontainers.image.ref.name"
    index["manifests"] = [
        entry | {"annotations": {name: "edge"}}
        for entry in index["manifests"]
        if entry.get("annotations", {}).get(name) == "edge:2"
    ]
    (layout / "index.json").write_text(json.dumps(index))
    unpacked = tmp_path / "unpacked"
    argv: list[str | Path] = ["umoci", "raw", "unpack", "--image", f"{layout}:edge", unpacked]
    subprocess.run(argv, check=True, capture_output=True)
    theirs = run([lister, unpacked], lister)
    seen = ours(container, registry.reference("edge:2"), lister)
    # The working directory is made at the start, as Docker does.
    made = {"/data", "/dev", "/proc", "/sys", "/srv", "/srv/edge"}
    assert_equal(seen, theirs, without={*OWN, *made})
    assert theirs["/twice"]["mode"] == "100600"
    assert theirs["/hard/two"]["link_of"] == "/hard/three"
