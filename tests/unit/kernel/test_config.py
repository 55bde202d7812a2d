"""The kernel's configuration fragments, and the script that holds a build to them."""

import importlib.machinery
import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[3]
FRAGMENTS = ("common.config", "amd64.config", "arm64.config")
LINE = re.compile(r"CONFIG_\w+=(y|\d+|-\d+|\"[^\"]*\")|# CONFIG_\w+ is not set|#( .*)?|")


@pytest.fixture(scope="module")
def script() -> ModuleType:
    path = ROOT / "scripts/build-kernel"
    loader = importlib.machinery.SourceFileLoader("build_kernel", str(path))
    spec = importlib.util.spec_from_loader("build_kernel", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", FRAGMENTS)
def test_fragments_are_well_formed(name: str) -> None:
    lines = (ROOT / "kernel" / name).read_text().splitlines()
    assert [line for line in lines if not LINE.fullmatch(line)] == []
    options = [line.split("=")[0] for line in lines if line.startswith("CONFIG_")]
    assert len(options) == len(set(options))


def test_lines_that_were_not_kept_are_named(script: ModuleType) -> None:
    wanted = "# words\nCONFIG_A=y\nCONFIG_B=y\n# CONFIG_C is not set\n# CONFIG_D is not set\n"
    have = "CONFIG_A=y\nCONFIG_BB=y\nCONFIG_C=y\n# CONFIG_E is not set\n"
    assert script.missing_lines(wanted, have) == ["CONFIG_B=y", "# CONFIG_C is not set"]
