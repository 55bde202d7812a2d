"""How the sides of a copy are written."""

import pytest

from woodlot.cli.copy import Operand, parse_operand
from woodlot.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "operand"),
    [
        ("web:/etc", Operand("web", "/etc")),
        ("web:etc/", Operand("web", "etc/")),
        ("web:", Operand("web", "")),
        ("web:/a:b", Operand("web", "/a:b")),
        ("file", Operand("", "file")),
        ("./web:/etc", Operand("", "./web:/etc")),
        ("/a:b", Operand("", "/a:b")),
        ("../a:b", Operand("", "../a:b")),
        ("-", Operand("", "-")),
    ],
)
def test_operands(text: str, operand: Operand) -> None:
    assert parse_operand(text) == operand


def test_an_operand_names_its_container() -> None:
    with pytest.raises(ConfigError, match="no container"):
        parse_operand(":/etc")
