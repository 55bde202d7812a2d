"""``container system df``: what everything takes on the disk."""

import asyncio
from typing import TYPE_CHECKING

import click

from woodlot.cli.listing import Custom, Form, View, format_option, show, show_one
from woodlot.cli.output import print_table
from woodlot.units import format_size

if TYPE_CHECKING:
    from woodlot.aio import Usage
    from woodlot.cli.app import App

_TITLES = {
    "images": "Images",
    "containers": "Containers",
    "volumes": "Local Volumes",
    "templates": "Templates",
    "kernels": "Kernels",
    "caches": "Caches",
}


@click.command("df")
@click.option("-v", "--verbose", is_flag=True, help="Each thing, not only sums.")
@format_option()
@click.pass_obj
def df(app: "App", *, verbose: bool, style: str | Custom) -> None:
    """Show what everything takes on the disk, and what of it nothing needs."""
    measured = asyncio.run(app.client.system.df())
    kinds: list[tuple[str, Usage]] = [(name, getattr(measured, name)) for name in _TITLES]
    if style in {"json", "yaml"}:
        show_one({name: _describe(usage, verbose=verbose) for name, usage in kinds}, style)
        return
    if verbose and style == "table":
        for name, usage in kinds:
            click.echo(f"{_TITLES[name]}: {format_size(usage.size_bytes)}")
            rows = [
                (item.name, format_size(item.size_bytes), "yes" if item.active else "no")
                for item in usage.items
            ]
            print_table(("NAME", "SIZE", "ACTIVE"), rows)
            click.echo()
        return
    view: View[tuple[str, Usage]] = View(
        header=("TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"),
        row=lambda kind: (
            _TITLES[kind[0]],
            str(kind[1].total),
            str(kind[1].active),
            format_size(kind[1].size_bytes),
            _reclaimable(kind[1]),
        ),
        name=lambda kind: kind[0],
        describe=lambda kind: _describe(kind[1], verbose=verbose),
        fields=lambda: {
            "Active": lambda kind: str(kind[1].active),
            "Reclaimable": lambda kind: _reclaimable(kind[1]),
            "Size": lambda kind: format_size(kind[1].size_bytes),
            "TotalCount": lambda kind: str(kind[1].total),
            "Type": lambda kind: _TITLES[kind[0]],
        },
        headings={"TotalCount": "TOTAL"},
    )
    show(view, kinds, Form(style=style))


def _describe(usage: "Usage", *, verbose: bool) -> dict[str, object]:
    described: dict[str, object] = {
        "total": usage.total,
        "active": usage.active,
        "sizeInBytes": usage.size_bytes,
        "reclaimable": usage.reclaimable_bytes,
    }
    if verbose:
        described["items"] = [
            {"name": item.name, "sizeInBytes": item.size_bytes, "active": item.active}
            for item in usage.items
        ]
    return described


def _reclaimable(usage: "Usage") -> str:
    share = usage.reclaimable_bytes * 100 // usage.size_bytes if usage.size_bytes else 0
    return f"{format_size(usage.reclaimable_bytes)} ({share}%)"
