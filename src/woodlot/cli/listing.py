"""Lists, shown the same way by every command: tables, ids, JSON, YAML, and templates as Docker's users write them."""

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar, cast

import click
from click.shell_completion import CompletionItem

from woodlot.cli.output import print_aligned, print_json, print_shown, print_table, print_yaml
from woodlot.values import dataclass

if TYPE_CHECKING:
    from woodlot.cli.gotemplate import Template

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., object])

Fields: TypeAlias = Mapping[str, Callable[[T], object]]
"""What templates can name, and where it comes from; a function where Docker has a method."""

STYLES = ("table", "json", "yaml")
_TABLE = "table "


@dataclass(frozen=True, slots=True)
class Custom:
    """A template of the user's."""

    template: "Template"
    table: bool
    """With headings, and in columns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """How a list is to be shown."""

    style: str | Custom = "table"
    quiet: bool = False
    truncate: bool = True
    conditions: Mapping[str, Sequence[str]] = field(default_factory=dict[str, Sequence[str]])


@dataclass(frozen=True, slots=True, kw_only=True)
class View(Generic[T]):
    """What things of one kind look like."""

    header: Sequence[str]
    row: Callable[[T], Sequence[str]]
    name: Callable[[T], str]
    """What ``--quiet`` shows."""
    describe: Callable[[T], Mapping[str, object]]
    """What JSON and YAML show."""
    fields: Callable[[], Fields[T]] | None = None
    """What templates can name beside the members of that; ``{{json .}}`` then shows these alone."""
    headings: Mapping[str, str] = field(default_factory=dict[str, str])


class FormatType(click.ParamType[str | Custom]):
    """``table``, ``json``, ``yaml`` or a template."""

    name = "format"

    def __init__(self, *, table: bool = True) -> None:
        self.styles = STYLES if table else STYLES[1:]
        self.table = table

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> str | Custom:
        """The style, or the template that was read."""
        if isinstance(value, Custom):
            return value
        text = str(value)
        if text in self.styles:
            return text
        if "{{" not in text:
            self.fail(f"{text!r} is none of {', '.join(self.styles)}, and no template", param, ctx)
        from woodlot.cli.gotemplate import parse

        table = self.table and text.startswith(_TABLE)
        return Custom(parse(text.removeprefix(_TABLE) if table else text), table)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """The words."""
        del ctx, param
        return [CompletionItem(style) for style in self.styles if style.startswith(incomplete)]


class FilterType(click.ParamType[str]):
    """``KEY=VALUE`` with a key that is known."""

    name = "filter"

    def __init__(self, keys: Sequence[str]) -> None:
        self.keys = keys

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> str:
        """The text, unchanged."""
        del param, ctx
        from woodlot import filters

        filters.check(filters.parse([str(value)]), self.keys, what="this")
        return str(value)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """The keys."""
        del ctx, param
        keys = [key for key in self.keys if not key.endswith("!") and key.startswith(incomplete)]
        return [CompletionItem(f"{key}=") for key in keys]


def filter_option(*keys: str, short: bool = True) -> Callable[[F], F]:
    """``--filter KEY=VALUE``, several times, given to the command as ``conditions``."""
    names = ["-f"] if short else []
    shown = ", ".join(key for key in keys if not key.endswith("!"))

    def decorate(command: F) -> F:
        @functools.wraps(command)
        def run(*args: object, conditions: Sequence[str], **options: object) -> object:
            from woodlot import filters

            return command(
                *args, conditions=filters.parse(conditions) if conditions else {}, **options
            )

        option = click.option(
            *names, "--filter", "conditions",
            multiple=True, type=FilterType(keys), metavar="KEY=VALUE", help=f"Only those that meet it: {shown}.",
        )  # fmt: skip
        return cast("F", option(run))

    return decorate


def list_options(*filters: str) -> Callable[[F], F]:
    """``--format``, ``--quiet``, ``--no-trunc`` and, with keys, ``--filter``, given to the command as a `Form`."""

    def decorate(command: F) -> F:
        @functools.wraps(command)
        def run(
            *args: object,
            style: str | Custom,
            quiet: bool,
            no_trunc: bool,
            conditions: Mapping[str, Sequence[str]] | None = None,
            **options: object,
        ) -> object:
            form = Form(
                style=style, quiet=quiet, truncate=not no_trunc, conditions=conditions or {}
            )
            return command(*args, form=form, **options)

        wrapped: Any = filter_option(*filters)(run) if filters else run
        for option in (
            click.option("--no-trunc", is_flag=True, help="Show ids and commands whole."),
            click.option(
                "-q", "--quiet", is_flag=True, help="Ids only, or names of what has none."
            ),
            format_option(),
        ):
            wrapped = option(wrapped)
        return cast("F", wrapped)

    return decorate


def format_option() -> Callable[[F], F]:
    """``--format`` of a list, given to the command as ``style``."""
    return click.option(
        "--format", "style", type=FormatType(), default="table", metavar="table|json|yaml|TEMPLATE",
        help="How to show it; a template is as '{{.ID}} {{.Names}}', with headings after 'table '.",
    )  # fmt: skip


def inspect_option(command: F) -> F:
    """``--format`` of what is inspected, given to the command as ``style``."""
    option = click.option(
        "-f", "--format", "style", type=FormatType(table=False), default=None, metavar="json|yaml|TEMPLATE",
        help="How to show it; a template is as '{{.status.state}}', for one after the other.",
    )  # fmt: skip
    return option(command)


def show(view: View[T], things: Sequence[T], form: Form) -> None:
    """Print a list."""
    if form.quiet:
        for one in things:
            print(view.name(one))
    elif isinstance(form.style, Custom):
        _print_custom(view, things, form.style)
    elif form.style == "json":
        print_json([view.describe(one) for one in things])
    elif form.style == "yaml":
        print_yaml([view.describe(one) for one in things])
    else:
        print_table(view.header, [view.row(one) for one in things])


def show_inspected(
    things: Sequence[T],
    describe: Callable[[T], Mapping[str, object]],
    style: str | Custom | None,
    fields: Callable[[], Fields[T]] | None = None,
) -> None:
    """Print everything about some things.

    Args:
        things: They.
        describe: What each is.
        style: The user's; None for an array of JSON that people can read.
        fields: What templates can name beside the members of that.
    """
    if isinstance(style, Custom):
        from woodlot.cli.gotemplate.execute import execute

        for one in things:
            print_shown(
                execute(style.template, _Row(one, fields() if fields else {}, describe, own=True))
            )
        return
    described = [describe(one) for one in things]
    if style == "yaml":
        print_yaml(described)
    else:
        print_json(described, pretty=style is None)


def show_one(one: Mapping[str, object], style: str | Custom) -> None:
    """Print one thing that is no list, in any style but a table."""
    if isinstance(style, Custom):
        view: View[Mapping[str, object]] = View(
            header=(), row=lambda _: (), name=str, describe=lambda fields: fields
        )
        _print_custom(view, [one], style)
    elif style == "yaml":
        print_yaml(one)
    else:
        print_json(one)


def _print_custom(view: View[T], things: Sequence[T], style: Custom) -> None:
    from woodlot.cli.gotemplate.execute import execute, headings

    fields: Fields[T] = view.fields() if view.fields else {}
    lines = [execute(style.template, _Row(one, fields, view.describe)) for one in things]
    if style.table:
        print_aligned([headings(style.template, view.headings), *lines])
    else:
        for line in lines:
            print_shown(line)


class _Row(Generic[T]):
    """One thing, as templates see it; see `gotemplate.execute.Record`."""

    def __init__(
        self,
        thing: T,
        fields: Fields[T],
        describe: Callable[[T], Mapping[str, object]],
        *,
        own: bool = False,
    ) -> None:
        self._thing = thing
        self._fields = fields
        self._describe = describe
        self._own = own or not fields

    @functools.cached_property
    def _described(self) -> dict[str, Any]:
        # As JSON has it: no tuples, no words that are more than texts.
        return cast("dict[str, Any]", json.loads(json.dumps(self._describe(self._thing))))

    def names(self) -> Sequence[str]:
        return [*self._fields, *self._described]

    def field(self, name: str) -> object:
        of = self._fields.get(name)
        return self._described[name] if of is None else of(self._thing)

    def whole(self) -> Mapping[str, object]:
        if self._own:
            return self._described
        values = {name: of(self._thing) for name, of in self._fields.items()}
        return {name: value for name, value in values.items() if not callable(value)}
