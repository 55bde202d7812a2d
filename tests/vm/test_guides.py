"""The programs that the README and the guides show, run as they are but for images, which come from the test's registry."""

import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.cli import Cli
from tests.registry.server import Registry

pytestmark = pytest.mark.vm

TOP = Path(__file__).parents[2]
IMAGES = {"alpine:3.20": "busybox:1.35", "nginx:1.22": "nginx:1.22", "python:3.11": "python:3.11"}
# Nothing of a test listens beyond the host.
PORTS = {'"8080:80"': '"127.0.0.1::80"'}
UNTRUSTED = "code = 'print(6 * 7)'\n"


def programs(document: str) -> list[str]:
    """The blocks of Python in a document: fenced, or indented ones that import the library."""
    text = (TOP / document).read_text()
    fenced = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    indented = [textwrap.dedent(block) for block in re.findall(r"(?:^(?: {4}.*)?\n)+", text, re.MULTILINE)]  # fmt: skip
    return fenced + [block for block in indented if block.lstrip().startswith("import woodlot")]


def run(program: str, container: Cli, registry: Registry) -> str:
    for shown, name in IMAGES.items():
        program = program.replace(f'"{shown}"', f'"{registry.reference(name)}"')
    for shown, given in PORTS.items():
        program = program.replace(shown, given)
    if "import woodlot" not in program:
        program = f"import woodlot\n{program}"
    done = subprocess.run(
        [sys.executable, "-c", UNTRUSTED + program],
        env=container.environment(),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, f"{program}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ("README.md", [r"0 \d+\.\d+.*\n"]),
        ("docs/guides/python.md", [r"3 1\n\n", r"Running\(.*nginx.*"]),
        ("docs/guides/sandbox.md", [r"0 False 42\n \n"]),
    ],
)
def test_what_is_shown_works(
    container: Cli, registry: Registry, document: str, said: list[str]
) -> None:
    printed = [run(program, container, registry) for program in programs(document)]
    assert len(printed) == len(said)
    for got, pattern in zip(printed, said, strict=True):
        assert re.fullmatch(pattern, got, re.DOTALL), got
    assert container.ok("ls", "--all", "--quiet") == ""
