import time
from collections.abc import Sequence

import pytest

from woodlot.cli.top import Row, parse_columns
from woodlot.container.usage import RunningProcess
from woodlot.errors import ConfigError
from woodlot.units import MIB

PROCESS = RunningProcess(
    pid=12,
    parent_pid=1,
    group_id=11,
    session_id=10,
    uid=33,
    user="www",
    cpu_s=3725.5,
    age_s=7451.0,
    terminal=136 << 8 | 3,
    state="S",
    nice=-5,
    threads=4,
    virtual_bytes=8 * MIB,
    resident_bytes=2 * MIB,
    name="sh",
    command="sh -c x",
)
# Noon, so that two hours before it is the same day.
ROW = Row(PROCESS, 200 * MIB, time.mktime((2026, 5, 7, 12, 0, 0, 0, 0, -1)))


def shown(*words: str, row: Row = ROW) -> tuple[list[str], list[str]]:
    columns = parse_columns(words)
    return [name for name, _ in columns], [cell(row) for _, cell in columns]


FULL = ["www", "12", "1", "50", "09:55", "pts/3", "01:02:05", "sh -c x"]


@pytest.mark.parametrize("words", [(), ("-ef",), ("-e", "-f")])
def test_as_docker_shows_it(words: Sequence[str]) -> None:
    header = ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
    assert shown(*words) == (header, FULL)


@pytest.mark.parametrize("word", ["aux", "-aux"])
def test_as_bsd_shows_it(word: str) -> None:
    assert shown(word) == (
        ["USER", "PID", "%CPU", "%MEM", "VSZ", "RSS", "TTY", "STAT", "START", "TIME", "COMMAND"],
        ["www", "12", "50.0", "1.0", "8192", "2048", "pts/3", "S", "09:55", "62:05", "sh -c x"],
    )


@pytest.mark.parametrize(
    ("words", "header", "cells"),
    [
        (("pid", "args"), ["PID", "COMMAND"], ["12", "sh -c x"]),
        (("-o", "pid,%cpu"), ["PID", "%CPU"], ["12", "50.0"]),
        (("-eo", "uid,user=WHO"), ["UID", "WHO"], ["33", "www"]),
        (("-opid", "-o", "comm="), ["PID", ""], ["12", "sh"]),
        (("o", "nice,nlwp,etime"), ["NI", "NLWP", "ELAPSED"], ["-5", "4", "02:04:11"]),
        (("-e",), ["PID", "TTY", "TIME", "CMD"], ["12", "pts/3", "01:02:05", "sh"]),
        (("PGID,sid",), ["PGID", "SID"], ["11", "10"]),
    ],
)
def test_columns(words: Sequence[str], header: list[str], cells: list[str]) -> None:
    assert shown(*words) == (header, cells)


@pytest.mark.parametrize("words", [("-x",), ("nosuch",), ("-o", "pid,wchan"), ("-o",), ("-o", "")])
def test_what_is_not_known_is_said(words: Sequence[str]) -> None:
    with pytest.raises(ConfigError):
        parse_columns(words)


def with_(**changes: object) -> Row:
    import dataclasses

    return Row(dataclasses.replace(PROCESS, **changes), 200 * MIB, ROW.now)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("column", "changes", "cell"),
    [
        ("user", {"user": ""}, "33"),
        ("tty", {"terminal": 0}, "?"),
        ("tty", {"terminal": 5 << 8 | 1}, "console"),
        ("tty", {"terminal": 136 << 8 | 5 | 1 << 20}, "pts/261"),
        ("stime", {"age_s": 86400.0 * 3}, "May04"),
        ("stime", {"age_s": 86400.0 * 365}, "2025"),
        ("time", {"cpu_s": 90061.0}, "1-01:01:01"),
        ("pcpu", {"age_s": 0.0}, "0.0"),
        ("c", {"cpu_s": 1e6}, "99"),
    ],
)
def test_cells(column: str, changes: dict[str, object], cell: str) -> None:
    assert shown(column, row=with_(**changes))[1] == [cell]
