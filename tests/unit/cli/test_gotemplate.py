"""Templates as Docker's users write them. What is expected is what Go prints; it only forgives more."""

import contextlib
from collections.abc import Callable, Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from woodlot.cli.gotemplate import TemplateError, parse
from woodlot.cli.gotemplate.execute import execute, headings

DATA = {
    "ID": "abc",
    "Names": "web",
    "N": 3,
    "F": 1.5,
    "Yes": True,
    "No": False,
    "Null": None,
    "Empty": "",
    "List": ["a", "b"],
    "None": [],
    "Map": {"b": {"c": 1}, "a": "x"},
    "State": {"Running": True, "Health": {"Log": [{"Out": "ok"}, {"Out": "bad"}]}},
    "com.example/x": 7,
}


def render(source: str, data: object = DATA) -> str:
    return execute(parse(source), data)


@pytest.mark.parametrize(
    ("source", "printed"),
    [
        ("", ""),
        ("plain", "plain"),
        ("{{.ID}} {{.Names}}", "abc web"),
        ("{{ .ID }}", "abc"),
        (r"{{.ID}}\t{{.N}}\n", "abc\t3\n"),
        ("{{.}}", None),
        ("{{$.ID}}", "abc"),
        ("{{.Map.b.c}}", "1"),
        ("{{.Map}}", "map[a:x b:map[c:1]]"),
        ("{{.List}} {{.None}}", "[a b] []"),
        ("{{.Yes}} {{.No}} {{.F}}", "true false 1.5"),
        ("{{.Null}} {{.Missing}} {{.Missing.X}}", "<no value> <no value> <no value>"),
        ("{{json .Map}}", '{"a":"x","b":{"c":1}}'),
        ("{{json .Names}} {{json .Null}} {{json .Yes}}", '"web" null true'),
        ('{{json "<a&b>"}}', r'"\u003ca\u0026b\u003e"'),
        ('{{index . "com.example/x"}}', "7"),
        ("{{index .List 1}} {{index .Map `b` `c`}}", "b 1"),
        ('{{index .Map "nope"}}', "<no value>"),
        ("{{(index .State.Health.Log 1).Out}}", "bad"),
        ('{{join .List ", "}}', "a, b"),
        ('{{split "a,b,c" ","}}', "[a b c]"),
        ("{{lower `AB`}}{{upper .Names}}{{title `two words`}}", "abWEBTwo Words"),
        ("{{truncate .Names 2}}|{{pad .Names 1 2}}|{{pad .Empty 1 2}}", "we| web  |"),
        ("{{len .List}} {{len .Map}} {{len `é`}}", "2 2 2"),
        ("{{slice .Names 1}} {{slice .Names 0 2}} {{slice .List 1}}", "eb we [b]"),
        ("{{print .ID .N 4 .Names}}", "abc3 4web"),
        ("{{println .ID .N}}", "abc 3\n"),
        ("{{.Names | printf `%s-%s` .ID | upper}}", "ABC-WEB"),
        ("{{printf `%5s|%-5s|%q|%v` .ID .ID .ID .List}}", '  abc|abc  |"abc"|[a b]'),
        ("{{printf `%03d %x %.2f %t %%` .N 255 .F .Yes}}", "003 ff 1.50 true %"),
        ("{{printf `%f %e` 1.5 100.0}}", "1.500000 1.000000e+02"),
        ("{{if .Yes}}a{{end}}{{if .No}}b{{end}}", "a"),
        ("{{if .Empty}}a{{else}}b{{end}}", "b"),
        ("{{if eq .N 1}}one{{else if eq .N 3}}three{{else}}other{{end}}!", "three!"),
        ("{{if eq .N 1}}one{{else if eq .N 2}}two{{else}}other{{end}}!", "other!"),
        ("{{if and .Yes .N}}a{{end}}{{if or .No .Empty}}b{{end}}{{if not .No}}c{{end}}", "ac"),
        ("{{and .Yes .Empty .Nope}}|{{or .Empty .ID .N}}", "|abc"),
        ("{{or .Yes (index .List 9)}}", "true"),
        ("{{eq .ID `x` `abc`}} {{ne .ID `x`}} {{lt 1 2}} {{le 2 2}} {{gt 1 2}} {{ge 1.5 1.5}}", "true true true true false true"),
        ("{{eq .Null nil}} {{eq .Missing nil}}", "true true"),
        ("{{range .List}}<{{.}}>{{end}}", "<a><b>"),
        ("{{range .None}}x{{else}}nothing{{end}}", "nothing"),
        ("{{range .Null}}x{{else}}nothing{{end}}", "nothing"),
        ("{{range $i, $e := .List}}{{$i}}={{$e}} {{end}}", "0=a 1=b "),
        ("{{range $e := .List}}{{$e}}{{$.ID}}{{end}}", "aabcbabc"),
        ("{{range $k, $v := .Map}}{{$k}}:{{$v}};{{end}}", "a:x;b:map[c:1];"),
        ("{{range .State.Health.Log}}{{.Out}} {{end}}", "ok bad "),
        ("{{range .List}}{{range $.List}}{{.}}{{end}}/{{end}}", "ab/ab/"),
        ("{{with .Map.b}}{{.c}}{{end}}{{with .Empty}}x{{else}}none{{end}}", "1none"),
        ("{{with $x := .ID}}{{$x}}{{.}}{{end}}", "abcabc"),
        ("{{$x := .ID}}{{$x}}{{$x = .N}}{{$x}}", "abc3"),
        ("{{$x := 1}}{{range .List}}{{$x = .}}{{end}}{{$x}}", "b"),
        ("{{$x := 1}}{{if .Yes}}{{$x := 2}}{{$x}}{{end}}{{$x}}", "21"),
        ("{{/* nothing }} here */}}a", "a"),
        ("a  {{- .ID -}}  b", "aabcb"),
        ("a {{-  .N }} b", "a3 b"),
        ("{{-3}} {{- -3}}", "-3-3"),
        ("{{`{{}}`}}{{\"}}\"}}", "{{}}}}"),
        ("{{'a'}} {{0x10}} {{1e3}} {{true}}", "97 16 1000 true"),
        ('{{"a\\tb\\"c"}}', 'a\tb"c'),
        ("{{len (print .ID .Names)}}", "6"),
        ("{{(.Map).b.c}} {{(index .Map `b`).c}}", "1 1"),
    ],
)  # fmt: skip
def test_printed(source: str, printed: str | None) -> None:
    if printed is not None:
        assert render(source) == printed
    else:
        assert render(source).startswith("map[Empty: F:1.5 ID:abc List:[a b]")


@pytest.mark.parametrize(
    ("source", "at", "why"),
    [
        ("{{.ID", 1, "not closed"),
        ("a {{.ID} b", 3, "not closed"),
        ('{{"a}}', 3, "no place here"),
        ("{{}}", 3, "empty"),
        ("{{foo .ID}}", 3, "no function foo"),
        ("{{.ID}} {{ID}}", 11, "no function ID"),
        ("{{.ID .Names | }}", 15, "missing"),
        ("{{.ID | .Names}}", 7, "function must stand"),
        ("{{(.ID}}", 3, "not closed"),
        ("{{.ID)}}", 6, "no place here"),
        ("{{.ID ? 1}}", 7, "no place here"),
        ("{{$x}}", 3, "no variable $x"),
        ("{{if .Yes}}{{$x := 1}}{{end}}{{$x}}", 32, "no variable $x"),
        ("{{$x = 1}}", 3, "no variable $x"),
        ("{{if .Yes}}a", 3, "no {{end}}"),
        ("{{if}}a{{end}}", 5, "missing"),
        ("a{{end}}", 4, "belongs to nothing"),
        ("a{{else}}", 4, "belongs to nothing"),
        ("{{if 1}}{{else}}{{else}}{{end}}", 19, "belongs to nothing"),
        ("{{range .List}}{{else if 1}}{{end}}", 23, "no place after else"),
        ("{{if 1}}{{end .ID}}", 15, "no place here"),
        ('{{template "x"}}', 3, "not supported"),
        ("{{1 2}}", 3, "only a function"),
        ("{{.ID.Names}}", 6, "has no fields"),
        ("{{.Map.a.x}}", 9, "has no fields"),
        ("{{index .List 9}}", 3, "no place 9"),
        ("{{index .N 1}}", 3, "no places"),
        ("{{len .N}}", 3, "no length"),
        ("{{len}}", 3, "cannot be given 0 values"),
        ("{{lower .ID .ID}}", 3, "cannot be given 2 values"),
        ("{{lower .N}}", 3, "wants a text"),
        ("{{join .ID `,`}}", 3, "wants a list"),
        ("{{eq .N .ID}}", 3, "cannot be compared"),
        ("{{lt .Map .Map}}", 3, "cannot be compared"),
        ("{{range .ID}}{{end}}", 9, "wants a list"),
        ("{{printf `%d` .ID}}", 3, "cannot print"),
        ("{{printf `%d`}}", 3, "no value"),
        ("{{printf `x` 1}}", 3, "more values"),
        ("{{.ID .Names}}", 3, "takes no arguments"),
        ("{{and}}", 3, "wants a value"),
        ("{{slice .Names 2 1}}", 3, "no slice"),
        ("{{" + "(" * 100 + "1" + ")" * 100 + "}}", 67, "too deep"),
        ("{{if 1}}" * 100, 64 * 8 + 3, "too deep"),
    ],
)  # fmt: skip
def test_errors_show_where(source: str, at: int, why: str) -> None:
    with pytest.raises(TemplateError, match=f"at character {at}: ") as caught:
        render(source)
    assert why in caught.value.message
    line, caret = (caught.value.details or "").splitlines()
    assert line[caret.index("^")] == source[at - 1]


def test_an_error_shows_its_line_of_several() -> None:
    with pytest.raises(TemplateError) as caught:
        render("{{.ID}}\n{{range .List}}{{.X}}{{end}}\n")
    assert caught.value.details == "{{range .List}}{{.X}}{{end}}\n" + " " * 17 + "^"


def test_a_long_template_is_refused_and_a_long_line_cut() -> None:
    with pytest.raises(TemplateError, match="too long"):
        parse("x" * 100_000)
    with pytest.raises(TemplateError) as caught:
        parse("x" * 1000 + "{{foo}}" + "y" * 1000)
    line, caret = (caught.value.details or "").splitlines()
    assert len(line) == 120
    assert line[caret.index("^") :].startswith("foo")


class Thing:
    """A `Record`."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def names(self) -> Sequence[str]:
        return ("ID", "Labels", "Label", "Size")

    def field(self, name: str) -> object:
        self.asked.append(name)
        label: Callable[[str], str] = lambda key: {"a": "1"}[key]  # noqa: E731
        return {"ID": "x", "Labels": "a=1", "Label": label, "Size": 5}[name]

    def whole(self) -> Mapping[str, object]:
        return {"ID": "x"}


def test_a_record_is_asked_for_what_is_named_alone() -> None:
    thing = Thing()
    assert render('{{.ID}} {{.Label "a"}} {{json .}} {{.}} {{upper .ID}}', thing) == (
        'x 1 {"ID":"x"} map[ID:x] X'
    )
    assert thing.asked == ["ID", "Label", "ID"]


@pytest.mark.parametrize(
    ("source", "at", "hint"),
    [
        ("{{.Lables}}", 3, "did you mean .Labels?"),
        ("{{.ID}}{{json .Foo}}", 15, "fields are ID, Labels, Label, Size"),
        ("{{.Label}}", 3, None),
        ("{{.Label `a` `b`}}", 3, None),
        ("{{json .Label}}", 8, None),
    ],
)
def test_an_unknown_field_of_a_record_is_an_error(source: str, at: int, hint: str | None) -> None:
    with pytest.raises(TemplateError, match=f"at character {at}:") as caught:
        render(source, Thing())
    assert caught.value.hint == hint


@pytest.mark.parametrize(
    ("source", "line"),
    [
        (r"{{.ID}}\t{{.Names}}", "CONTAINER ID\tNAMES"),
        ("{{.CreatedAt}}", "CREATED AT"),
        ("{{upper .LocalVolumes | printf `%s`}} x", "LOCAL VOLUMES x"),
        ("{{.configuration.resources.memoryInBytes}}", "MEMORY IN BYTES"),
        ("{{.OOMKilled}} {{.IPv4}}", "OOM KILLED I PV4"),
        ("{{range .Ports}}{{.Host}} {{end}}", "HOST "),
        ("{{$x := .A}}{{if .B}}{{.C}}{{else}}{{.D}}{{end}}{{json .}}", "C"),
    ],
)
def test_headings(source: str, line: str) -> None:
    assert headings(parse(source), {"ID": "CONTAINER ID"}) == line


@given(st.text(alphabet="{}.$|()-\"`'/*\\ \nabIDifrangeend1:=,", max_size=60))
def test_no_template_does_more_than_fail(source: str) -> None:
    with contextlib.suppress(TemplateError):
        render(source)
