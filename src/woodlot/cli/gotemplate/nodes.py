"""What a template consists of, and the error that points into it."""

from collections.abc import Sequence
from typing import TypeAlias

from woodlot.errors import ConfigError
from woodlot.values import dataclass


class TemplateError(ConfigError):
    """A template that cannot be read, or that does not fit what it is given."""

    def __init__(self, why: str, source: str, at: int, *, hint: str | None = None) -> None:
        start = source.rfind("\n", 0, at) + 1
        line = source[start:].partition("\n")[0]
        # A long line is shown around the place.
        left = max(0, at - start - 60)
        shown = line[left : left + 120].replace("\t", " ")
        super().__init__(
            f"the template given with --format is wrong at character {at + 1}: {why}",
            details=f"{shown}\n{' ' * (at - start - left)}^",
            hint=hint,
        )


@dataclass(frozen=True, slots=True)
class Literal:
    """A text, a number, ``true``, ``false`` or ``nil``."""

    value: object
    at: int


@dataclass(frozen=True, slots=True)
class Variable:
    """``$name``; ``$`` alone is what the whole template was given."""

    name: str
    at: int


@dataclass(frozen=True, slots=True)
class Dot:
    """``.``: what the surrounding block is about."""

    at: int


@dataclass(frozen=True, slots=True)
class Function:
    """The name of a function."""

    name: str
    at: int


@dataclass(frozen=True, slots=True)
class Field:
    """``.Name`` of something."""

    of: "Operand"
    name: str
    at: int


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Commands, each given the result of the one before as its last argument."""

    commands: tuple[tuple["Operand", ...], ...]
    at: int


Operand: TypeAlias = Literal | Variable | Dot | Function | Field | Pipeline


@dataclass(frozen=True, slots=True)
class Text:
    """What is printed as it is."""

    text: str


@dataclass(frozen=True, slots=True)
class Print:
    """``{{pipeline}}``: what it gives is printed."""

    pipeline: Pipeline


@dataclass(frozen=True, slots=True)
class Assign:
    """``{{$name := pipeline}}``, or with ``=`` for one that is there."""

    name: str
    pipeline: Pipeline
    declares: bool
    at: int


@dataclass(frozen=True, slots=True)
class Block:
    """``if``, ``with`` or ``range``, with what is printed when the pipeline is empty."""

    kind: str
    names: tuple[str, ...]
    """Variables that are declared: of a range the element, or its place and the element."""
    pipeline: Pipeline
    body: Sequence["Node"]
    otherwise: Sequence["Node"]


Node: TypeAlias = Text | Print | Assign | Block
