"""The unit of systemd's that starts containers again when the host comes up, for there is no daemon that would."""

import contextlib
import os
import shutil
from pathlib import Path

from woodlot import process
from woodlot.errors import ConfigError, WoodlotError

UNIT = "woodlot.service"
# Emulated machines that start one after the other on a host that is busy coming up.
_START_LIMIT_S = 600
_STOP_LIMIT_S = 90
_RELOAD_LIMIT_S = 10.0


def enable(program: Path, root: str | None) -> Path:
    """Write the unit, root's or the user's, and have it started with the host; its file.

    Args:
        program: The command ``container``.
        root: Where the data is, if not where it is by default.

    Raises:
        ConfigError: There is no systemd.
    """
    unit, wants = _unit_paths()
    if shutil.which("systemctl") is None:
        raise ConfigError(
            "this host has no systemd",
            hint="have `container system resume` run when it comes up, and `container system stop` when it goes down",
        )
    unit.parent.mkdir(parents=True, exist_ok=True)
    unit.write_text(build_unit(program, root, system=os.geteuid() == 0))
    wants.parent.mkdir(parents=True, exist_ok=True)
    wants.unlink(missing_ok=True)
    wants.symlink_to(unit)
    _reload()
    return unit


def disable() -> None:
    """Remove the unit; what runs goes on."""
    unit, wants = _unit_paths()
    wants.unlink(missing_ok=True)
    unit.unlink(missing_ok=True)
    _reload()


def build_unit(program: Path, root: str | None, *, system: bool) -> str:
    """The unit's text.

    Args:
        program: The command ``container``.
        root: Where the data is, if not where it is by default.
        system: For the system's manager; else for a user's.
    """
    command = _quote(str(program))
    environment = f"Environment={_quote(f'WOODLOT_ROOT={root}')}\n" if root else ""
    network = "Wants=network-online.target\nAfter=network-online.target\n" if system else ""
    return f"""\
[Unit]
Description=Containers of woodlot that are to run again
{network}
[Service]
Type=oneshot
RemainAfterExit=yes
{environment}ExecStart={command} system resume
ExecStop={command} system stop
# What `resume` starts lives in this unit; `stop` has ended it in order before anything is killed.
KillMode=control-group
TimeoutStartSec={_START_LIMIT_S}
TimeoutStopSec={_STOP_LIMIT_S}

[Install]
WantedBy={"multi-user.target" if system else "default.target"}
"""


def _quote(text: str) -> str:
    """A word of a unit's line (systemd.syntax(7)), where `%` means something."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"'


def _unit_paths() -> tuple[Path, Path]:
    """The unit's file, and the link by which it is started."""
    if os.geteuid() == 0:
        units, target = Path("/etc/systemd/system"), "multi-user.target"
    else:
        config = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
        units, target = Path(config) / "systemd/user", "default.target"
    return units / UNIT, units / f"{target}.wants" / UNIT


def _reload() -> None:
    """Tell systemd, if it runs; if not, it finds the files when it does."""
    scope = [] if os.geteuid() == 0 else ["--user"]
    with contextlib.suppress(WoodlotError, OSError):
        # Where the user's manager listens.
        session = {name: os.environ[name] for name in ("XDG_RUNTIME_DIR",) if name in os.environ}
        process.run(["systemctl", *scope, "daemon-reload"], timeout_s=_RELOAD_LIMIT_S, env=session)
