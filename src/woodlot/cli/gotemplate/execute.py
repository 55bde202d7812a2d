"""Printing something with a template, and the headings of a table that a template makes."""

import difflib
import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol, cast, runtime_checkable

from woodlot.cli.gotemplate.functions import FUNCTIONS, LAZY, ArgumentError, is_true, show
from woodlot.cli.gotemplate.nodes import (
    Assign,
    Block,
    Dot,
    Field,
    Function,
    Literal,
    Node,
    Operand,
    Pipeline,
    Print,
    TemplateError,
    Text,
    Variable,
)
from woodlot.cli.gotemplate.parse import Template

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z0-9]+|[A-Z]+")


@runtime_checkable
class Record(Protocol):
    """Something with known fields, each worked out when it is asked for; one that it does not have is an error."""

    def names(self) -> Sequence[str]:
        """What fields it has."""
        ...

    def field(self, name: str) -> object:
        """The value of one of them; a function if it takes arguments."""
        ...

    def whole(self) -> Mapping[str, object]:
        """All that ``{{json .}}`` prints."""
        ...


def execute(template: Template, value: object) -> str:
    """What the template prints for a value: JSON types, or a `Record`.

    Raises:
        TemplateError: It does not fit the value.
    """
    return "".join(_Execution(template, value).nodes(template.nodes, value))


def headings(template: Template, names: Mapping[str, str]) -> str:
    """The line above the rows that the template prints: in place of each value, what it is.

    Args:
        template: A template for one row.
        names: Headings of fields; of others, the words of their names are taken.
    """
    return "".join(_headings(template.nodes, names))


def _headings(nodes: Sequence[Node], names: Mapping[str, str]) -> Iterator[str]:
    for node in nodes:
        match node:
            case Text():
                yield node.text
            case Print():
                name = next(_fields(node.pipeline), "")
                yield names.get(name) or " ".join(_WORD.findall(name)).upper()
            case Block():
                yield from _headings(node.body, names)
            case Assign():
                pass


def _fields(operand: Operand) -> Iterator[str]:
    match operand:
        case Field():
            yield operand.name
        case Pipeline():
            for command in operand.commands:
                for part in command:
                    yield from _fields(part)
        case _:
            pass


class _Execution:
    def __init__(self, template: Template, root: object) -> None:
        self.source = template.source
        self.variables: list[dict[str, object]] = [{"": root}]

    def error(self, why: str, at: int, *, hint: str | None = None) -> TemplateError:
        return TemplateError(why, self.source, at, hint=hint)

    def nodes(self, nodes: Sequence[Node], dot: object) -> Iterator[str]:
        for node in nodes:
            match node:
                case Text():
                    yield node.text
                case Print():
                    yield self.printed(self.pipeline(node.pipeline, dot))
                case Assign():
                    self.assign(node, self.pipeline(node.pipeline, dot))
                case Block():
                    yield from self.block(node, dot)

    @staticmethod
    def printed(value: object) -> str:
        return show(value.whole()) if isinstance(value, Record) else show(value)

    def assign(self, node: Assign, value: object) -> None:
        if node.declares:
            self.variables[-1][node.name] = value
            return
        scope = next(scope for scope in reversed(self.variables) if node.name in scope)
        scope[node.name] = value

    def block(self, node: Block, dot: object) -> Iterator[str]:
        value = self.pipeline(node.pipeline, dot)
        if node.kind == "range":
            pairs = self.elements(value, node.pipeline.at)
            for place, element in pairs:
                values = (place, element) if len(node.names) == 2 else (element,)
                named = dict(zip(node.names, values, strict=False))
                yield from self.scoped(node.body, element, named)
            if not pairs:
                yield from self.scoped(node.otherwise, dot, {})
            return
        named = dict.fromkeys(node.names, value)
        if is_true(value):
            yield from self.scoped(node.body, value if node.kind == "with" else dot, named)
        else:
            yield from self.scoped(node.otherwise, dot, named)

    def scoped(
        self, nodes: Sequence[Node], dot: object, variables: Mapping[str, object]
    ) -> Iterator[str]:
        self.variables.append(dict(variables))
        yield from self.nodes(nodes, dot)
        self.variables.pop()

    def elements(self, value: object, at: int) -> list[tuple[object, object]]:
        if value is None:
            return []
        if isinstance(value, Mapping):
            return sorted(cast("Mapping[str, object]", value).items())
        if isinstance(value, list | tuple):
            return list(enumerate(cast("Sequence[object]", value)))
        raise self.error("range wants a list or a map", at)

    def pipeline(self, pipeline: Pipeline, dot: object) -> object:
        first, *others = pipeline.commands
        result = self.command(first, (), dot)
        for command in others:
            result = self.command(command, (result,), dot)
        return result

    def command(
        self, command: tuple[Operand, ...], piped: tuple[object, ...], dot: object
    ) -> object:
        first, *operands = command
        if isinstance(first, Function):
            if first.name in LAZY:
                return self.lazy(first, operands, piped, dot)
            arguments = [self.operand(operand, dot) for operand in operands]
            return self.call(FUNCTIONS[first.name], first.name, [*arguments, *piped], first.at)
        value = (
            self.field(first, self.operand(first.of, dot))
            if isinstance(first, Field)
            else self.operand(first, dot)
        )
        arguments = [*(self.operand(operand, dot) for operand in operands), *piped]
        if callable(value):
            return self.call(value, _name(first), arguments, first.at)
        if arguments:
            raise self.error(f"{_name(first)} takes no arguments", first.at)
        return value

    def lazy(
        self, first: Function, operands: Sequence[Operand], piped: tuple[object, ...], dot: object
    ) -> object:
        if not operands and not piped:
            raise self.error(f"{first.name} wants a value", first.at)
        value: object = None
        for operand in operands:
            value = self.operand(operand, dot)
            if is_true(value) is LAZY[first.name]:
                return value
        return piped[0] if piped else value

    def call(
        self, function: Callable[..., object], name: str, arguments: Sequence[object], at: int
    ) -> object:
        given = [value.whole() if isinstance(value, Record) else value for value in arguments]
        try:
            inspect.signature(function).bind(*given)
        except TypeError:
            raise self.error(f"{name} cannot be given {len(given)} values", at) from None
        try:
            return function(*given)
        except ArgumentError as error:
            raise self.error(str(error), at) from error

    def operand(self, operand: Operand, dot: object) -> object:
        match operand:
            case Literal():
                return operand.value
            case Dot():
                return dot
            case Variable():
                return next(
                    scope[operand.name]
                    for scope in reversed(self.variables)
                    if operand.name in scope
                )
            case Field():
                value = self.field(operand, self.operand(operand.of, dot))
                return self.call(value, operand.name, (), operand.at) if callable(value) else value
            case Pipeline():
                return self.pipeline(operand, dot)
            case Function():
                # Without arguments, as an argument.
                return self.command((operand,), (), dot)

    def field(self, field: Field, of: object) -> object:
        if isinstance(of, Record):
            names = of.names()
            if field.name not in names:
                near = [name for name in names if name.lower() == field.name.lower()]
                near = near or difflib.get_close_matches(field.name, names, n=1)
                raise self.error(
                    f"there is no field {field.name}",
                    field.at,
                    hint=f"did you mean .{near[0]}?" if near else f"fields are {', '.join(names)}",
                )
            return of.field(field.name)
        if of is None:
            return None
        if isinstance(of, Mapping):
            return cast("Mapping[str, object]", of).get(field.name)
        raise self.error(f"{show(of)} has no fields, so no {field.name}", field.at)


def _name(operand: Operand) -> str:
    return operand.name if isinstance(operand, Function | Field | Variable) else "this"
