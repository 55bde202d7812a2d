"""Docker's fields of containers."""

import json
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from woodlot.aio import state
from woodlot.cli.fields import label_of, short_id, show_labels, show_local_time
from woodlot.units import format_age, format_size, format_time

if TYPE_CHECKING:
    from woodlot.aio import Container
    from woodlot.cli.listing import Fields

# Docker's words for states of which it has another notion.
_STATES = {"stopped": "exited", "starting": "created"}
_COMMAND_LENGTH = 20
_MOUNT_LENGTH = 15
_NEVER = "0001-01-01T00:00:00Z"


def listed(*, truncate: bool) -> "Fields[Container]":
    """Those of ``docker ps``."""
    return {
        "Command": lambda one: _command(one, truncate=truncate),
        "CreatedAt": lambda one: show_local_time(one.spec.created_at),
        "ID": lambda one: short_id(one.spec.id, truncate=truncate),
        "Image": _image,
        "Label": lambda one: label_of(one.spec.labels),
        "Labels": lambda one: show_labels(one.spec.labels),
        "LocalVolumes": lambda one: str(
            _count(mount.type == "volume" for mount in one.spec.mounts)
        ),
        "Mounts": lambda one: ",".join(
            _ellipsis(mount.source, _MOUNT_LENGTH) if truncate else mount.source
            for mount in one.spec.mounts
        ),
        "Names": lambda one: one.spec.name,
        "Networks": lambda one: ",".join(network.network for network in one.spec.networks),
        "Platform": lambda one: one.spec.platform,
        "Ports": show_ports,
        "RunningFor": lambda one: f"{_age(one.spec.created_at)} ago",
        "Size": show_size,
        "State": _state,
        "Status": show_status,
    }


def inspected() -> "Fields[Container]":
    """The most used ones of ``docker inspect``, in its structure."""
    return {
        "Args": lambda one: list(one.spec.process.args[1:]),
        "Config": _config,
        "Created": lambda one: format_time(one.spec.created_at),
        "HostConfig": _host_config,
        "Id": lambda one: one.spec.id,
        "Image": lambda one: one.spec.image_digest,
        "Mounts": lambda one: [
            {
                "Type": mount.type,
                "Name": mount.source if mount.type == "volume" else "",
                "Source": mount.source,
                "Destination": mount.destination,
                "RW": not mount.read_only,
            }
            for mount in one.spec.mounts
        ],
        "Name": lambda one: f"/{one.spec.name}",
        "NetworkSettings": _network_settings,
        "Path": lambda one: one.spec.process.args[0],
        "Platform": lambda one: one.spec.platform.partition("/")[0],
        "State": _inspected_state,
    }


def show_status(one: "Container") -> str:
    """``Up 2 minutes``, ``Exited (0) 3 hours ago``."""
    match one.state:
        case state.Paused() as current:
            return f"Up {_age(current.started_at)} (Paused)"
        case state.Running() as current:
            return f"Up {_age(current.started_at)}{_show_health(current.health)}"
        case state.Restarting() as current:
            return f"Restarting ({current.exit_code}) {_age(current.finished_at)} ago"
        case state.Stopped() as current:
            return f"Exited ({current.exit_code}) {_age(current.finished_at)} ago"
        case _:
            return "Created"


def _show_health(health: state.Health | None) -> str:
    if health is None:
        return ""
    return " (health: starting)" if health.status == "starting" else f" ({health.status})"


def show_ports(one: "Container") -> str:
    """``0.0.0.0:8080->80/tcp, [::]:8080->80/tcp``."""
    if not isinstance(one.state, state.Running):
        return ""
    return ", ".join(
        f"{show_address(port)}->{port['container_port']}/{port['protocol']}"
        for port in one.state.ports
    )


def show_address(port: Mapping[str, Any]) -> str:
    """Where a port is published: ``127.0.0.1:8080``, ``[::]:8080``."""
    ip, number = str(port["host_ip"]), port["host_port"]
    return f"[{ip}]:{number}" if ":" in ip else f"{ip}:{number}"


def show_size(one: "Container") -> str:
    """What it has written, and that with its image: ``1.2 MiB (virtual 121.5 MiB)``."""
    written, image = one.sizes()
    return f"{format_size(written)} (virtual {format_size(written + image)})"


def _state(one: "Container") -> str:
    label = state.label(one.state)
    return _STATES.get(label, label)


def _age(seconds: float) -> str:
    return format_age(max(0.0, time.time() - seconds))


def _image(one: "Container") -> str:
    return one.image


def _command(one: "Container", *, truncate: bool) -> str:
    line = " ".join(one.spec.process.args)
    shown = _ellipsis(line, _COMMAND_LENGTH) if truncate else line
    return json.dumps(shown, ensure_ascii=False)


def _ellipsis(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _count(values: Iterable[bool]) -> int:
    return sum(values)


def _inspected_state(one: "Container") -> dict[str, object]:
    current = one.state
    ended = current if isinstance(current, state.Stopped | state.Restarting) else None
    health = current.health if isinstance(current, state.Running) else None
    started = 0.0 if isinstance(current, state.Created | state.Starting) else current.started_at
    fields: dict[str, object] = {
        "Status": _state(one),
        "Running": isinstance(current, state.Running),
        "Paused": isinstance(current, state.Paused),
        "Restarting": isinstance(current, state.Restarting),
        "OOMKilled": ended is not None and ended.oom_killed,
        "Pid": current.vm_pid if isinstance(current, state.Running) else 0,
        "ExitCode": ended.exit_code if ended else 0,
        "Error": ended.reason if ended else "",
        "StartedAt": format_time(started) if started else _NEVER,
        "FinishedAt": format_time(ended.finished_at) if ended else _NEVER,
    }
    if health:
        fields["Health"] = _health(health)
    return fields


def _health(health: state.Health) -> dict[str, object]:
    return {
        "Status": health.status,
        "FailingStreak": health.failing_streak,
        "Log": [
            {
                "Start": format_time(probe.started_at),
                "End": format_time(probe.finished_at),
                "ExitCode": probe.exit_code,
                "Output": probe.output,
            }
            for probe in health.log
        ],
    }


def _config(one: "Container") -> dict[str, object]:
    spec, process = one.spec, one.spec.process
    return {
        "Hostname": spec.hostname,
        "User": process.user,
        "Tty": process.tty,
        "OpenStdin": process.stdin,
        "Env": list(process.env),
        "Cmd": list(process.args),
        "Image": _image(one),
        "WorkingDir": process.cwd,
        "Labels": dict(spec.labels),
        "StopSignal": spec.stop_signal,
    }


def _host_config(one: "Container") -> dict[str, object]:
    spec = one.spec
    return {
        "AutoRemove": spec.remove,
        "CapAdd": list(spec.cap_add),
        "CapDrop": list(spec.cap_drop),
        "Init": spec.process.init,
        "Memory": spec.memory_bytes,
        "NanoCpus": int(spec.cpus * 10**9),
        "NetworkMode": spec.networks[0].network if spec.networks else "none",
        "ReadonlyRootfs": spec.read_only,
        "RestartPolicy": {
            "Name": spec.restart.name,
            "MaximumRetryCount": spec.restart.max_retries,
        },
        "ShmSize": spec.shm_bytes,
    }


def _network_settings(one: "Container") -> dict[str, object]:
    networks: dict[str, dict[str, object]] = {
        network.network: {"Aliases": list(network.aliases), "IPAddress": ""}
        for network in one.spec.networks
    }
    ports: dict[str, list[dict[str, str]]] = {}
    if isinstance(one.state, state.Running):
        for lease in one.state.networks:
            networks.setdefault(str(lease["network"]), {}).update(
                {
                    "IPAddress": lease["ip"],
                    "IPPrefixLen": lease["prefix_length"],
                    "GlobalIPv6Address": lease.get("ip_v6") or "",
                    "Gateway": lease["gateway"],
                    "MacAddress": lease["mac"],
                }
            )
        for port in one.state.ports:
            ports.setdefault(f"{port['container_port']}/{port['protocol']}", []).append(
                {"HostIp": str(port["host_ip"]), "HostPort": str(port["host_port"])}
            )
    empty: dict[str, object] = {}
    first = next(iter(networks.values()), empty)
    return {
        "IPAddress": first.get("IPAddress", ""),
        "Gateway": first.get("Gateway", ""),
        "MacAddress": first.get("MacAddress", ""),
        "Networks": networks,
        "Ports": ports,
    }
