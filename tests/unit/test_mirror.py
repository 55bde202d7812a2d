"""The library without asyncio is the one with it, name by name."""

import inspect
from collections.abc import Callable

import pytest

from woodlot import aio, sync
from woodlot.aio import options
from woodlot.aio.containers import Containers
from woodlot.aio.images import Images
from woodlot.aio.networks import Networks
from woodlot.aio.options import Options, build_request
from woodlot.aio.system import Kernels, System, Templates
from woodlot.aio.volumes import Volumes

PAIRS: list[tuple[type, type]] = [
    (aio.Attachment, sync.Attachment),
    (aio.Client, sync.Client),
    (aio.Container, sync.Container),
    (aio.Meter, sync.Meter),
    (aio.Starting, sync.Starting),
    (Containers, sync.Containers),
    (Images, sync.Images),
    (Kernels, sync.Kernels),
    (Networks, sync.Networks),
    (System, sync.System),
    (Templates, sync.Templates),
    (Volumes, sync.Volumes),
]
# The supervisor's own, for who follows a log; `Container.follow_log` is the library's.
_INNER: dict[type, set[str]] = {aio.Attachment: {"log_position", "records"}}
# What a mirror is made of.
_OWN = {"parts"}


def members(kind: type) -> set[str]:
    return {name for name in dir(kind) if not name.startswith("_")}


def arguments(method: Callable[..., object]) -> list[tuple[str, object, object]]:
    found = inspect.signature(method).parameters.values()
    return [(one.name, one.kind, one.default) for one in found]


@pytest.mark.parametrize(("kind", "mirror"), PAIRS)
def test_both_have_the_same_names_and_arguments(kind: type, mirror: type) -> None:
    names = members(kind) - _INNER.get(kind, set())
    assert names == members(mirror) - _OWN
    for name in names:
        theirs, ours = getattr(kind, name), getattr(mirror, name)
        if not inspect.isfunction(theirs):
            assert not inspect.isfunction(ours), name
            continue
        assert arguments(theirs) == arguments(ours), name
        assert not inspect.iscoroutinefunction(ours), name
        assert not inspect.isasyncgenfunction(ours), name
        assert ours.__doc__, name


def test_every_name_of_the_library_is_there() -> None:
    for name in aio.__all__:
        assert getattr(aio, name) is not None
    with pytest.raises(AttributeError):
        aio.nothing  # noqa: B018


def test_options_become_what_the_flags_would() -> None:
    asked: Options = {
        "env": {"A": "1"},
        "cwd": "/srv",
        "network": "none",
        "tmpfs": ["/tmp"],
        "labels": {"tier": "front"},
        "platform": "linux/arm64",
    }
    request = build_request(["true"], asked, interactive=True, remove=True)
    assert (request.args, request.env, request.workdir) == (("true",), ("A=1",), "/srv")
    assert (request.networks, request.tmpfs, request.labels) == (
        ("none",),
        ("/tmp",),
        ("tier=front",),
    )
    assert (request.interactive, request.remove, request.egress) == (True, True, ())
    several: Options = {"network": ["a", "b"], "egress": "none"}
    request = build_request([], several, interactive=False, remove=False)
    assert (request.networks, request.egress) == (("a", "b"), ("none",))


def test_every_option_is_one_of_a_container() -> None:
    known = {*aio.Request.__dataclass_fields__, *options._FETCHING, *options._RENAMED}
    assert Options.__annotations__.keys() <= known
    with pytest.raises(TypeError, match="no option 'colour'"):
        build_request([], {"colour": "red"}, interactive=True, remove=True)  # type: ignore[typeddict-unknown-key]
    with pytest.raises(TypeError, match="a list"):
        build_request("true", {}, interactive=True, remove=True)
