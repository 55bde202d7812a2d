"""What the usual commands do without: each module costs every one of them time."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

_MAIN = """
import atexit, sys
atexit.register(lambda: print(*sys.modules, file=sys.stderr))
from woodlot.cli.app import main
main()
"""
# Of the libraries that woodlot uses, and of woodlot itself.
HEAVY = {"google.protobuf", "grpc", "httpx", "importlib.metadata", "rich", "tomlkit", "yaml"}


def modules_of(root: Path, *args: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", _MAIN, *args],
        env={**os.environ, "WOODLOT_ROOT": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )
    return set(done.stderr.splitlines()[-1].split())


@pytest.mark.parametrize(
    ("args", "without"),
    [
        ("--version", {"asyncio", "logging", "sqlite3", "subprocess"}),
        ("ls", set[str]()),
        ("exec nobody true", set[str]()),
    ],
)
def test_a_command_does_without(args: str, without: set[str], tmp_path: Path) -> None:
    loaded = modules_of(tmp_path / "root", *args.split())
    assert "woodlot.cli.app" in loaded
    assert not loaded & (HEAVY | without)
