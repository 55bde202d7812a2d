import pytest

from tests.unit.container.specs import WEB
from tests.unit.container.test_usage import IDLE
from woodlot.aio import Container
from woodlot.cli.listing import Form, FormatType, show
from woodlot.cli.stats import _describe, _frame, _view
from woodlot.container import state
from woodlot.container.lifecycle import Container as Found
from woodlot.container.meter import Reading
from woodlot.store.store import Store


def container(store: Store, *, runs: bool = True) -> Container:
    running = state.Running(started_at=1.0, vm_pid=7, accelerator="tcg")
    stopped = state.Stopped(exit_code=0, finished_at=2.0)
    return Container(store, Found(spec=WEB, state=running if runs else stopped))


def test_a_row(store: Store) -> None:
    busy = Reading(container=container(store), stats=IDLE, cpu_percent=12.345)
    assert _view(Form()).row(busy) == [
        "abababababab", "web", "12.35%", "256 B / 1.0 KiB", "25.00%", "--", "0 B / 0 B", "0 B / 0 B", "1",
    ]  # fmt: skip
    stopped = Reading(container=container(store, runs=False), stats=None, cpu_percent=None)
    assert _view(Form(truncate=False)).row(stopped) == [WEB.id, "web", *["--"] * 7]


def test_dockers_templates(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    text = "table {{.Container}} {{.CPUPerc}} {{.HostMem}}"
    style = FormatType().convert(text, None, None)
    form = Form(style=style)
    show(_view(form), [Reading(container=container(store), stats=IDLE, cpu_percent=1.0)], form)
    assert capsys.readouterr().out == "CONTAINER CPU % HOST MEM\nweb 1.00% --\n"


def test_programs_get_apples_names(store: Store) -> None:
    assert _describe(Reading(container=container(store), stats=IDLE, cpu_percent=None)) == {
        "id": WEB.id,
        "name": "web",
        "cpuUsageUsec": 1_000_000,
        "memoryUsageBytes": 256,
        "memoryLimitBytes": 1024,
        "hostMemoryBytes": None,
        "networkRxBytes": 0,
        "networkTxBytes": 0,
        "blockReadBytes": 0,
        "blockWriteBytes": 0,
        "numProcesses": 1,
    }


def test_a_frame_fits_the_terminal() -> None:
    assert _frame(["NAME  CPU", "web   1", "db    2", "x"], 7, 4) == (
        "\x1b[HNAME  C\x1b[K\nweb   1\x1b[K\ndb    2\x1b[K\n\x1b[J"
    )
    # Nobody runs, and a template has no headings.
    assert _frame([], 80, 24) == "\x1b[H\x1b[J"
    assert _frame(["NAME"], 80, 24) == "\x1b[HNAME\x1b[K\n\x1b[J"
