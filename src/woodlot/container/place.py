"""Where a copy goes, by Docker's rules for ``SRC``, ``SRC/.`` and ``DST/``: pure.

Source: docs.docker.com, "docker container cp"; tried with Docker 20.10.
"""

import posixpath

from woodlot.errors import NotFoundError, StateError
from woodlot.values import dataclass


@dataclass(frozen=True, slots=True)
class Typed:
    """The path of one side of a copy, as it was typed."""

    path: str

    @property
    def asserts_directory(self) -> bool:
        """It says that there is a directory: it ends in a slash, ``/.`` or is ``.``."""
        return self.path.endswith(("/", "/.")) or self.path in {"", "."}

    @property
    def contents(self) -> bool:
        """Not the directory is meant, but what is in it."""
        return self.path.endswith("/.") or self.path == "."


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What is copied."""

    name: str
    """Of a directory or file; empty for the root directory."""
    is_directory: bool
    contents: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where it is copied to."""

    path: str
    """Absolute, without symlinks; its parent is there."""
    exists: bool
    is_directory: bool = False
    is_file: bool = False
    asserts_directory: bool = False
    contents: bool = False


def place(source: Source, target: Target) -> tuple[str, str]:
    """The directory that the source is put in, which exists, and the name that it gets there; ``.`` for none.

    Raises:
        StateError: A directory cannot take the place of a file, or the other way round.
        NotFoundError: A directory that the target says to be there is not.
    """
    parent, name = posixpath.split(target.path)
    if target.is_directory:
        if source.contents or not source.name:
            return target.path, "."
        return target.path, source.name
    if target.exists:
        if target.asserts_directory:
            raise StateError(f"{target.path} is not a directory")
        if source.is_directory:
            raise StateError(f"cannot copy a directory to the file {target.path}")
        if not target.is_file:
            raise StateError(f"{target.path} is neither a directory nor a regular file")
        return parent, name
    if target.contents or (target.asserts_directory and not source.is_directory):
        raise NotFoundError(f"no such directory: {target.path}")
    return parent, name
