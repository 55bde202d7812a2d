"""Results on stdout: tables for people, JSON for programs. Errors on stderr."""

import json
import sys
from collections.abc import Sequence

from woodlot.errors import WoodlotError


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns as wide as their widest cell, two spaces apart."""
    lines = [header, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    for line in lines:
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        )


def print_json(value: object, *, pretty: bool = False) -> None:
    """JSON, on one line unless ``pretty``."""
    print(json.dumps(value, indent=2 if pretty else None, sort_keys=True))


def raise_all(failures: Sequence[WoodlotError]) -> None:
    """Raise what failed for some of several objects: the error itself if there is one, else all messages in one."""
    if len(failures) == 1:
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
