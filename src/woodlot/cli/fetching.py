"""Options of commands that may fetch an image."""

import os
import platform
from collections.abc import Callable
from typing import TypeVar

import click

from woodlot.cli.progress import KINDS

F = TypeVar("F", bound=Callable[..., object])


def platform_options(command: F) -> F:
    """``--platform``, ``--os`` and ``--arch``."""
    for option in (
        click.option("--os", default=None, help="Operating system of the image (default linux)."),
        click.option("-a", "--arch", default=None, help="Architecture (default: the host's)."),
        click.option("--platform", metavar="OS/ARCH[/VARIANT]", help="Platform; wins over both."),
    ):
        command = option(command)
    return command


def fetch_options(command: F) -> F:
    """How to talk to a registry, and how to draw it."""
    for option in (
        click.option(
            "--max-concurrent-downloads",
            type=click.IntRange(min=1),
            default=None,
            help="Blobs fetched at once (default 3).",
        ),
        click.option(
            "--progress", type=click.Choice(KINDS), default="auto", help="How progress is drawn."
        ),
        click.option(
            "--scheme",
            type=click.Choice(("auto", "http", "https")),
            default="auto",
            help="auto is plain HTTP for this machine, HTTPS for all others.",
        ),
    ):
        command = option(command)
    return command


def choose_platform(chosen: str | None, *, arch: str | None, system: str | None) -> str | None:
    """The platform that the flags or ``CONTAINER_DEFAULT_PLATFORM`` ask for; None is the host's."""
    if chosen:
        return chosen
    if arch or system:
        return f"{system or 'linux'}/{arch or platform.machine()}"
    return os.environ.get("CONTAINER_DEFAULT_PLATFORM")
