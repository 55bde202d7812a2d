import io
import threading

import pytest

from woodlot.cli.progress import make_progress
from woodlot.errors import ConfigError


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def draw(kind: str, stream: io.StringIO) -> str:
    with make_progress(kind, stream=stream) as progress:
        progress.start("a", "layer [1/2]", total=1000)
        threads = [
            threading.Thread(target=progress.advance, args=("a", 100), daemon=True)
            for _ in range(10)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        progress.finish("a", "here [already]")
        progress.start("b", "no size")
        progress.finish("b")
        progress.advance("unknown", 1)
        progress.finish("unknown")
    return stream.getvalue()


def test_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    assert draw("none", Terminal()) == ""
    plain = draw("auto", io.StringIO())
    assert plain.splitlines()[:2] == ["layer [1/2] (1000 B)", "layer [1/2]: here [already]"]
    assert "\x1b" not in plain
    assert "\x1b" not in draw("plain", Terminal())
    color = draw("auto", Terminal())
    assert "layer [1/2]" in color
    assert "here [already]" in color
    assert "\x1b[38;5" in color or "\x1b[3" in color
    ansi = draw("ansi", Terminal())
    assert "\x1b[" in ansi
    assert "\x1b[38;5" not in ansi
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[38;5" not in draw("auto", Terminal())
    with pytest.raises(ConfigError):
        draw("pretty", Terminal())
