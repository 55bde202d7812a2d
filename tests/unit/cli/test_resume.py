"""The unit that systemd resumes containers with."""

import os
import shutil
import sys
from pathlib import Path

import pytest

from woodlot import process
from woodlot.aio.unit import UNIT, build_unit
from woodlot.cli.app import run_command

TEXT = """\
[Unit]
Description=Containers of woodlot that are to run again
Wants=network-online.target
After=network-online.target

[Service]
Type=oneshot
RemainAfterExit=yes
Environment="WOODLOT_ROOT=/data of %%s \\"mine\\""
ExecStart="/opt/my $tools/container" system resume
ExecStop="/opt/my $tools/container" system stop
# What `resume` starts lives in this unit; `stop` has ended it in order before anything is killed.
KillMode=control-group
TimeoutStartSec=600
TimeoutStopSec=90

[Install]
WantedBy=multi-user.target
"""


def test_the_unit_of_the_system() -> None:
    program = Path("/opt/my $tools/container")
    assert build_unit(program, '/data of %s "mine"', system=True) == TEXT


@pytest.mark.parametrize("system", [True, False])
def test_systemd_finds_nothing_wrong_with_it(tmp_path: Path, *, system: bool) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("there is no systemd to ask")
    program = tmp_path / "a $program %i/container"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    unit = tmp_path / UNIT
    unit.write_text(build_unit(program, f"{tmp_path}/a b", system=system))
    # It fails if the unit is not understood, or a program is not there.
    process.run(["systemd-analyze", "verify", str(unit)], timeout_s=30)


def test_enabled_and_disabled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # It is asked for by name only.
    (tmp_path / "systemctl").write_text("#!/bin/sh\n")
    (tmp_path / "systemctl").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(os, "geteuid", lambda: 1)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("WOODLOT_ROOT", str(tmp_path / "root"))
    unit = tmp_path / "config/systemd/user" / UNIT
    link = unit.parent / "default.target.wants" / UNIT
    for _ in range(2):
        monkeypatch.setattr(sys, "argv", ["/opt/container", "system", "enable"])
        assert run_command() == 0
        assert link.readlink() == unit
        assert f'Environment="WOODLOT_ROOT={tmp_path}/root"' in unit.read_text()
    for _ in range(2):
        monkeypatch.setattr(sys, "argv", ["/opt/container", "system", "disable"])
        assert run_command() == 0
        assert not link.is_symlink()
        assert not unit.exists()
