"""Words of a Dockerfile's instruction: quotes, escapes and variables as in a shell, of which it is a small part.

Source: Docker's Dockerfile reference, "Environment replacement".
"""

import re
from collections.abc import Mapping

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*|[0-9]")
# What a backslash in double quotes takes the meaning from.
_ESCAPED = frozenset('"$\\')


def split(text: str) -> list[str]:
    """The words of a line, with the quotes and escapes that they are written with.

    Raises:
        ValueError: A quote has no end.
    """
    words: list[str] = []
    word, quote, position = "", "", 0
    while position < len(text):
        char = text[position]
        if char == "\\" and quote != "'":
            word += text[position : position + 2]
            position += 2
            continue
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif char.isspace():
            if word:
                words.append(word)
            word, position = "", position + 1
            continue
        word += char
        position += 1
    if quote:
        raise ValueError(f"a {quote} has no end")
    return [*words, word] if word else words


def expand(word: str, variables: Mapping[str, str]) -> str:
    """What a word stands for: without quotes and escapes, and with values in place of variables.

    Of ``${NAME…}`` there are ``:-``, ``-``, ``:+``, ``+``, ``:?`` and ``?``, each with a word that is expanded, too.

    Raises:
        ValueError: A quote or brace has no end, or a variable that must be there is not.
    """
    return _Expansion(word, variables).until("")


class _Expansion:
    def __init__(self, text: str, variables: Mapping[str, str]) -> None:
        self._text = text
        self._variables = variables
        self._at = 0

    def until(self, end: str) -> str:
        """To that character, which is passed; empty for the end of the text."""
        found = ""
        while self._at < len(self._text):
            char = self._take()
            match char:
                case _ if char == end:
                    return found
                case "\\":
                    found += self._take() or "\\"
                case "'":
                    found += self._literally()
                case '"':
                    found += self._in_quotes()
                case "$":
                    found += self._variable()
                case _:
                    found += char
        if end:
            raise ValueError(f"no {end} for a ${{")
        return found

    def _take(self) -> str:
        char = self._text[self._at : self._at + 1]
        self._at += 1
        return char

    def _literally(self) -> str:
        end = self._text.find("'", self._at)
        if end < 0:
            raise ValueError("a ' has no end")
        found, self._at = self._text[self._at : end], end + 1
        return found

    def _in_quotes(self) -> str:
        found = ""
        while char := self._take():
            if char == '"':
                return found
            if char == "$":
                found += self._variable()
            elif char == "\\":
                escaped = self._take()
                found += escaped if escaped in _ESCAPED else char + escaped
            else:
                found += char
        raise ValueError('a " has no end')

    def _variable(self) -> str:
        braces = self._text.startswith("{", self._at)
        name = _NAME.match(self._text, self._at + braces)
        if name is None:
            if braces:
                raise ValueError("no name behind ${")
            return "$"
        self._at = name.end()
        value = self._variables.get(name[0])
        if not braces:
            return value or ""
        operator = self._take()
        if operator == "}":
            return value or ""
        # With a colon an empty value is as none.
        there = value is not None
        if operator == ":":
            operator, there = self._take(), bool(value)
        word = self.until("}")
        match operator:
            case "-":
                return (value or "") if there else word
            case "+":
                return word if there else ""
            case "?" if there:
                return value or ""
            case "?":
                raise ValueError(f"{name[0]}: {word or 'is not set'}")
            case _:
                raise ValueError(f"no such way to write a variable: ${{{name[0]}{operator}…}}")
