"""``container run``."""

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from woodlot.cli.image import choose_platform, fetch_options, platform_options
from woodlot.cli.progress import make_progress
from woodlot.container.create import Request, build_spec
from woodlot.container.network import parse_networks
from woodlot.errors import ConfigError, NotFoundError, WoodlotError

if TYPE_CHECKING:
    from woodlot.cli.app import App
    from woodlot.container.boot import MachinePlan
    from woodlot.container.spec import ContainerSpec
    from woodlot.image.image import Image
    from woodlot.oci.platform import Platform
    from woodlot.progress import Progress

MANY: dict[str, Any] = {"multiple": True, "default": ()}


@click.command(context_settings={"allow_interspersed_args": False})
@click.argument("image")
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
@click.option("-i", "--interactive", is_flag=True, help="Keep stdin open.")
@click.option("-t", "--tty", is_flag=True, help="Give the process a terminal.")
@click.option("-d", "--detach", is_flag=True, help="Run in the background and print the id.")
@click.option("--rm", "--remove", "remove", is_flag=True, help="Delete the container at its end.")
@click.option("--name", help="Name of the container.")
@click.option("-e", "--env", **MANY, metavar="NAME[=VALUE]", help="Set a variable.")
@click.option(
    "--env-file",
    "env_files",
    **MANY,
    type=click.Path(path_type=Path),
    help="Set variables from a file.",
)
@click.option("-u", "--user", metavar="NAME|UID[:GROUP|GID]", help="User of the process.")
@click.option("--uid", type=click.IntRange(0, 2**32 - 2), help="User id.")
@click.option("--gid", type=click.IntRange(0, 2**32 - 2), help="Group id.")
@click.option("-w", "--workdir", "--cwd", "workdir", metavar="DIR", help="Working directory.")
@click.option(
    "--entrypoint", metavar="COMMAND", help="In place of the image's entrypoint and command."
)
@click.option("-c", "--cpus", type=float, help="CPUs.")
@click.option("-m", "--memory", metavar="SIZE", help="Memory, as 512m or 2g.")
@click.option("--read-only", is_flag=True, help="Make the root filesystem read-only.")
@click.option("--tmpfs", **MANY, metavar="PATH[:OPTIONS]", help="Mount a memory filesystem.")
@click.option("--shm-size", metavar="SIZE", help="Size of /dev/shm (default 64m).")
@click.option(
    "--ulimit", "ulimits", **MANY, metavar="TYPE=SOFT[:HARD]", help="Set a resource limit."
)
@click.option("--cap-add", **MANY, metavar="CAP", help="Add a capability.")
@click.option("--cap-drop", **MANY, metavar="CAP", help="Drop a capability.")
@click.option("-l", "--label", "labels", **MANY, metavar="KEY[=VALUE]", help="Set a label.")
@click.option("--cidfile", type=click.Path(path_type=Path), help="Write the id to a file.")
@click.option("--init", is_flag=True, help="Run a small init that reaps and forwards signals.")
@click.option(
    "--network",
    "--net",
    "networks",
    **MANY,
    metavar="NAME[,alias=…,ip=…,mac=…]",
    help="Attach to a network, or to none; may be given several times.",
)
@click.option(
    "-p",
    "--publish",
    "ports",
    **MANY,
    metavar="[IP:][HOST:]PORT[/udp]",
    help="Open a port of the host, or a range, to the container.",
)
@click.option(
    "-P", "--publish-all", is_flag=True, help="Open a free port for each the image exposes."
)
@click.option("--hostname", metavar="NAME", help="Name the container calls itself.")
@click.option("--add-host", "hosts", **MANY, metavar="NAME:IP", help="Add to /etc/hosts.")
@click.option("--dns", **MANY, metavar="IP", help="Resolver for names beyond the networks.")
@click.option("--dns-search", **MANY, metavar="DOMAIN", help="Domain to look names up in.")
@click.option(
    "--dns-option",
    "--dns-opt",
    "dns_options",
    **MANY,
    metavar="OPTION",
    help="Option of resolv.conf.",
)
@click.option("--no-dns", is_flag=True, help="Leave resolv.conf as the image has it.")
@click.option("-k", "--kernel", type=click.Path(path_type=Path), help="Kernel file to boot.")
@click.option(
    "--kernel-arg", "kernel_args", **MANY, metavar="ARG", help="Add to the kernel's command line."
)
@platform_options
@fetch_options
@click.pass_obj
def run(
    app: "App",
    /,
    image: str,
    *,
    detach: bool,
    cidfile: Path | None,
    platform: str | None,
    arch: str | None,
    os: str | None,
    scheme: str,
    progress: str,
    max_concurrent_downloads: int | None,
    **asked: object,
) -> int:
    """Run a container in a virtual machine of its own."""
    try:
        request = Request(**asked)  # type: ignore[arg-type]
        request.check()
        _check_terminal(request, detach=detach)
        if cidfile is not None:
            _check_cidfile(cidfile)
        wanted = choose_platform(platform, arch=arch, system=os)
        with make_progress(progress) as drawn:
            found, plan = asyncio.run(
                _prepare(
                    app,
                    image,
                    request,
                    wanted,
                    drawn,
                    scheme=scheme,
                    max_concurrent=max_concurrent_downloads,
                )
            )
        return _run(app, found, plan, request, detach=detach, cidfile=cidfile)
    except WoodlotError as error:
        error.exit_status = 125  # type: ignore[attr-defined]
        raise


async def _prepare(
    app: "App",
    reference: str,
    request: Request,
    platform: "Platform | None",
    progress: "Progress",
    *,
    scheme: str,
    max_concurrent: int | None,
) -> "tuple[Image, MachinePlan]":
    """The image, pulled if it is not here, and what the VM is started with; both may take long the first time."""
    from woodlot.container.boot import plan_machine
    from woodlot.image.image import load
    from woodlot.vmm.base import Arch

    if request.name:
        # Before anything is fetched; that nobody takes it meanwhile is made sure with the record.
        from woodlot.container.lifecycle import check_name_is_free

        check_name_is_free(app.store, request.name)
    for wanted in parse_networks(request.networks):
        from woodlot.network.network import find

        find(app.store, wanted.network)
    try:
        image = load(app.store, reference, platform)
    except NotFoundError:
        from woodlot.image.pull import pull

        image = await pull(
            app.store,
            reference,
            platform=platform,
            scheme=scheme,
            progress=progress,
            max_concurrent=max_concurrent,
        )
    try:
        arch = Arch(image.platform.architecture)
    except ValueError:
        raise ConfigError(
            f"image {image.reference.familiar} is for {image.platform}, which no guest of ours can run",
            hint="choose linux/amd64 or linux/arm64 with --platform",
        ) from None
    plan = await plan_machine(app.paths, arch=arch, kernel_file=request.kernel, progress=progress)
    return image, plan


def _run(
    app: "App",
    image: "Image",
    plan: "MachinePlan",
    request: Request,
    *,
    detach: bool,
    cidfile: Path | None,
) -> int:
    from woodlot.container.launch import launch
    from woodlot.container.lifecycle import reserve
    from woodlot.image.image import load
    from woodlot.vmm.base import Accelerator

    with app.store.using_sync():
        # Once more, now that nothing can sweep it away.
        load(app.store, image.reference, image.platform)
        spec = build_spec(image, request, emulated=plan.accelerator is Accelerator.TCG)
        lock = reserve(app.store, spec)
    # SQLite must not be open across a fork; it opens again when it is used.
    app.store.close()
    lifeline = launch(app.paths, spec.id, plan, lock)
    if cidfile is not None:
        cidfile.write_text(spec.id)
    from woodlot.cli.attach import run_foreground, start_detached
    from woodlot.container.lifeline import wait_ready

    try:
        wait_ready(lifeline)
        socket_path = app.paths.sockets(spec.id) / "s.sock"
        if detach:
            start_detached(socket_path)
            click.echo(spec.id)
            return 0
        console_log = app.paths.container(spec.id) / "console.log"
        return run_foreground(
            socket_path, spec, console_log=console_log, owner=True, stdin=spec.process.stdin
        )
    except WoodlotError:
        lifeline.close()
        _forget(app, spec)
        raise


def _forget(app: "App", spec: "ContainerSpec") -> None:
    """Delete a container that never ran, so that its name is free again."""
    from woodlot.container import lifecycle, state
    from woodlot.store.locks import hold_sync

    directory = app.paths.container(spec.id)
    if directory.is_dir():
        with hold_sync(directory / "lock"):
            pass
    for container in lifecycle.find_all(app.store):
        match container.state:
            case state.Stopped(started_at=0.0) if container.spec.id == spec.id:
                lifecycle.delete(app.store, container)
            case _:
                pass


def _check_terminal(request: Request, *, detach: bool) -> None:
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
