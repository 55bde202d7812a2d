r"""Reading a template.

    template   (text | "{{" action "}}")*        with "{{- " and " -}}" the space beside is left out
    action     "if" | "else if" | "with" | "range", each with a pipeline; "else"; "end"; a comment; [$name (:= | =)] pipeline
    pipeline   command ("|" command)*
    command    operand+
    operand    "." | .Name… | $name | $name.Name… | function | "text" | `text` | number | true | false | nil | "(" pipeline ")"

Outside of actions ``\t`` and ``\n`` are a tab and a newline, as Docker reads them. Source: Go's package text/template.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import field

from woodlot.cli.gotemplate.functions import FUNCTIONS
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
from woodlot.values import dataclass

MAX_CHARACTERS = 1 << 16
_MAX_DEPTH = 64
# The end of an action is the first }} outside of texts and comments.
_CLOSING = re.compile(
    r"""\"(?:\\.|[^"\\\n])*" | `[^`]*` | '(?:\\.|[^'\\\n])+' | /\*.*?\*/ | (?P<end>\}\})""",
    re.VERBOSE | re.DOTALL,
)
_TOKEN = re.compile(
    r"""\s*(?: (?P<text>"(?:\\.|[^"\\\n])*")
      | (?P<raw>`[^`]*`)
      | (?P<char>'(?:\\.|[^'\\\n])+')
      | (?P<number>[+-]?(?:0[xX][0-9a-fA-F]+|\d+(?:\.\d*)?(?:[eE][+-]?\d+)?))
      | (?P<field>\.[A-Za-z_]\w*)
      | (?P<variable>\$\w*)
      | (?P<word>[A-Za-z_]\w*)
      | (?P<sign>:=|=|\||\(|\)|,|\.))""",
    re.VERBOSE,
)
_WORDS = {"true": True, "false": False, "nil": None}
_REFUSED = ("block", "break", "continue", "define", "template")


@dataclass(frozen=True, slots=True)
class Template:
    """A template that was read."""

    source: str
    nodes: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    at: int
    spaced: bool
    """A space stands before it: ``.A .B`` are two values, ``.A.B`` is one."""


@dataclass(slots=True)
class _Open:
    """A block whose end has not come yet."""

    kind: str
    names: tuple[str, ...]
    pipeline: Pipeline
    at: int
    outer: list[Node]
    """Where the block goes."""
    body: list[Node] = field(default_factory=list[Node])
    otherwise: list[Node] = field(default_factory=list[Node])
    has_else: bool = False
    chained: bool = False
    """It is the ``else if`` of another, and ends with it."""


def parse(source: str) -> Template:
    """The template that a text is.

    Raises:
        TemplateError: It is none; the error shows where.
    """
    if len(source) > MAX_CHARACTERS:
        raise TemplateError("it is too long", source, 0)
    return Template(source, tuple(_Parser(source).template()))


class _Parser:
    def __init__(self, source: str) -> None:
        self.source = source
        self.nodes: list[Node] = []
        self.open: list[_Open] = []
        self.scopes: list[set[str]] = [{""}]

    def template(self) -> list[Node]:
        position, trim = 0, False
        while (start := self.source.find("{{", position)) >= 0:
            found = _CLOSING.finditer(self.source, start + 2)
            end = next((match.start() for match in found if match["end"]), None)
            if end is None:
                raise self.error("this action is not closed: }} is missing", start)
            body = self.source[start + 2 : end]
            trims = body[:1] == "-" and body[1:2].isspace()
            self.text(self.source[position:start], left=trim, right=trims)
            trim = body[-1:] == "-" and body[-2:-1].isspace()
            # The place of each character stays what it is.
            body = f" {body[1:]}" if trims else body
            self.action(body[:-1] if trim else body, start + 2)
            position = end + 2
        self.text(self.source[position:], left=trim, right=False)
        if self.open:
            block = self.open[-1]
            raise self.error(f"this {block.kind} has no {{{{end}}}}", block.at)
        return self.nodes

    def error(self, why: str, at: int, *, hint: str | None = None) -> TemplateError:
        return TemplateError(why, self.source, min(at, len(self.source)), hint=hint)

    def text(self, text: str, *, left: bool, right: bool) -> None:
        text = text.replace("\\t", "\t").replace("\\n", "\n")
        text = text.lstrip() if left else text
        text = text.rstrip() if right else text
        if text:
            self.nodes.append(Text(text))

    def action(self, body: str, at: int) -> None:
        if body.strip().startswith("/*"):
            if not body.strip().endswith("*/"):
                raise self.error("a comment is alone in its action", at)
            return
        tokens = _Tokens(self, list(self.tokens(body, at)), at + len(body.rstrip()))
        first = tokens.peek()
        if first is None:
            raise self.error("this action is empty", at)
        if first.kind == "word" and first.text in {"if", "with", "range"}:
            tokens.next()
            self.begin(first, tokens)
        elif first.kind == "word" and first.text == "else":
            tokens.next()
            self.otherwise(first, tokens)
        elif first.kind == "word" and first.text == "end":
            tokens.next()
            self.end(first)
        elif first.kind == "word" and first.text in _REFUSED:
            raise self.error(f"{first.text} is not supported", first.at)
        else:
            self.plain(tokens)
        tokens.finish()

    def tokens(self, body: str, at: int) -> Iterator[_Token]:
        position, end = 0, len(body.rstrip())
        while position < end:
            found = _TOKEN.match(body, position)
            if found is None:
                position += len(body[position:]) - len(body[position:].lstrip())
                raise self.error(f"{body[position]!r} has no place here", at + position)
            kind = found.lastgroup or ""
            start = found.start(kind)
            yield _Token(kind, found[kind], at + start, start > position)
            position = found.end()

    def plain(self, tokens: "_Tokens") -> None:
        names, declares = tokens.declaration()
        if not names:
            self.nodes.append(Print(tokens.pipeline()))
            return
        if len(names) > 1:
            raise self.error("one variable can be set here", names[1].at)
        pipeline = tokens.pipeline()
        name = names[0].text[1:]
        if declares:
            self.scopes[-1].add(name)
        else:
            self.check_variable(names[0])
        self.nodes.append(Assign(name, pipeline, declares, names[0].at))

    def begin(self, word: _Token, tokens: "_Tokens", *, chained: bool = False) -> None:
        names, declares = tokens.declaration()
        if names and not declares:
            raise self.error(":= is missing", names[0].at)
        if len(names) > (2 if word.text == "range" else 1):
            raise self.error("these are too many variables", names[-1].at)
        pipeline = tokens.pipeline()
        if len(self.open) >= _MAX_DEPTH:
            raise self.error("this is nested too deep", word.at)
        plain_names = tuple(name.text[1:] for name in names)
        block = _Open(word.text, plain_names, pipeline, word.at, self.nodes, chained=chained)
        self.open.append(block)
        self.scopes.append(set(plain_names))
        self.nodes = block.body

    def otherwise(self, word: _Token, tokens: "_Tokens") -> None:
        if not self.open or self.open[-1].has_else:
            raise self.error("this else belongs to nothing", word.at)
        block = self.open[-1]
        block.has_else = True
        self.nodes = block.otherwise
        # What the body declared ends with it; what the block itself declared is known here, too.
        self.scopes[-1] = set(block.names)
        following = tokens.peek()
        if following is not None:
            if following.text not in {"if", "with"} or following.text != block.kind:
                raise self.error(f"{following.text!r} has no place after else", following.at)
            tokens.next()
            self.begin(following, tokens, chained=True)

    def end(self, word: _Token) -> None:
        if not self.open:
            raise self.error("this end belongs to nothing", word.at)
        while True:
            block = self.open.pop()
            self.scopes.pop()
            self.nodes = block.outer
            self.nodes.append(
                Block(block.kind, block.names, block.pipeline, block.body, block.otherwise)
            )
            if not block.chained:
                return

    def check_variable(self, token: _Token) -> None:
        if not any(token.text[1:] in scope for scope in self.scopes):
            raise self.error(f"there is no variable {token.text}", token.at)


class _Tokens:
    """The inside of one action."""

    def __init__(self, parser: _Parser, tokens: list[_Token], end: int) -> None:
        self.parser = parser
        self.tokens = tokens
        self.end = end
        self.position = 0
        self.depth = 0

    def peek(self, ahead: int = 0) -> _Token | None:
        place = self.position + ahead
        return self.tokens[place] if place < len(self.tokens) else None

    def next(self) -> _Token | None:
        token = self.peek()
        self.position += token is not None
        return token

    def finish(self) -> None:
        left = self.peek()
        if left is not None:
            raise self.parser.error(f"{left.text!r} has no place here", left.at)

    def declaration(self) -> tuple[list[_Token], bool]:
        """The variables before ``:=`` or ``=``, if there are any, and whether they are new."""
        names: list[_Token] = []
        ahead = 0
        while (token := self.peek(ahead)) is not None and token.kind == "variable":
            names.append(token)
            sign = self.peek(ahead + 1)
            if sign is not None and sign.text == ",":
                ahead += 2
                continue
            if sign is not None and sign.text in {":=", "="}:
                self.position += ahead + 2
                return names, sign.text == ":="
            break
        return [], False

    def pipeline(self) -> Pipeline:
        start = self.peek()
        at = self.end if start is None else start.at
        commands = [self.command()]
        while (token := self.peek()) is not None and token.text == "|":
            self.next()
            commands.append(self.command())
            if not isinstance(commands[-1][0], Function):
                raise self.parser.error("a function must stand after |", token.at)
        return Pipeline(tuple(commands), at)

    def command(self) -> tuple[Operand, ...]:
        operands: list[Operand] = []
        while (token := self.peek()) is not None and token.text not in {"|", ")"}:
            operands.append(self.operand())
        if not operands:
            at = self.end if token is None else token.at
            raise self.parser.error("a value or a function is missing", at)
        first = operands[0]
        if len(operands) > 1 and not isinstance(first, Function | Field):
            raise self.parser.error("only a function can be given arguments", first.at)
        return tuple(operands)

    def operand(self) -> Operand:
        token = self.next()
        assert token is not None  # noqa: S101 - the caller has looked
        operand = self.first(token)
        while (following := self.peek()) is not None:
            if following.kind != "field" or following.spaced:
                break
            if isinstance(operand, Literal | Function):
                raise self.parser.error(f"{following.text} of this cannot be had", following.at)
            self.position += 1
            operand = Field(operand, following.text[1:], following.at)
        return operand

    def first(self, token: _Token) -> Operand:
        match token.kind:
            case "field":
                return Field(Dot(token.at), token.text[1:], token.at)
            case "variable":
                self.parser.check_variable(token)
                return Variable(token.text[1:], token.at)
            case "word":
                return self.word(token)
            case "raw" | "text" | "char" | "number":
                return self.literal(token)
            case _ if token.text == ".":
                return Dot(token.at)
            case _ if token.text == "(":
                return self.parenthesis(token)
            case _:
                raise self.parser.error(f"{token.text!r} has no place here", token.at)

    def word(self, token: _Token) -> Operand:
        if token.text in _WORDS:
            return Literal(_WORDS[token.text], token.at)
        if token.text in FUNCTIONS:
            return Function(token.text, token.at)
        raise self.parser.error(
            f"there is no function {token.text}",
            token.at,
            hint=f"functions are {', '.join(sorted(FUNCTIONS))}; a field begins with a dot",
        )

    def literal(self, token: _Token) -> Literal:
        if token.kind == "raw":
            return Literal(token.text[1:-1], token.at)
        try:
            # Go's literals of these kinds are Python's, but for octal numbers.
            value: object = ast.literal_eval(token.text)
        except (ValueError, SyntaxError):
            raise self.parser.error(f"{token.text} cannot be read", token.at) from None
        if token.kind == "char":
            if not isinstance(value, str) or len(value) != 1:
                raise self.parser.error(f"{token.text} is not one character", token.at)
            value = ord(value)
        return Literal(value, token.at)

    def parenthesis(self, token: _Token) -> Pipeline:
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise self.parser.error("this is nested too deep", token.at)
        inner = self.pipeline()
        closing = self.next()
        if closing is None or closing.text != ")":
            raise self.parser.error("this ( is not closed", token.at)
        self.depth -= 1
        return inner
