"""Containers from asyncio; `woodlot.Client` is the same for programs without it.

async with Client() as client, client.run("python:3.11", network="none") as container:
print((await container.exec(["python3", "-c", "print(6 * 7)"], timeout_s=5)).stdout)

A `Client` has what there is by its nouns: `containers`, `images`, `volumes`, `networks`, `system`. Methods that look at what is
on the disk are plain; those that wait, for a container, a registry or much room to be freed, are awaited.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from woodlot.aio.client import Client
    from woodlot.aio.container import Container
    from woodlot.aio.files import Sizes
    from woodlot.aio.options import Options
    from woodlot.aio.processes import Result
    from woodlot.aio.starting import Starting
    from woodlot.aio.system import Status
    from woodlot.archive.unpack import Unpacked
    from woodlot.container.begin import Prepared
    from woodlot.container.client import Attachment
    from woodlot.container.create import Request
    from woodlot.container.disk_usage import DiskUsage, Usage
    from woodlot.container.files import Change, ChangeKind
    from woodlot.container.health import HealthRequest
    from woodlot.container.logs import Record
    from woodlot.container.meter import Meter, Reading
    from woodlot.container.prune import Pruned
    from woodlot.container.session import End
    from woodlot.container.spec import ContainerSpec
    from woodlot.container.usage import Processes, RunningProcess, Stats
    from woodlot.guest.said import Output
    from woodlot.image.image import Image, LocalImage
    from woodlot.image.local import Variant
    from woodlot.kernel.catalog import Kernel
    from woodlot.network.network import Network
    from woodlot.network.switch import Member
    from woodlot.store.events import Event
    from woodlot.template.template import Template
    from woodlot.volume.volume import Volume

_HOMES = {
    "Attachment": "woodlot.container.client",
    "Change": "woodlot.container.files",
    "ChangeKind": "woodlot.container.files",
    "Client": "woodlot.aio.client",
    "Container": "woodlot.aio.container",
    "ContainerSpec": "woodlot.container.spec",
    "DiskUsage": "woodlot.container.disk_usage",
    "End": "woodlot.container.session",
    "Event": "woodlot.store.events",
    "HealthRequest": "woodlot.container.health",
    "Image": "woodlot.image.image",
    "Kernel": "woodlot.kernel.catalog",
    "LocalImage": "woodlot.image.image",
    "Member": "woodlot.network.switch",
    "Meter": "woodlot.container.meter",
    "Network": "woodlot.network.network",
    "Options": "woodlot.aio.options",
    "Output": "woodlot.guest.client",
    "Prepared": "woodlot.container.begin",
    "Processes": "woodlot.container.usage",
    "Pruned": "woodlot.container.prune",
    "Reading": "woodlot.container.meter",
    "Record": "woodlot.container.logs",
    "Request": "woodlot.container.create",
    "Result": "woodlot.aio.processes",
    "RunningProcess": "woodlot.container.usage",
    "Sizes": "woodlot.aio.files",
    "Starting": "woodlot.aio.starting",
    "Stats": "woodlot.container.usage",
    "Status": "woodlot.aio.system",
    "Template": "woodlot.template.template",
    "Unpacked": "woodlot.archive.unpack",
    "Usage": "woodlot.container.disk_usage",
    "Variant": "woodlot.image.local",
    "Volume": "woodlot.volume.volume",
}


def __getattr__(name: str) -> object:
    """Loaded when first used: most programs need little of it, and the command least."""
    if name not in _HOMES:
        raise AttributeError(f"module 'woodlot.aio' has no attribute {name!r}")
    import importlib

    value: object = getattr(importlib.import_module(_HOMES[name]), name)
    return value


__all__ = [
    "Attachment",
    "Change",
    "ChangeKind",
    "Client",
    "Container",
    "ContainerSpec",
    "DiskUsage",
    "End",
    "Event",
    "HealthRequest",
    "Image",
    "Kernel",
    "LocalImage",
    "Member",
    "Meter",
    "Network",
    "Options",
    "Output",
    "Prepared",
    "Processes",
    "Pruned",
    "Reading",
    "Record",
    "Request",
    "Result",
    "RunningProcess",
    "Sizes",
    "Starting",
    "Stats",
    "Status",
    "Template",
    "Unpacked",
    "Usage",
    "Variant",
    "Volume",
]
