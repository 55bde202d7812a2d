"""How long work tells of itself; who draws it decides how."""

from typing import Protocol


class Progress(Protocol):
    """Told by long work, drawn by the command (a bar, lines) or handed to an SDK caller.

    Calls come from the thread that runs the work's event loop or from a worker thread, so an
    implementation must be thread-safe.
    """

    def start(self, key: str, label: str, *, total: int | None = None) -> None:
        """A task begins: ``key`` identifies it, ``label`` is for people, ``total`` in bytes if known."""

    def advance(self, key: str, amount: int) -> None:
        """``amount`` more bytes of the task are done."""

    def finish(self, key: str, note: str = "") -> None:
        """The task is done."""


class NoProgress:
    """Draws nothing."""

    def start(self, key: str, label: str, *, total: int | None = None) -> None:
        """Nothing."""

    def advance(self, key: str, amount: int) -> None:
        """Nothing."""

    def finish(self, key: str, note: str = "") -> None:
        """Nothing."""
