"""``container run`` and ``container create``."""

import asyncio
import contextlib
import os
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from woodlot import trace
from woodlot.cli import completion
from woodlot.cli.fetching import choose_platform, fetch_options, platform_options
from woodlot.cli.progress import make_progress
from woodlot.errors import ConfigError, WoodlotError
from woodlot.values import dataclass

if TYPE_CHECKING:
    from woodlot.aio import Prepared, Request
    from woodlot.aio.images import Scheme
    from woodlot.cli.app import App

MANY: dict[str, Any] = {"multiple": True, "default": ()}


# What describes a container, in `run` and `create` alike.
_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.option("-i", "--interactive", is_flag=True, help="Keep stdin open."),
    click.option("-t", "--tty", is_flag=True, help="Give the process a terminal."),
    click.option(
        "--rm", "--remove", "remove", is_flag=True, help="Delete the container at its end."
    ),
    click.option(
        "--restart",
        metavar="POLICY",
        help="Start it again when it ends: no, on-failure[:MAX], unless-stopped or always.",
    ),
    click.option("--health-cmd", metavar="COMMAND", help="Ask it so whether it is well."),
    click.option("--health-interval", metavar="TIME", help="Between one probe and the next."),
    click.option("--health-timeout", metavar="TIME", help="What a probe may take."),
    click.option("--health-retries", type=int, help="Failures until it is unhealthy."),
    click.option(
        "--health-start-period", metavar="TIME", help="At its start, when failures do not count."
    ),
    click.option("--health-start-interval", metavar="TIME", help="Between probes in that time."),
    click.option("--no-healthcheck", is_flag=True, help="Do not ask, though the image says how."),
    click.option("--name", help="Name of the container."),
    click.option("-e", "--env", **MANY, metavar="NAME[=VALUE]", help="Set a variable."),
    click.option(
        "--env-file",
        "env_files",
        **MANY,
        type=click.Path(path_type=Path),
        help="Set variables from a file.",
    ),
    click.option("-u", "--user", metavar="NAME|UID[:GROUP|GID]", help="User of the process."),
    click.option("--uid", type=click.IntRange(0, 2**32 - 2), help="User id."),
    click.option("--gid", type=click.IntRange(0, 2**32 - 2), help="Group id."),
    click.option("-w", "--workdir", "--cwd", "workdir", metavar="DIR", help="Working directory."),
    click.option(
        "--entrypoint", metavar="COMMAND", help="In place of the image's entrypoint and command."
    ),
    click.option("-c", "--cpus", type=float, help="CPUs."),
    click.option("-m", "--memory", metavar="SIZE", help="Memory, as 512m or 2g."),
    click.option("--read-only", is_flag=True, help="Make the root filesystem read-only."),
    click.option("--tmpfs", **MANY, metavar="PATH[:OPTIONS]", help="Mount a memory filesystem."),
    click.option(
        "-v",
        "--volume",
        "volumes",
        **MANY,
        metavar="[SOURCE:]PATH[:ro]",
        help="Share files or a volume.",
    ),
    click.option(
        "--mount",
        "mounts",
        **MANY,
        metavar="type=…,source=…,target=…",
        help="Mount files, a volume, a tmpfs.",
    ),
    click.option("--shm-size", metavar="SIZE", help="Size of /dev/shm (default 64m)."),
    click.option(
        "--ulimit", "ulimits", **MANY, metavar="TYPE=SOFT[:HARD]", help="Set a resource limit."
    ),
    click.option("--cap-add", **MANY, metavar="CAP", help="Add a capability."),
    click.option("--cap-drop", **MANY, metavar="CAP", help="Drop a capability."),
    click.option("-l", "--label", "labels", **MANY, metavar="KEY[=VALUE]", help="Set a label."),
    click.option("--cidfile", type=click.Path(path_type=Path), help="Write the id to a file."),
    click.option("--init", is_flag=True, help="Run a small init that reaps and forwards signals."),
    click.option(
        "--network",
        "--net",
        "networks",
        **MANY,
        metavar="NAME[,alias=…,ip=…,mac=…]",
        help="Attach to a network, or to none; may be given several times.",
    ),
    click.option(
        "--egress",
        **MANY,
        metavar="all|none|allow=HOST[:PORT],…",
        help="What may be reached beyond the networks: names, *.names, addresses, CIDRs.",
    ),
    click.option(
        "-p",
        "--publish",
        "ports",
        **MANY,
        metavar="[IP:][HOST:]PORT[/udp]",
        help="Open a port of the host, or a range, to the container.",
    ),
    click.option(
        "-P", "--publish-all", is_flag=True, help="Open a free port for each the image exposes."
    ),
    click.option(
        "--publish-socket",
        "publish_sockets",
        **MANY,
        metavar="HOST_PATH:PATH",
        help="Open a Unix socket on the host that leads to one in the container.",
    ),
    click.option("--ssh", is_flag=True, help="Let the container use your SSH agent."),
    click.option("--hostname", metavar="NAME", help="Name the container calls itself."),
    click.option("--add-host", "hosts", **MANY, metavar="NAME:IP", help="Add to /etc/hosts."),
    click.option("--dns", **MANY, metavar="IP", help="Resolver for names beyond the networks."),
    click.option("--dns-search", **MANY, metavar="DOMAIN", help="Domain to look names up in."),
    click.option(
        "--dns-option",
        "--dns-opt",
        "dns_options",
        **MANY,
        metavar="OPTION",
        help="Option of resolv.conf.",
    ),
    click.option("--no-dns", is_flag=True, help="Leave resolv.conf as the image has it."),
    click.option("-k", "--kernel", type=click.Path(path_type=Path), help="Kernel file to boot."),
    click.option(
        "--kernel-arg",
        "kernel_args",
        **MANY,
        metavar="ARG",
        help="Add to the kernel's command line.",
    ),
    platform_options,
    fetch_options,
)


def container_options(command: Callable[..., object]) -> Callable[..., object]:
    """Give a command the image, the arguments, and every option that describes a container."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return click.argument("image", shell_complete=completion.images)(
        click.argument("args", nargs=-1, type=click.UNPROCESSED)(command)
    )


@click.command(context_settings={"allow_interspersed_args": False})
@container_options
@click.option("-d", "--detach", is_flag=True, help="Run in the background and print the id.")
@click.pass_obj
def run(
    app: "App",
    /,
    image: str,
    *,
    detach: bool,
    **asked: Any,  # noqa: ANN401 - of every option its own
) -> int:
    """Run a container in a virtual machine of its own."""
    with _ending_with_125():
        request, fetching = _parse(asked)
        _check_terminal(request, detach=detach)
        with trace.span("image, kernel, accelerator"):
            prepared = _prepare(app, image, request, fetching)
        return _run(app, prepared, detach=detach, cidfile=fetching.cidfile)


@click.command(context_settings={"allow_interspersed_args": False})
@container_options
@click.pass_obj
def create(
    app: "App",
    /,
    image: str,
    **asked: Any,  # noqa: ANN401 - of every option its own
) -> None:
    """Make a container without starting it, and print its id."""
    with _ending_with_125():
        request, fetching = _parse(asked)
        prepared = _prepare(app, image, request, fetching)
        made = app.client.containers.record(prepared)
        if fetching.cidfile is not None:
            fetching.cidfile.write_text(made.id)
        click.echo(made.id)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fetching:
    """What is asked for that is no part of the container."""

    cidfile: Path | None
    platform: str | None
    scheme: "Scheme"
    progress: str
    max_concurrent: int | None


def _parse(asked: dict[str, Any]) -> "tuple[Request, _Fetching]":
    from woodlot.aio import HealthRequest, Request

    fetching = _Fetching(
        cidfile=asked.pop("cidfile"),
        platform=choose_platform(
            asked.pop("platform"), arch=asked.pop("arch"), system=asked.pop("os")
        ),
        scheme=asked.pop("scheme"),
        progress=asked.pop("progress"),
        max_concurrent=asked.pop("max_concurrent_downloads"),
    )
    asked["health"] = HealthRequest(
        command=asked.pop("health_cmd"),
        interval=asked.pop("health_interval"),
        timeout=asked.pop("health_timeout"),
        retries=asked.pop("health_retries"),
        start_period=asked.pop("health_start_period"),
        start_interval=asked.pop("health_start_interval"),
        disabled=asked.pop("no_healthcheck"),
    )
    request = Request(**asked)
    request.check()
    if fetching.cidfile is not None:
        _check_cidfile(fetching.cidfile)
    return request, fetching


def _prepare(app: "App", image: str, request: "Request", fetching: _Fetching) -> "Prepared":
    with make_progress(fetching.progress) as drawn:
        return asyncio.run(
            app.client.containers.prepare(
                image,
                request,
                platform=fetching.platform,
                scheme=fetching.scheme,
                progress=drawn,
                max_concurrent=fetching.max_concurrent,
            )
        )


@contextlib.contextmanager
def _ending_with_125() -> Generator[None]:
    """Our own failures have a status that few programs have, as Docker's."""
    try:
        yield
    except WoodlotError as error:
        error.exit_status = 125  # type: ignore[attr-defined]
        raise


def _run(app: "App", prepared: "Prepared", *, detach: bool, cidfile: Path | None) -> int:
    with trace.span("record and fork"):
        starting = app.client.containers.begin(prepared)
    container = starting.container
    if cidfile is not None:
        cidfile.write_text(container.id)
    try:
        starting.wait()
        if detach:
            asyncio.run(starting.start())
            click.echo(container.id)
            return 0
        from woodlot.cli.attach import run_foreground, window_of

        process = container.spec.process
        opened = starting.attach(owner=True, stdin=process.stdin, window=window_of(tty=process.tty))
        return run_foreground(opened, container, stdin=process.stdin)
    except WoodlotError:
        starting.forget()
        raise


def _check_terminal(request: "Request", *, detach: bool) -> None:
    if request.tty and request.interactive and not detach and not os.isatty(0):
        raise ConfigError(
            "the input device is not a terminal",
            hint="leave out -t, or run it in a terminal",
        )


def _check_cidfile(path: Path) -> None:
    """As Docker, never write over a file: it may hold the id of a container that still runs."""
    if path.exists():
        raise ConfigError(
            f"--cidfile {path} exists",
            hint="remove it if the container that it names is not needed",
        )
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise ConfigError(f"--cidfile {path} cannot be written in {path.parent}")
