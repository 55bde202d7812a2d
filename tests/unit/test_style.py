"""What no linter sees."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_no_file_names_the_place_it_was_written_at() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    argv = ["git", "-c", f"safe.directory={ROOT}", "grep", "--fixed-strings", "--line-number"]
    found = subprocess.run(
        [*argv, f"{ROOT}/"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert found.returncode == 1, found.stdout + found.stderr
