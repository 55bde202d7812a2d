"""``container system resume``, ``stop``, ``enable`` and ``disable``: containers over a restart of the host.

There is no daemon that would start containers when the host comes up, so a unit of systemd's, the user's or root's own,
runs `resume` then, and `stop` when the host goes down. Without systemd, whatever starts programs there can run the two.
"""

import asyncio
import contextlib
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from woodlot import process
from woodlot.cli.output import raise_all
from woodlot.errors import ConfigError, WoodlotError

if TYPE_CHECKING:
    from woodlot.cli.app import App
    from woodlot.container.lifecycle import Container

UNIT = "woodlot.service"
_STOP_GRACE_S = 10.0
# Emulated machines that start one after the other on a host that is busy coming up.
_START_LIMIT_S = 600
_STOP_LIMIT_S = 90
_RELOAD_LIMIT_S = 10.0


@click.command()
@click.pass_obj
def resume(app: "App") -> None:
    """Start the containers that ran when the host went down and whose restart policy wants them back."""
    from woodlot.cli.lifecycle import start_again
    from woodlot.container.lifecycle import find_all

    failures: list[WoodlotError] = []
    for found in find_all(app.store):
        if not _is_wanted(found):
            continue
        try:
            start_again(app, found)
        except WoodlotError as error:
            failures.append(error)
        else:
            print(found.spec.name)
    raise_all(failures)


@click.command()
@click.pass_obj
def stop(app: "App") -> None:
    """Stop all containers, in order; `resume` starts those again whose restart policy says so."""
    from woodlot.cli.lifecycle import stop_one
    from woodlot.container.lifecycle import find_all

    async def one(found: "Container") -> WoodlotError | None:
        try:
            await stop_one(app, found, grace_s=_STOP_GRACE_S, resumable=True)
        except WoodlotError as error:
            return error
        print(found.spec.name)
        return None

    async def all_of_them() -> list[WoodlotError | None]:
        live = [found for found in find_all(app.store) if found.is_live]
        return list(await asyncio.gather(*(one(found) for found in live)))

    raise_all([error for error in asyncio.run(all_of_them()) if error is not None])


@click.command()
@click.pass_obj
def enable(app: "App") -> None:
    """Have systemd resume containers when the host comes up: as root for root's, else for your own."""
    unit, wants = _unit_paths()
    if shutil.which("systemctl") is None:
        raise ConfigError(
            "this host has no systemd",
            hint="have `container system resume` run when it comes up, and `container system stop` when it goes down",
        )
    unit.parent.mkdir(parents=True, exist_ok=True)
    unit.write_text(
        build_unit(app.root or os.environ.get("WOODLOT_ROOT"), system=os.geteuid() == 0)
    )
    wants.parent.mkdir(parents=True, exist_ok=True)
    wants.unlink(missing_ok=True)
    wants.symlink_to(unit)
    _reload()
    print(unit)
    if os.geteuid() and not (Path("/var/lib/systemd/linger") / _user()).exists():
        click.echo(
            "note: your units run only while you are logged in; for after a boot, too: "
            f"loginctl enable-linger {_user()}",
            err=True,
        )


@click.command()
@click.pass_obj
def disable(app: "App") -> None:
    """Have systemd leave containers alone again; what runs goes on."""
    del app
    unit, wants = _unit_paths()
    wants.unlink(missing_ok=True)
    unit.unlink(missing_ok=True)
    _reload()


def _is_wanted(found: "Container") -> bool:
    from woodlot.container import restart, state

    ended = found.state
    return isinstance(ended, state.Stopped) and restart.resumes(
        found.spec.restart,
        exit_code=ended.exit_code,
        count=ended.restart_count,
        by_user=ended.by_user,
    )


def build_unit(root: str | None, *, system: bool) -> str:
    """The unit's text.

    Args:
        root: Where the data is, if not where it is by default.
        system: For the system's manager; else for a user's.
    """
    command = _quote(str(Path(sys.argv[0]).absolute()))
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


def _user() -> str:
    import pwd

    return pwd.getpwuid(os.geteuid()).pw_name
