"""Every Linux container in a virtual machine of its own, without a daemon.

    import woodlot

    with woodlot.run("python:3.11", network="none") as container:
        print(container.exec(["python3", "-c", "print(6 * 7)"], timeout_s=5).stdout)

`woodlot.aio` is the same for asyncio.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from woodlot.aio import Result
    from woodlot.sync import Client, Container, run

__all__ = ["Client", "Container", "Result", "__version__", "run"]

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """Loaded when first used: the command must not wait for what it does not need."""
    if name not in __all__:
        raise AttributeError(f"module 'woodlot' has no attribute {name!r}")
    import importlib

    module = "woodlot.aio" if name == "Result" else "woodlot.sync"
    value: object = getattr(importlib.import_module(module), name)
    return value
