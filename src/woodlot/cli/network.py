"""The group ``container network``, and ``container port``."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import click

from woodlot.aio.networks import FILTERS, PRUNE_FILTERS
from woodlot.cli import completion
from woodlot.cli.groups import Group
from woodlot.cli.listing import Form, View, inspect_option, list_options, show, show_inspected
from woodlot.cli.output import raise_all
from woodlot.cli.pruning import prune_options
from woodlot.errors import ConfigError, NotFoundError, StateError, WoodlotError
from woodlot.units import format_time

if TYPE_CHECKING:
    from woodlot.aio import Network
    from woodlot.aio.networks import Driver
    from woodlot.cli.app import App
    from woodlot.cli.listing import Custom, Fields


@click.group(cls=Group)
def network() -> None:
    """Manage networks (n)."""


@network.command()
@click.argument("name")
@click.option("--subnet", metavar="CIDR", help="IPv4 subnet; a free one if not given.")
@click.option("--ipv6/--no-ipv6", default=True, help="Give containers IPv6 addresses, too.")
@click.option("--subnet-v6", metavar="CIDR", help="IPv6 subnet, a /64; a free one if not given.")
@click.option("--internal", is_flag=True, help="Let nobody out of it.")
@click.option(
    "--egress",
    multiple=True,
    default=(),
    metavar="all|none|allow=HOST[:PORT],…",
    help="What may be reached beyond it, unless run says otherwise.",
)
@click.option(
    "-d",
    "--driver",
    type=click.Choice(("switch", "bridge")),
    default="switch",
    show_default=True,
    help="What carries frames: a process of yours, or the kernel (needs root).",
)
@click.option(
    "--label", "labels", multiple=True, default=(), metavar="KEY[=VALUE]", help="Set a label."
)
@click.pass_obj
def create(
    app: "App",
    name: str,
    *,
    subnet: str | None,
    ipv6: bool,
    subnet_v6: str | None,
    internal: bool,
    egress: Sequence[str],
    driver: "Driver",
    labels: Sequence[str],
) -> None:
    """Make a network and print its name."""
    made = app.client.networks.create(
        name,
        subnet=subnet,
        ipv6=ipv6,
        subnet_v6=subnet_v6,
        internal=internal,
        egress=egress,
        driver=driver,
        labels=labels,
    )
    print(made.name)


@network.command("list")
@list_options(*FILTERS)
@click.pass_obj
def list_command(app: "App", *, form: Form) -> None:
    """List networks (ls)."""

    def fields() -> "Fields[Network]":
        from woodlot.cli.fields import network as of_network

        return of_network.listed(truncate=form.truncate)

    view: View[Network] = View(
        header=("NETWORK", "STATE", "DRIVER", "SUBNET", "INTERNAL"),
        row=lambda one: (
            one.name,
            _state(app, one),
            one.driver,
            one.subnet,
            str(one.internal).lower(),
        ),
        name=lambda one: one.name,
        describe=lambda one: _describe(app, one),
        fields=fields,
        headings={"ID": "NETWORK ID"},
    )
    show(view, app.client.networks.list(filters=form.conditions), form)


@network.command()
@click.argument("names", nargs=-1, required=True, shell_complete=completion.networks)
@inspect_option
@click.pass_obj
def inspect(app: "App", names: Sequence[str], *, style: "str | Custom | None") -> None:
    """Show all of networks, and who is attached, as a JSON array unless asked otherwise."""

    def fields() -> "Fields[Network]":
        from woodlot.cli.fields import network as of_network

        return of_network.inspected()

    found = [app.client.networks.get(name) for name in dict.fromkeys(names)]
    show_inspected(
        found, lambda one: _describe(app, one) | {"containers": _members(app, one)}, style, fields
    )


@network.command("delete")
@click.argument("names", nargs=-1, required=True, shell_complete=completion.networks)
@click.pass_obj
def delete_command(app: "App", names: Sequence[str]) -> None:
    """Delete networks to which no container is attached (rm)."""
    failures: list[WoodlotError] = []
    for name in dict.fromkeys(names):
        try:
            asyncio.run(app.client.networks.delete(name))
        except WoodlotError as error:
            failures.append(error)
        else:
            print(name)
    raise_all(failures)


@network.command()
@prune_options(*PRUNE_FILTERS, what="all networks that no container names")
@click.pass_obj
def prune(app: "App", *, conditions: Mapping[str, Sequence[str]]) -> None:
    """Delete the networks that no container names, running or stopped."""
    for name in asyncio.run(app.client.networks.prune(filters=conditions)).networks:
        print(name)


@click.command()
@click.argument("container", shell_complete=completion.containers)
@click.argument("wanted", required=False, metavar="[PORT[/PROTOCOL]]")
@click.pass_obj
def port(app: "App", container: str, *, wanted: str | None) -> None:
    """Show where ports of a container are published."""
    from woodlot.aio import state

    found = app.client.containers.get(container)
    if not isinstance(found.state, state.Running):
        raise StateError(
            f"container {found.name} is not running", hint="its ports are open while it runs"
        )
    number, _, protocol = (wanted or "").partition("/")
    if wanted and not number.isdecimal():
        raise ConfigError(f"{wanted!r} is no port", hint="give it as 80 or 53/udp")
    from woodlot.cli.fields.container import show_address

    ports = [
        one
        for one in found.state.ports
        if not wanted
        or (one["container_port"], one["protocol"]) == (int(number), protocol or "tcp")
    ]
    if wanted and not ports:
        raise NotFoundError(f"container {found.name} does not publish port {wanted}")
    for one in ports:
        lead = "" if wanted else f"{one['container_port']}/{one['protocol']} -> "
        print(f"{lead}{show_address(one)}")


def _members(app: "App", found: "Network") -> list[dict[str, object]]:
    return [
        {
            "id": member.container_id,
            "names": list(member.names),
            "ipv4Address": member.ip,
            "ipv6Address": member.ip_v6 or None,
            "macAddress": member.mac,
            "framesReceived": member.frames_received,
            "framesSent": member.frames_sent,
            "framesDropped": member.frames_dropped,
            "egressRefused": member.egress_refused,
        }
        for member in asyncio.run(app.client.networks.members(found))
    ]


def _state(app: "App", found: "Network") -> str:
    return "running" if app.client.networks.is_running(found) else "idle"


def _describe(app: "App", found: "Network") -> dict[str, object]:
    return {
        "id": found.id,
        "name": found.name,
        "subnet": found.subnet,
        "subnetV6": found.subnet_v6 or None,
        "internal": found.internal,
        "egress": found.egress,
        "driver": found.driver,
        "labels": dict(found.labels),
        "creationDate": format_time(found.created_at) if found.created_at else None,
        "state": _state(app, found),
    }
