import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.container.specs import WEB
from woodlot.container.spec import (
    ContainerSpec,
    DnsSpec,
    NetworkSpec,
    PortSpec,
    ProcessSpec,
    Rlimit,
    SocketSpec,
    Tmpfs,
)

text = st.text(max_size=8)
texts = st.lists(text, max_size=3).map(tuple)
numbers = st.integers(0, 2**64 - 1)
specs = st.builds(
    ContainerSpec,
    **dict.fromkeys(
        ("id", "name", "image", "image_digest", "platform", "rootfs", "hostname"), text
    ),
    process=st.builds(
        ProcessSpec,
        args=texts,
        env=texts,
        capabilities=texts,
        rlimits=st.lists(st.builds(Rlimit, type=text, soft=numbers, hard=numbers), max_size=2).map(
            tuple
        ),
    ),
    cpus=st.floats(0.01, 512),
    memory_bytes=numbers,
    disk_bytes=numbers,
    shm_bytes=numbers,
    networks=st.lists(st.builds(NetworkSpec, network=text, aliases=texts), max_size=2).map(tuple),
    ports=st.lists(st.builds(PortSpec, container_port=numbers), max_size=2).map(tuple),
    sockets=st.lists(st.builds(SocketSpec, host_path=text, container_path=text), max_size=2).map(
        tuple
    ),
    ssh=st.booleans(),
    dns=st.builds(DnsSpec, search=st.none() | texts, nameservers=texts, options=texts),
    tmpfs=st.lists(st.builds(Tmpfs, destination=text, options=texts), max_size=2).map(tuple),
    labels=st.dictionaries(text, text, max_size=2),
    cap_add=texts,
    cap_drop=texts,
    kernel=st.none() | text,
    kernel_args=texts,
    created_at=st.floats(0, 2**40),
)


def stored(spec: ContainerSpec) -> dict[str, Any]:
    """As the record gives it back."""
    data: dict[str, Any] = json.loads(json.dumps(spec.to_json()))
    return data


# The environment is set once for all examples, which is enough.
@settings(
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(specs)
def test_what_is_stored_is_read_back(spec: ContainerSpec) -> None:
    assert ContainerSpec.from_json(stored(spec)) == spec


def test_the_stored_form_of_a_whole_container_is_read_back() -> None:
    again = ContainerSpec.from_json(stored(WEB))
    assert again == WEB
    # Tuples all the way down, as a frozen value has them.
    hash(again.process)
    hash(again.tmpfs)


@pytest.mark.parametrize("field", ["id", "rootfs", "process", "memory_bytes", "tmpfs"])
def test_a_missing_field_is_refused(field: str) -> None:
    data = stored(WEB)
    del data[field]
    with pytest.raises((TypeError, KeyError)):
        ContainerSpec.from_json(data)


@pytest.mark.parametrize("part", ["", "process", "rlimit"])
def test_an_unknown_field_is_refused(part: str) -> None:
    data = stored(WEB)
    place = {"": data, "process": data["process"], "rlimit": data["process"]["rlimits"][0]}[part]
    place["later"] = 1
    with pytest.raises(TypeError, match="later"):
        ContainerSpec.from_json(data)
