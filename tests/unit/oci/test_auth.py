import base64
import json
import re
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from woodlot.errors import AuthError, ConfigError
from woodlot.oci.auth import find_credentials, parse_challenges
from woodlot.oci.transport import (
    Timeouts,
    choose_scheme,
    find_certificates,
    is_loopback,
    make_client,
)


@pytest.fixture(autouse=True)
def docker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    for prefix in ("WOODLOT", "CONTAINER"):
        for name in ("HOST", "USER", "TOKEN"):
            monkeypatch.delenv(f"{prefix}_REGISTRY_{name}", raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    return tmp_path / "config.json"


def test_challenges() -> None:
    [bearer, basic] = parse_challenges(
        [
            'Bearer realm="https://a/t?x=\\"1,2\\"",service=s , scope="r:x:pull,push", Basic realm="b"'
        ]
    )
    assert bearer.scheme == "bearer"
    assert bearer.parameters == {
        "realm": 'https://a/t?x="1,2"',
        "service": "s",
        "scope": "r:x:pull,push",
    }
    assert (basic.scheme, basic.parameters) == ("basic", {"realm": "b"})
    assert [c.scheme for c in parse_challenges(["Negotiate", "BASIC"])] == ["negotiate", "basic"]


@given(st.lists(st.text(max_size=60) | st.text('Basic "=,\\', max_size=60), max_size=3))
def test_any_challenge_ends(headers: list[str]) -> None:
    parse_challenges(headers)


@pytest.mark.timeout(5)
def test_long_challenges_are_read_in_time() -> None:
    for text in (
        "," * 100_000,
        "a " * 50_000,
        'a b="' + "\\" * 100_000,
        " " * 100_000,
        "a=" * 50_000,
    ):
        parse_challenges([text])


def test_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for prefix in ("CONTAINER", "WOODLOT"):
        monkeypatch.setenv(f"{prefix}_REGISTRY_HOST", "ghcr.io")
        monkeypatch.setenv(f"{prefix}_REGISTRY_USER", prefix)
        monkeypatch.setenv(f"{prefix}_REGISTRY_TOKEN", "hunter2")
        found = find_credentials("ghcr.io")
        assert found is not None
        assert found.username == prefix
        assert "hunter2" not in repr(found)
    assert find_credentials("ghcr.io:443") is None
    assert find_credentials("docker.io") is None


@pytest.mark.parametrize(
    ("server", "registry"),
    [
        ("https://index.docker.io/v1/", "docker.io"),
        ("registry-1.docker.io", "docker.io"),
        ("ghcr.io", "ghcr.io"),
        ("http://localhost:5000/v2/", "localhost:5000"),
    ],
)
def test_docker_auths(docker: Path, server: str, registry: str) -> None:
    auth = base64.b64encode(b"joe:p:w").decode()
    docker.write_text(json.dumps({"auths": {"other": {}, server: {"auth": auth}}}))
    found = find_credentials(registry)
    assert found is not None
    assert (found.username, found.password) == ("joe", "p:w")
    assert find_credentials("example.org") is None


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, '{"auths":{"h.io":{"auth":"%%"}}}'])
def test_damaged_docker_config(docker: Path, text: str) -> None:
    docker.write_text(text)
    with pytest.raises(AuthError, match=re.escape(str(docker))):
        find_credentials("h.io")


def test_odd_docker_config(docker: Path) -> None:
    for text in ("[]", '{"auths":[],"credHelpers":7}', '{"auths":{"h.io":null}}'):
        docker.write_text(text)
        assert find_credentials("h.io") is None


def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    program = tmp_path / "bin/docker-credential-test"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")


def test_helper(docker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helper(
        tmp_path,
        monkeypatch,
        """read -r server || :
case "$1:$server" in
get:h.io) echo '{"Username":"joe","Secret":"s"}' ;;
get:t.io) echo '{"Username":"<token>","Secret":"s"}' ;;
get:e.io) echo nonsense hunter2 ;;
get:f.io) echo oh no >&2; exit 1 ;;
*) echo credentials not found in native keychain; exit 1 ;;
esac""",
    )
    names = ("h.io", "t.io", "e.io", "f.io", "$(touch x).io")
    docker.write_text(json.dumps({"credHelpers": dict.fromkeys(names, "test")}))
    found = find_credentials("h.io")
    assert found is not None
    assert (found.username, found.password, found.identity_token) == ("joe", "s", False)
    token = find_credentials("t.io")
    assert token is not None
    assert token.identity_token
    with pytest.raises(AuthError, match="no usable answer") as caught:
        find_credentials("e.io")
    assert "hunter2" not in f"{caught.value.message}{caught.value.details}"
    with pytest.raises(AuthError, match="failed for f"):
        find_credentials("f.io")
    assert find_credentials("$(touch x).io") is None
    docker.write_text('{"credsStore":"test"}')
    assert find_credentials("other.io") is None
    docker.write_text('{"credsStore":"../evil"}')
    with pytest.raises(AuthError, match="not the name of a credential helper"):
        find_credentials("h.io")


def test_missing_helper(docker: Path) -> None:
    docker.write_text('{"credsStore":"nowhere"}')
    with pytest.raises(AuthError, match=r"docker-credential-nowhere failed"):
        find_credentials("h.io")


def test_scheme() -> None:
    for host in ("localhost", "LOCALHOST", "127.0.0.1", "127.9.9.9", "::1", "[::1]"):
        assert is_loopback(host)
        assert choose_scheme("auto", host) == "http"
        assert choose_scheme("https", host) == "https"
    for host in (
        "localhost.evil.org",
        "127.0.0.1.evil.org",
        "10.0.0.1",
        "192.168.1.1",
        "docker.io",
    ):
        assert choose_scheme("auto", host) == "https"
        assert choose_scheme("http", host) == "http"
    with pytest.raises(ConfigError):
        choose_scheme("ftp", "x")


async def test_certificates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    directory = tmp_path / "woodlot/certs.d/h.io:5000"
    directory.mkdir(parents=True)
    (directory / "b.crt").write_text("nonsense")
    (directory / "client.key").write_text("")
    assert find_certificates("h.io:5000") == [directory / "b.crt"]
    assert find_certificates("h.io") == []
    with pytest.raises(ConfigError, match="cannot use the certificate"):
        make_client("https://h.io:5000", Timeouts())


async def test_proxy_we_cannot_speak_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1")
    with pytest.raises(ConfigError, match="proxy"):
        make_client("https://h.io", Timeouts())
