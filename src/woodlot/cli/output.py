"""Results on stdout: tables for people, JSON and YAML for programs. Errors on stderr."""

import json
import sys
from collections.abc import Sequence

from woodlot.errors import WoodlotError


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns as wide as their widest cell, two spaces apart."""
    lines = [header, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        print_shown("  ".join(cells).rstrip())


def print_aligned(lines: Sequence[str]) -> None:
    """Lines with tabs between their cells, as `print_table`; not all need have as many."""
    cells = [line.split("\t") for line in lines]
    columns = max(map(len, cells))
    header, *rows = [(*line, *[""] * (columns - len(line))) for line in cells]
    print_table(header, rows)


def print_shown(text: str) -> None:
    """A line that holds what others wrote, such as an image's labels: on a terminal, none of it moves the cursor."""
    if sys.stdout.isatty():
        text = "".join(char if char.isprintable() or char in "\n\t" else "�" for char in text)
    print(text)


def print_json(value: object, *, pretty: bool = False) -> None:
    """JSON, on one line unless ``pretty``."""
    print(json.dumps(value, indent=2 if pretty else None, sort_keys=True))


def print_yaml(value: object) -> None:
    """YAML of what JSON can say."""
    import yaml

    # Through JSON: YAML would tell tuples and enumerations from lists and texts.
    plain: object = json.loads(json.dumps(value))
    print(yaml.safe_dump(plain, allow_unicode=True, width=sys.maxsize), end="")


def raise_all(failures: Sequence[WoodlotError]) -> None:
    """Raise what failed for some of several objects: the error itself if all are one, else all messages in one."""
    if len({error.message for error in failures}) == 1:
        raise failures[0]
    if failures:
        raise WoodlotError("\n".join(error.message for error in failures))


def print_error(error: WoodlotError) -> None:
    """What failed, the facts, what to do next."""
    print(f"error: {error.message}", file=sys.stderr)
    if error.details:
        print("\n".join(f"  {line}" for line in error.details.splitlines()), file=sys.stderr)
    if error.hint:
        print(f"hint: {error.hint}", file=sys.stderr)
