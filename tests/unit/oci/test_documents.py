"""Digests, platforms, manifests and configurations."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from woodlot.errors import ConfigError, IntegrityError, UnsupportedError, WoodlotError
from woodlot.oci.config import History, extend_config, parse_config
from woodlot.oci.digest import check_bytes, digest_bytes, parse_digest
from woodlot.oci.manifest import (
    DOCKER_CONFIG,
    DOCKER_INDEX,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_MANIFEST,
    Index,
    Manifest,
    build_manifest,
    parse_manifest,
)
from woodlot.oci.platform import choose, host, make_platform, parse_platform, rank

DIGEST = digest_bytes(b"x")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_digest(algorithm: str) -> None:
    digest = digest_bytes(b"data", algorithm=algorithm)
    assert parse_digest(digest) == digest
    check_bytes(b"data", digest, what="it")
    with pytest.raises(IntegrityError, match="it does not match"):
        check_bytes(b"date", digest, what="it")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sha256:",
        "sha256:../../etc",
        "SHA256:" + "0" * 64,
        "sha256:" + "A" * 64,
        "sha1:" + "0" * 40,
        "sha256:" + "0" * 64 + "\n",
        "sha256:" + "0" * 63,
    ],
)
def test_bad_digest(text: str) -> None:
    with pytest.raises(IntegrityError):
        parse_digest(text)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("linux/amd64", "linux/amd64"),
        ("linux/x86_64", "linux/amd64"),
        ("Linux/AArch64", "linux/arm64"),
        ("linux/arm64/v8", "linux/arm64"),
        ("linux/arm64/8", "linux/arm64"),
        ("linux/arm/v6", "linux/arm/v6"),
        ("linux/arm", "linux/arm"),
        ("linux/armhf", "linux/arm"),
        ("arm64", "linux/arm64"),
        ("windows/amd64", "windows/amd64"),
    ],
)
def test_platform(text: str, canonical: str) -> None:
    assert str(parse_platform(text)) == canonical
    assert parse_platform(canonical) == parse_platform(text)


@pytest.mark.parametrize(
    "text", ["", "linux", "linux/", "/", "a/b/c/d", "linux/am d64", "linux/\n"]
)
def test_bad_platform(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_platform(text)


def test_platforms_fit() -> None:
    arm = parse_platform("linux/arm/v7")
    offers = [parse_platform(f"linux/{name}") for name in ("arm/v5", "arm/v6", "arm64")]
    assert choose(arm, offers) == 1
    assert choose(parse_platform("linux/arm/v5"), [arm]) is None
    assert rank(parse_platform("amd64"), parse_platform("linux/amd64/v3")) is None
    assert rank(parse_platform("linux/amd64/v3"), parse_platform("amd64")) == 2
    assert choose(arm, [None, make_platform("unknown", "unknown")]) is None
    assert host().os == "linux"


def descriptor(media_type: str, **more: object) -> dict[str, object]:
    return {"mediaType": media_type, "digest": DIGEST, "size": 1, **more}


def manifest(**changes: Any) -> bytes:
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor(OCI_CONFIG),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar")],
    }
    return json.dumps({k: v for k, v in (document | changes).items() if v != "DROP"}).encode()


def parse(data: bytes, media_type: str | None = None) -> Index | Manifest:
    return parse_manifest(data, media_type=media_type, what="app")


def test_manifest() -> None:
    found = parse(manifest(unknown={"x": 1}, annotations=None))
    assert isinstance(found, Manifest)
    assert found.layers[0].size == 1
    docker = manifest(mediaType=DOCKER_MANIFEST, config=descriptor(DOCKER_CONFIG))
    assert parse(docker, DOCKER_MANIFEST).media_type == DOCKER_MANIFEST
    bare = manifest(mediaType="DROP")
    assert parse(bare, f"{OCI_MANIFEST}; charset=utf-8").media_type == OCI_MANIFEST
    assert parse(bare, "application/json").media_type == OCI_MANIFEST


def test_a_manifest_is_written_as_it_is_read() -> None:
    for data in (manifest(), manifest(mediaType=DOCKER_MANIFEST, config=descriptor(DOCKER_CONFIG))):
        found = parse(data)
        assert isinstance(found, Manifest)
        assert parse(build_manifest(found)) == found


def test_a_configuration_made_from_another() -> None:
    base = {
        "os": "linux",
        "architecture": "arm64",
        "os.features": ["x"],
        "author": "Ann",
        "container": "c0ffee",
        "container_config": {"Cmd": ["x"]},
        "config": {"Cmd": ["sh"], "Env": ["A=1"], "OnBuild": ["RUN x"], "ArgsEscaped": True, "Labels": {"a": "b"}},
        "rootfs": {"type": "layers", "diff_ids": [DIGEST]},
        "history": [{"created": "2024-05-06T07:08:09.123456789Z", "created_by": "x", "unknown": 1}],
    }  # fmt: skip
    data = json.dumps(base).encode()
    parsed = parse_config(data, what="app")
    made = replace(
        parsed,
        cmd=("é", "2"),
        labels={},
        on_build=(),
        volumes=("/data",),
        exposed_ports=("80/tcp",),
        healthcheck={"Test": ["NONE"]},
        diff_ids=(*parsed.diff_ids, DIGEST),
        author="Bob",
        created=datetime(2026, 1, 2, tzinfo=UTC),
        history=(
            *parsed.history,
            History(created=None, created_by="é 2", comment="m", empty_layer=True, author="Bob"),
        ),
    )
    extended = extend_config(data, made)
    assert parse_config(extended, what="app") == made
    assert json.loads(extended) == {
        "os": "linux",
        "architecture": "arm64",
        "os.features": ["x"],
        "author": "Bob",
        "created": "2026-01-02T00:00:00Z",
        "config": {
            "Cmd": ["é", "2"],
            "Env": ["A=1"],
            "ArgsEscaped": True,
            "Volumes": {"/data": {}},
            "ExposedPorts": {"80/tcp": {}},
            "Healthcheck": {"Test": ["NONE"]},
        },
        "rootfs": {"type": "layers", "diff_ids": [DIGEST, DIGEST]},
        "history": [
            base["history"][0],  # type: ignore[index]
            {"created_by": "é 2", "author": "Bob", "comment": "m", "empty_layer": True},
        ],
    }
    assert "author" not in json.loads(extend_config(data, replace(made, author="")))


def test_index() -> None:
    platform = {"os": "linux", "architecture": "arm64", "variant": "v8"}
    children = [descriptor(OCI_MANIFEST, platform=platform)]
    for media_type in (OCI_INDEX, DOCKER_INDEX):
        found = parse(json.dumps({"mediaType": media_type, "manifests": children}).encode())
        assert isinstance(found, Index)
        assert found.manifests[0].platform == parse_platform("arm64")


@pytest.mark.parametrize(
    "data",
    [
        manifest(manifests=[]),
        manifest(config=None, layers=None),
        manifest(mediaType=OCI_INDEX),
        manifest(layers={}),
        manifest(layers=[None]),
        manifest(layers=[descriptor("x") | {"size": -1}]),
        manifest(layers=[descriptor("x") | {"size": True}]),
        manifest(layers=[descriptor("x") | {"size": 1.5}]),
        manifest(layers=[descriptor("x") | {"size": 1 << 63}]),
        manifest(layers=[descriptor("x") | {"digest": "sha256:.."}]),
        manifest(layers=[descriptor("x")] * 513),
        manifest(mediaType=7),
        manifest(config=descriptor("a\0b")),
        manifest(config=descriptor("\ud800")),
    ],
)
def test_bad_manifest(data: bytes) -> None:
    with pytest.raises(IntegrityError):
        parse(data)


def test_manifest_announced_as_another_thing() -> None:
    with pytest.raises(IntegrityError, match="is announced as"):
        parse(manifest(), OCI_INDEX)


def test_schema_1() -> None:
    with pytest.raises(UnsupportedError, match="schema 1"):
        parse(b'{"schemaVersion":1,"fsLayers":[]}')


def test_config() -> None:
    config = parse_config(
        json.dumps(
            {
                "os": "linux",
                "architecture": "arm64",
                "variant": "v8",
                "created": "2024-05-06T07:08:09.123456789Z",
                "rootfs": {"type": "layers", "diff_ids": [DIGEST]},
                "config": {
                    "Env": ["PATH=/bin", "SECRET", "=x", "EMPTY="],
                    "Cmd": None,
                    "Entrypoint": "/run",
                    "User": "1000:1000",
                    "WorkingDir": "/srv",
                    "Labels": {"a": "b", "c": None},
                    "Volumes": {"/data": {}},
                    "ExposedPorts": {"80/tcp": {}},
                    "StopSignal": "SIGINT",
                    "Healthcheck": {"Test": ["CMD", "true"]},
                },
                "history": [{"created_by": "x", "empty_layer": True}],
            }
        ).encode(),
        what="app",
    )
    assert config.platform == parse_platform("arm64")
    assert config.env == ("PATH=/bin", "EMPTY=")
    assert (config.entrypoint, config.cmd) == (("/run",), ())
    assert config.labels == {"a": "b", "c": ""}
    assert (config.volumes, config.exposed_ports) == (("/data",), ("80/tcp",))
    assert config.healthcheck == {"Test": ["CMD", "true"]}
    assert config.created is not None
    assert config.created.microsecond == 123456
    assert config.history[0].empty_layer
    bare = parse_config(b'{"config":null,"created":"0001-01-01T00:00:00Z"}', what="app")
    assert (bare.env, bare.diff_ids, bare.created) == ((), (), None)


@pytest.mark.parametrize(
    "document",
    [
        {"config": []},
        {"config": {"Env": "A=b"}},
        {"config": {"Cmd": [1]}},
        {"config": {"Cmd": ["a\0b"]}},
        {"config": {"Labels": {"a": 1}}},
        {"rootfs": {"type": "other"}},
        {"rootfs": {"diff_ids": ["x"]}},
    ],
)
def test_bad_config(document: object) -> None:
    with pytest.raises(IntegrityError, match="configuration of app"):
        parse_config(json.dumps(document).encode(), what="app")


@given(JSON, JSON, JSON)
def test_any_json_gives_a_value_or_an_error_of_ours(one: Any, two: Any, three: Any) -> None:
    for document in (
        {"config": one, "layers": two, "mediaType": three},
        {"manifests": [one, descriptor("x", platform=two)]},
        {"config": {"Env": one, "Labels": two, "Healthcheck": three}, "rootfs": three, "os": one},
        {"created": one, "history": [two], "config": descriptor(OCI_CONFIG), "layers": [three]},
    ):
        data = json.dumps(document).encode()
        for read in (lambda: parse(data), lambda: parse_config(data, what="app")):  # noqa: B023
            try:
                read()
            except WoodlotError as error:
                assert len(error.message) < 1000  # noqa: PT017
