"""What a test needs of this machine: absent, it is skipped on a laptop and fails where it must run."""

import os
import shlex
import shutil
import sys
from typing import NoReturn

import pytest

REQUIRED = os.environ.get("WOODLOT_TEST_REQUIRE") == "1"


def skip_or_fail(reason: str) -> NoReturn:
    """Skip the test for ``reason``, or fail it when ``WOODLOT_TEST_REQUIRE=1``."""
    if REQUIRED:
        pytest.fail(f"{reason} (WOODLOT_TEST_REQUIRE=1)", pytrace=False)
    pytest.skip(reason)


def require_programs(*names: str) -> None:
    """Go on only if all these programs are on PATH."""
    missing = [name for name in names if shutil.which(name) is None]
    if missing:
        skip_or_fail(f"not on PATH: {', '.join(missing)}; `make setup` installs them")


def require_root() -> None:
    """Go on only as root."""
    if os.geteuid() != 0:
        skip_or_fail("needs root")


def python_shebang() -> str:
    """The first lines of an executable Python script; a plain ``#!`` line cannot hold a path with a space."""
    return f"#!/bin/sh\n'''exec' {shlex.quote(sys.executable)} \"$0\" \"$@\"\n' '''\n"
