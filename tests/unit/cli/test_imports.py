"""What the usual commands do without: each module costs every one of them time."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

# Of the libraries that woodlot uses.
HEAVY = {"google.protobuf", "grpc", "httpx", "importlib.metadata", "rich", "tomlkit", "yaml"}
# What is for files that are shared, and what only some settings or flags need.
MORE = {
    "csv",
    "difflib",
    "random",
    "tempfile",
    "tomllib",
    "woodlot.files.share",
    "woodlot.volume.volume",
}

_TOLD = """
import os, sys
def told(status, end=os._exit):
    print(*sys.modules, file=sys.stderr, flush=True)
    end(status)
os._exit = told
"""
_COMMAND = "from woodlot.cli.app import main; main()"
# What a run has loaded when QEMU is started.
_RUN = """
import woodlot.cli.app, woodlot.cli.run, woodlot.aio.client, woodlot.aio.containers, woodlot.aio.container, woodlot.aio.starting
import woodlot.container.begin, woodlot.container.supervisor, woodlot.vmm.qemu.machine
"""


def modules_of(root: Path, program: str, *args: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{_TOLD}\n{program}\nos._exit(0)", *args],
        env={**os.environ, "WOODLOT_ROOT": str(root), "XDG_CONFIG_HOME": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )
    return set(done.stderr.splitlines()[-1].split())


@pytest.mark.parametrize(
    ("program", "args", "without"),
    [
        (_COMMAND, "--version", MORE | {"asyncio", "logging", "sqlite3", "subprocess"}),
        (_COMMAND, "ls", MORE | {"asyncio", "subprocess"}),
        (_COMMAND, "exec nobody true", MORE),
        (_RUN, "", MORE),
    ],
    ids=["--version", "ls", "exec", "run"],
)
def test_a_command_does_without(program: str, args: str, without: set[str], tmp_path: Path) -> None:
    loaded = modules_of(tmp_path / "root", program, *args.split())
    assert "woodlot.cli.app" in loaded
    found = loaded & (HEAVY | without)
    assert not found
