import contextlib
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from woodlot.errors import ConfigError
from woodlot.oci.reference import Reference, parse_reference

HEX = "0123456789abcdef" * 4
DIGEST = f"sha256:{HEX}"


@pytest.mark.parametrize(
    ("text", "canonical", "familiar"),
    [
        ("alpine", "docker.io/library/alpine:latest", "alpine:latest"),
        ("alpine:3.19", "docker.io/library/alpine:3.19", "alpine:3.19"),
        ("org/app", "docker.io/org/app:latest", "org/app:latest"),
        ("library/alpine", "docker.io/library/alpine:latest", "alpine:latest"),
        ("docker.io/alpine", "docker.io/library/alpine:latest", "alpine:latest"),
        ("index.docker.io/org/app", "docker.io/org/app:latest", "org/app:latest"),
        ("ghcr.io/a/b/c:v1", "ghcr.io/a/b/c:v1", "ghcr.io/a/b/c:v1"),
        ("localhost/app", "localhost/app:latest", "localhost/app:latest"),
        ("localhost:5000/app:1", "localhost:5000/app:1", "localhost:5000/app:1"),
        ("host:5000/app", "host:5000/app:latest", "host:5000/app:latest"),
        ("[::1]:5000/app", "[::1]:5000/app:latest", "[::1]:5000/app:latest"),
        ("GHCR.io/app", "ghcr.io/app:latest", "ghcr.io/app:latest"),
        (f"alpine@{DIGEST}", f"docker.io/library/alpine@{DIGEST}", f"alpine@{DIGEST}"),
        (f"alpine:3@{DIGEST}", f"docker.io/library/alpine@{DIGEST}", f"alpine@{DIGEST}"),
        ("alpine:" + "x" * 128, f"docker.io/library/alpine:{'x' * 128}", "alpine:" + "x" * 128),
        ("a__b/c-d--e/f.g", "docker.io/a__b/c-d--e/f.g:latest", "a__b/c-d--e/f.g:latest"),
    ],
)
def test_defaults(text: str, canonical: str, familiar: str) -> None:
    reference = parse_reference(text)
    assert str(reference) == canonical
    assert reference.familiar == familiar
    assert parse_reference(canonical) == reference
    assert parse_reference(familiar) == reference


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        (HEX, "64 hex digits"),
        ("Alpine", "lower-case"),
        ("org/App:1", "lower-case"),
        ("Org/app:1", "lower-case"),
        ("https://docker.io/alpine", "starts with https://"),
        ("docker://alpine", "starts with docker://"),
        ("alpine:", "is not a tag"),
        ("alpine:.x", "is not a tag"),
        ("alpine:" + "x" * 129, "longer than 128"),
        ("a" * 256, "longer than 255"),
        ("a.b/" + "c/" * 200 + "d", "longer than"),
        ("alpine@sha256:12", "must have 64"),
        ("alpine@md5:" + "0" * 32, "sha256 and sha512"),
        ("alpine@", "not a digest"),
        ("a//b", "is not a repository"),
        ("/a", "is not a repository"),
        ("a/", "is not a repository"),
        ("a b", "is not a repository"),
        ("a..b/c", "registry"),
        ("a___b", "is not a repository"),
        ("-a", "is not a repository"),
        ("ümlaut", "is not a repository"),
        ("host:0/a", "is not a registry"),
        ("host:65536/a", "is not a registry"),
        ("x.y:z/a", "is not a registry"),
        ("alpine\n", "is not a repository"),
        ("x" * 10_000, "longer than"),
    ],
)
def test_refused(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse_reference(text)


def test_hint_gives_the_lower_case_name() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_reference("ghcr.io/Org/App:V1")
    assert caught.value.hint == "did you mean ghcr.io/org/app:v1?"


def test_default_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WOODLOT_REGISTRY_DEFAULT", "ghcr.io")
    assert str(parse_reference("org/app")) == "ghcr.io/org/app:latest"
    assert parse_reference("org/app").familiar == "org/app:latest"
    assert parse_reference("docker.io/alpine").familiar == "docker.io/library/alpine:latest"
    assert str(parse_reference("app", default_registry="quay.io")) == "quay.io/app:latest"


def test_endpoint() -> None:
    assert parse_reference("alpine").endpoint == "registry-1.docker.io"
    assert parse_reference("h:1/a").endpoint == "h:1"


WORD = st.text(string.ascii_lowercase + string.digits, min_size=1, max_size=8)
PATH = st.lists(
    st.builds("".join, st.tuples(WORD, st.sampled_from(["", ".x", "_x", "__x", "--x"]))),
    min_size=1,
    max_size=4,
).map("/".join)
HOST = st.one_of(
    st.just("docker.io"),
    st.just("localhost"),
    st.builds("{}.{}".format, WORD, WORD),
    st.builds("{}:{}".format, WORD, st.integers(1, 65535)),
)
TAG = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", fullmatch=True)


@given(HOST, PATH, TAG)
def test_round_trip(host: str, path: str, tag: str) -> None:
    reference = parse_reference(f"{host}/{path}:{tag}")
    assert parse_reference(str(reference)) == reference
    assert parse_reference(reference.familiar) == reference


@given(st.text(max_size=80) | st.text("aA.:/@-_[]", max_size=20))
def test_any_text_gives_a_reference_or_an_error_of_ours(text: str) -> None:
    reference: Reference | None = None
    with contextlib.suppress(ConfigError):
        reference = parse_reference(text)
    if reference is not None:
        assert parse_reference(str(reference)) == reference
        assert parse_reference(reference.familiar) == reference
