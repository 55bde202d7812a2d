"""The states of a container, each with what only it has."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Literal, TypeAlias, assert_never

from woodlot.values import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Created:
    """It was never started."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Starting:
    """Its supervisor boots the VM; the process does not run yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """One time that a container was asked whether it is well."""

    started_at: float
    finished_at: float
    exit_code: int
    """-1 where it did not end by itself."""
    output: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """Whether a container that runs is well, as far as its probes tell."""

    status: Literal["starting", "healthy", "unhealthy"] = "starting"
    failing_streak: int = 0
    """Failures since the last success."""
    log: tuple[Probe, ...] = ()
    """The last probes, the newest last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """Its process runs."""

    started_at: float
    """Seconds since 1970."""
    vm_pid: int
    accelerator: str
    ip: str = ""
    """The address in the first network."""
    networks: tuple[Mapping[str, Any], ...] = ()
    """Leases, as `woodlot.network.switch.Lease`."""
    ports: tuple[Mapping[str, Any], ...] = ()
    """Published ports, as `woodlot.network.switch.Port`."""
    network_lost: str = ""
    """Why a network is gone while the container runs; empty while all are there."""
    files_lost: str = ""
    """Why some of the host's files are gone while it runs; empty while all are there."""
    restart_count: int = 0
    """How often it was started again by its restart policy since somebody started it."""
    health: Health | None = None
    """None if nothing says how to ask."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Paused(Running):
    """Its processes stand still, until somebody lets them go on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Restarting:
    """It has ended, and its supervisor starts it again: in a while, or just now."""

    exit_code: int
    finished_at: float
    started_at: float
    oom_killed: bool
    reason: str
    restart_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped:
    """Its process has ended and its VM is gone."""

    exit_code: int
    finished_at: float
    started_at: float = 0.0
    oom_killed: bool = False
    reason: str = ""
    """Why it ended, where its process did not end by itself."""
    restart_count: int = 0
    by_user: bool = False
    """Its user had it stopped."""


State: TypeAlias = Created | Starting | Running | Paused | Restarting | Stopped

_BY_LABEL: dict[
    str, type[Created] | type[Starting] | type[Running] | type[Restarting] | type[Stopped]
] = {
    "created": Created,
    "starting": Starting,
    "running": Running,
    "paused": Paused,
    "restarting": Restarting,
    "stopped": Stopped,
}

LABELS = tuple(_BY_LABEL)

# The status of a process that SIGKILL ended, which is what pulling a VM's plug does to it.
KILLED_EXIT_CODE = 137


def label(state: State) -> str:
    """Word for the STATE column."""
    match state:
        case Created():
            return "created"
        case Starting():
            return "starting"
        case Paused():
            return "paused"
        case Running():
            return "running"
        case Restarting():
            return "restarting"
        case Stopped():
            return "stopped"
        case _:
            assert_never(state)


def to_json(state: State) -> dict[str, Any]:
    """The state as JSON types; `from_json` reads it back."""
    return {"state": label(state), **asdict(state)}


def from_json(data: Mapping[str, Any]) -> State:
    """The state that `to_json` wrote."""
    fields = dict(data)
    for name in ("networks", "ports"):
        if name in fields:
            fields[name] = tuple(fields[name])
    if health := fields.get("health"):
        values: dict[str, Any] = {
            **health,
            "log": tuple(Probe(**probe) for probe in health["log"]),
        }
        fields["health"] = Health(**values)
    return _BY_LABEL[fields.pop("state")](**fields)
