"""Settings: where a value comes from, and changing the file."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from woodlot import settings
from woodlot.cli.settings import properties
from woodlot.errors import ConfigError


@pytest.fixture(autouse=True)
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    for one in settings.SETTINGS:
        monkeypatch.delenv(one.variable, raising=False)
    settings._file_values.cache_clear()
    return tmp_path / "woodlot/config.toml"


def run(*args: str) -> str:
    result = CliRunner().invoke(properties, args, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_environment_before_file_before_default(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("get", "log.max_size") == "16m\n"
    assert settings.get_int("log.max_size") == 16 << 20
    settings.write("log.max_size", "2m")
    assert settings.get_int("log.max_size") == 2 << 20
    monkeypatch.setenv("WOODLOT_LOG_MAX_SIZE", "3m")
    assert settings.get_int("log.max_size") == 3 << 20
    rows = {row["name"]: row for row in json.loads(run("list", "--format", "json"))}
    assert rows["log.max_size"]["source"] == "WOODLOT_LOG_MAX_SIZE"
    assert rows["vm.boot"]["source"] == "default"
    assert len(rows) == len(settings.SETTINGS)


def test_every_default_is_valid() -> None:
    for one in settings.SETTINGS:
        one.parse(one.default)
        assert one.name in run("list")


def test_a_change_leaves_the_rest_of_the_file_alone(path: Path) -> None:
    path.parent.mkdir()
    path.write_text('# mine\n[container]\nmemory = "2g"  # enough\n\n[vm]\nprobe_timeout = 7\n')
    run("set", "container.cpus", "2")
    run("set", "vm.probe_timeout", "8")
    assert path.read_text() == (
        '# mine\n[container]\nmemory = "2g"  # enough\ncpus = "2"\n\n[vm]\nprobe_timeout = "8"\n'
    )
    assert settings.get_float("container.cpus") == 2
    run("clear", "container.memory")
    run("clear", "container.memory")
    run("clear", "vm.probe_timeout")
    assert "memory" not in path.read_text()
    assert "[vm]" not in path.read_text()
    assert settings.get_int("container.memory") == 1 << 30
    assert [one.name for one in path.parent.iterdir()] == ["config.toml"]


def test_an_unknown_setting_is_answered_with_the_nearest(path: Path) -> None:
    for change in (
        lambda: settings.write("container.memry", "1g"),
        lambda: run("get", "container.memry"),
    ):
        with pytest.raises(ConfigError) as caught:
            change()
        assert caught.value.hint == "did you mean container.memory?"
    assert not path.exists()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("container.memory", "lots"),
        ("container.cpus", "two"),
        ("image.concurrent_downloads", "1.5"),
    ],
)
def test_a_value_that_cannot_be_is_refused(path: Path, name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=rf"{name} in the command line cannot be '{value}'"):
        settings.write(name, value)
    assert not path.exists()


@pytest.mark.parametrize("text", ["[container", "[container]\nnope = 1\n", "container = 1\n"])
def test_a_file_that_is_wrong_is_told_and_kept(path: Path, text: str) -> None:
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"config\.toml"):
        settings.write("container.memory", "2g")
    assert path.read_text() == text
