"""Egress policies, from what people write to rules."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from woodlot.errors import ConfigError
from woodlot.network.egress import MAX_RULES, Egress, Rule, join, parse


def name(host: str, port: int = 0) -> Rule:
    return Rule(host=host, is_name=True, port=port)


def addresses(host: str, port: int = 0) -> Rule:
    return Rule(host=host, is_name=False, port=port)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("example.org", name("example.org")),
        ("Example.ORG.", name("example.org")),
        ("example.org:443", name("example.org", 443)),
        ("*.example.org", name("*.example.org")),
        ("*.Example.org:8443", name("*.example.org", 8443)),
        ("xn--bcher-kva.example", name("xn--bcher-kva.example")),
        ("_dmarc.example.org", name("_dmarc.example.org")),
        ("host.container.internal:5432", name("host.container.internal", 5432)),
        ("198.51.100.7", addresses("198.51.100.7/32")),
        ("198.51.100.7:80", addresses("198.51.100.7/32", 80)),
        ("198.51.100.0/24", addresses("198.51.100.0/24")),
        ("198.51.100.0/24:80", addresses("198.51.100.0/24", 80)),
        ("0.0.0.0/0", addresses("0.0.0.0/0")),
        ("2001:db8::1", addresses("2001:db8::1/128")),
        ("2001:db8::/32", addresses("2001:db8::/32")),
        ("[2001:db8::1]", addresses("2001:db8::1/128")),
        ("[2001:db8::/32]:443", addresses("2001:db8::/32", 443)),
    ],
)
def test_one_rule(text: str, rule: Rule) -> None:
    egress = parse(f"allow={text}")
    assert egress == Egress(rules=(rule,))
    assert parse(str(egress)) == egress


def test_policies() -> None:
    assert parse("all") == Egress()
    assert parse("none") == Egress(rules=())
    assert [str(parse(text)) for text in ("all", "none")] == ["all", "none"]
    both = join(["allow=a.example,10.0.0.0/8", "allow=b.example:1,a.example"])
    assert str(both) == "allow=a.example,10.0.0.0/8,b.example:1"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "--egress cannot be ''"),
        ("example.org", "--egress cannot be 'example.org'"),
        ("deny", "cannot be 'deny'"),
        ("allow=", "cannot be 'allow='"),
        ("allow=a.example,", "'' is neither an address nor a name"),
        ("allow=web", "'web' is neither"),
        ("allow=*", "'*' is neither"),
        ("allow=*.org.*", "'*.org.*' is neither"),
        ("allow=a.*.org", "is neither"),
        ("allow=a..org", "is neither"),
        ("allow=-a.org", "is neither"),
        ("allow=bücher.example", "is neither"),
        ("allow=" + "a." * 127 + "org", "is neither"),
        ("allow=1.2.3", "'1.2.3' is neither"),
        ("allow=http://a.example", "is no port"),
        ("allow=a.example:", "'' of 'a.example:' is no port"),
        ("allow=a.example:https", "'https' of"),
        ("allow=a.example:0", "from 1 to 65535, got 0"),
        ("allow=a.example:65536", "from 1 to 65535, got 65536"),
        ("allow=a.example:²", "is no port"),
        ("allow=10.0.0.1/8", "has host bits set"),
        ("allow=[2001:db8::1", "is neither"),
        ("allow=[2001:db8::1]443", "is neither"),
        ("allow=[2001:db8::1]:", "is no port"),
        ("allow=127.0.0.1:5432", "127.0.0.1 is never reached"),
        ("allow=169.254.169.254", "is never reached"),
        ("allow=::1", "is never reached"),
        ("allow=fe80::1", "is never reached"),
        ("allow=" + ",".join(f"h{n}.example" for n in range(MAX_RULES + 1)), "more than 256"),
    ],
)
def test_what_is_none(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        parse(text)


@pytest.mark.parametrize("texts", [["all", "none"], ["none", "allow=a.example"], ["all", "all"]])
def test_what_cannot_be_combined(texts: list[str]) -> None:
    with pytest.raises(ConfigError, match="cannot be combined"):
        join(texts)


@given(st.text(alphabet="al:/[].*0129-_,=xé ", max_size=40))
def test_whatever_is_read_is_read_again(text: str) -> None:
    try:
        egress = parse("allow=" + text)
    except ConfigError:
        return
    assert parse(str(egress)) == egress
