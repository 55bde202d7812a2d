"""The program that closes a file server in, with a shell in the server's place."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.programs import require_root
from woodlot.files.idmap import build_idmap
from woodlot.files.share import Share, build_confined_argv

SHOW = (
    'cat "$0/file" 2>/dev/null || cat "$0/inside"; touch "$0/new" 2>/dev/null && echo new; ls "$0"'
)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "source").mkdir()
    (tmp_path / "source/inside").write_text("text\n")
    (tmp_path / "source/sibling").write_text("not for you\n")
    (tmp_path / "stage").mkdir()
    return tmp_path


def confined(tree: Path, *, is_file: bool = False, read_only: bool = False) -> str:
    require_root()
    source = tree / "source/inside" if is_file else tree / "source"
    share = Share(tag="t", source=source, is_file=is_file, read_only=read_only)
    argv = build_confined_argv(
        ["/bin/sh", "-c", SHOW, str(tree / "stage")], stage=tree / "stage", idmap=None, share=share
    )
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if "Operation not permitted" in done.stderr:
        pytest.skip(f"no right to make namespaces here: {done.stderr}")
    assert done.returncode == 0, done.stderr
    assert list((tree / "stage").iterdir()) == [], "the mount was seen outside"
    return done.stdout


def test_a_directory_is_what_the_server_sees(tree: Path) -> None:
    assert confined(tree) == "text\nnew\ninside\nnew\nsibling\n"


def test_a_read_only_directory_is_so_for_the_server_itself(tree: Path) -> None:
    assert confined(tree, read_only=True) == "text\ninside\nsibling\n"


def test_a_single_file_is_alone_and_nothing_can_be_put_beside_it(tree: Path) -> None:
    assert confined(tree, is_file=True) == "text\nfile\n"


def test_a_source_that_became_something_else_is_refused(tree: Path) -> None:
    require_root()
    share = Share(tag="t", source=tree / "source", is_file=True)
    argv = build_confined_argv(["/bin/true"], stage=tree / "stage", idmap=None, share=share)
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("confine: "), done.stderr


def test_an_orphan_does_not_start(tree: Path) -> None:
    require_root()
    argv = build_confined_argv(["/bin/echo", "ran"], stage=tree / "stage", idmap=None, share=None)
    order = json.loads(argv[-1]) | {"parent": 1 if os.getpid() != 1 else 2}
    done = subprocess.run([*argv[:-1], json.dumps(order)], capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (1, b"")


def test_the_order_holds_the_map() -> None:
    idmap = build_idmap(1000, 1000, [(100000, 65536)], [(100000, 65536)])
    share = Share(tag="t", source=Path("/s"), read_only=True)
    argv = build_confined_argv(["/bin/x"], stage=Path("/stage"), idmap=idmap, share=share)
    assert json.loads(argv[-1]) == {
        "parent": os.getpid(),
        "uid_map": [[0, 1000, 1], [1, 100000, 65536]],
        "gid_map": [[0, 1000, 1], [1, 100000, 65536]],
        "source": "/s",
        "stage": "/stage",
        "single": False,
        "read_only": True,
        "argv": ["/bin/x"],
    }
