"""``container list``, ``inspect``, ``delete`` and ``prune``."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from woodlot.aio.containers import FILTERS, PRUNE_FILTERS
from woodlot.cli import completion
from woodlot.cli.listing import Form, View, inspect_option, list_options, show, show_inspected
from woodlot.cli.output import raise_all
from woodlot.cli.pruning import print_reclaimed, prune_options
from woodlot.errors import WoodlotError
from woodlot.units import MIB, format_time

if TYPE_CHECKING:
    from woodlot.aio import Container
    from woodlot.aio.state import Health, State
    from woodlot.cli.app import App
    from woodlot.cli.listing import Custom, Fields


@click.command("list")
@click.option("-a", "--all", "everything", is_flag=True, help="Stopped ones too.")
@click.option(
    "-n", "--last", type=click.IntRange(min=0), help="The last made, so many, in any state."
)
@click.option("-l", "--latest", is_flag=True, help="The last made, in any state.")
@click.option("-s", "--size", "sizes", is_flag=True, help="What each has written, too.")
@list_options(*FILTERS)
@click.pass_obj
def list_command(
    app: "App", *, everything: bool, last: int | None, latest: bool, sizes: bool, form: Form
) -> None:
    """List containers: the running ones, or all."""
    found = app.client.containers.list(
        all=everything, filters=form.conditions, last=1 if latest else last
    )
    show(_view(truncate=form.truncate, sizes=sizes), found, form)


def _view(*, truncate: bool, sizes: bool) -> "View[Container]":
    def fields() -> "Fields[Container]":
        from woodlot.cli.fields import container

        return container.listed(truncate=truncate)

    def row(one: "Container") -> tuple[str, ...]:
        cells = _row(one, truncate=truncate)
        if not sizes:
            return cells
        from woodlot.cli.fields.container import show_size

        return (*cells, show_size(one))

    header = ("ID", "NAME", "IMAGE", "OS", "ARCH", "STATE", "IP", "CPUS", "MEMORY", "STARTED")
    return View(
        header=(*header, "SIZE") if sizes else header,
        row=row,
        name=lambda one: one.id,
        describe=describe,
        fields=fields,
        headings={"ID": "CONTAINER ID", "RunningFor": "CREATED"},
    )


@click.command()
@click.argument("containers", nargs=-1, required=True, shell_complete=completion.containers)
@inspect_option
@click.pass_obj
def inspect(app: "App", containers: Sequence[str], *, style: "str | Custom | None") -> None:
    """Show all of containers, as a JSON array unless asked otherwise."""

    def fields() -> "Fields[Container]":
        from woodlot.cli.fields import container

        return container.inspected()

    found = [app.client.containers.get(key) for key in dict.fromkeys(containers)]
    show_inspected(found, describe, style, fields)


@click.command()
@click.argument("containers", nargs=-1, shell_complete=completion.containers)
@click.option("-a", "--all", "everything", is_flag=True, help="All that are stopped; with -f, all.")
@click.option("-f", "--force", is_flag=True, help="Kill running ones first.")
@click.pass_obj
def delete(app: "App", containers: Sequence[str], *, everything: bool, force: bool) -> None:
    """Delete containers and what they wrote."""
    import asyncio

    if everything and containers:
        raise click.UsageError("containers given by name conflict with --all")
    if not everything and not containers:
        raise click.UsageError("name a container, or use --all")
    failures: list[WoodlotError] = []
    if everything:
        found = [one for one in app.client.containers.list() if force or not one.is_live]
    else:
        found = list["Container"]()
        for key in dict.fromkeys(containers):
            try:
                found.append(app.client.containers.get(key))
            except WoodlotError as error:
                failures.append(error)
    unique = {one.id: one for one in found}
    failures += asyncio.run(_delete_all(list(unique.values()), force=force))
    raise_all(failures)


@click.command()
@prune_options(*PRUNE_FILTERS, what="all containers that do not run, and what they wrote")
@click.pass_obj
def prune(app: "App", *, conditions: Mapping[str, Sequence[str]]) -> None:
    """Delete all containers that do not run, and what they wrote."""
    import asyncio

    pruned = asyncio.run(app.client.containers.prune(filters=conditions))
    for container_id in pruned.containers:
        print(container_id)
    print_reclaimed(pruned)


async def _delete_all(containers: "Sequence[Container]", *, force: bool) -> list[WoodlotError]:
    import asyncio

    async def one(container: "Container") -> WoodlotError | None:
        try:
            await container.delete(force=force)
        except WoodlotError as error:
            return error
        print(container.name)
        return None

    results = await asyncio.gather(*(one(container) for container in containers))
    return [error for error in results if error is not None]


def describe(container: "Container") -> dict[str, object]:
    """A container in the shape of Apple's ``inspect``."""
    from woodlot.aio import state

    spec, current = container.spec, container.state
    system, _, architecture = spec.platform.partition("/")
    status: dict[str, object] = {"state": state.label(current), "networks": []}
    match current:
        case state.Running():
            status["startedDate"] = _date(current.started_at)
            status["pid"] = current.vm_pid
            status["accelerator"] = current.accelerator
            status["networks"] = [_lease(lease) for lease in current.networks]
            status["publishedPorts"] = [dict(port) for port in current.ports]
            status["restartCount"] = current.restart_count
            if current.health is not None:
                status["health"] = _health(current.health)
            if current.network_lost:
                status["networkLost"] = current.network_lost
            if current.files_lost:
                status["filesLost"] = current.files_lost
        case state.Stopped() | state.Restarting():
            status["startedDate"] = _date(current.started_at)
            status["finishedDate"] = _date(current.finished_at)
            status["exitCode"] = current.exit_code
            status["oomKilled"] = current.oom_killed
            status["reason"] = current.reason
            status["restartCount"] = current.restart_count
        case state.Starting() | state.Created():
            pass
    return {
        "id": spec.id,
        "name": spec.name,
        "configuration": {
            "image": {"reference": spec.image, "descriptor": {"digest": spec.image_digest}},
            "platform": {"os": system, "architecture": architecture},
            "resources": {"cpus": spec.cpus, "memoryInBytes": spec.memory_bytes},
            "initProcess": {
                "executable": spec.process.args[0],
                "arguments": list(spec.process.args[1:]),
                "environment": list(spec.process.env),
                "workingDirectory": spec.process.cwd,
                "terminal": spec.process.tty,
                "user": spec.process.user,
                "rlimits": [
                    {"limit": limit.type, "soft": limit.soft, "hard": limit.hard}
                    for limit in spec.process.rlimits
                ],
            },
            "mounts": [
                {"type": "tmpfs", "destination": mount.destination, "options": list(mount.options)}
                for mount in spec.tmpfs
            ]
            + [
                {
                    "type": mount.type,
                    "source": mount.source,
                    "destination": mount.destination,
                    "options": ["ro"] if mount.read_only else [],
                }
                for mount in spec.mounts
            ],
            "networks": [asdict(network) for network in spec.networks],
            "egress": spec.egress or None,
            "publishedPorts": [asdict(port) for port in spec.ports],
            "publishedSockets": [
                {"hostPath": one.host_path, "containerPath": one.container_path}
                for one in spec.sockets
            ],
            "ssh": spec.ssh,
            "dns": asdict(spec.dns),
            "labels": dict(spec.labels),
            "hostname": spec.hostname,
            "capAdd": list(spec.cap_add),
            "capDrop": list(spec.cap_drop),
            "readOnly": spec.read_only,
            "shmSize": spec.shm_bytes,
            "stopSignal": spec.stop_signal,
            "useInit": spec.process.init,
            "autoRemove": spec.remove,
            "restartPolicy": str(spec.restart),
            "healthcheck": asdict(spec.health) if spec.health else None,
            "kernelArguments": list(spec.kernel_args),
            "creationDate": _date(spec.created_at),
        },
        "status": status,
    }


def _shown_state(current: "State") -> str:
    from woodlot.aio import state

    match current:
        case state.Running(health=state.Health() as health):
            return f"{state.label(current)} ({health.status})"
        case state.Stopped(oom_killed=True) | state.Restarting(oom_killed=True):
            return f"{state.label(current)} (out of memory)"
        case _:
            return state.label(current)


def _health(health: "Health") -> dict[str, object]:
    return {
        "status": health.status,
        "failingStreak": health.failing_streak,
        "log": [
            {
                "start": _date(probe.started_at),
                "end": _date(probe.finished_at),
                "exitCode": probe.exit_code,
                "output": probe.output,
            }
            for probe in health.log
        ],
    }


def _lease(lease: Mapping[str, object]) -> dict[str, object]:
    return {
        "network": lease["network"],
        "ipv4Address": f"{lease['ip']}/{lease['prefix_length']}",
        "ipv6Address": f"{lease['ip_v6']}/{lease['prefix_length_v6']}"
        if lease.get("ip_v6")
        else None,
        "gateway": lease["gateway"],
        "macAddress": lease["mac"],
    }


def _row(container: "Container", *, truncate: bool) -> tuple[str, ...]:
    from woodlot.aio import state

    spec, current = container.spec, container.state
    system, _, architecture = spec.platform.partition("/")
    started = current.started_at if isinstance(current, state.Running | state.Stopped) else 0.0
    return (
        spec.id[:12] if truncate else spec.id,
        spec.name,
        container.image_name,
        system,
        architecture,
        _shown_state(current),
        current.ip if isinstance(current, state.Running) else "",
        f"{spec.cpus:g}",
        f"{spec.memory_bytes // MIB} MB",
        _date(started) or "",
    )


def _date(seconds: float) -> str | None:
    return format_time(seconds) if seconds else None
