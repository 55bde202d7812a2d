import json

import pytest

from woodlot import errors
from woodlot.container.session import End
from woodlot.container.wire import decode_end, decode_error, encode_end, encode_error
from woodlot.errors import (
    ConfigError,
    ErrorCode,
    ExecutionError,
    GuestTimeoutError,
    NotFoundError,
    StateError,
    VmmError,
    WoodlotError,
)
from woodlot.vmm.qemu.qmp import QmpClosedError


@pytest.mark.parametrize(
    "error",
    [
        WoodlotError("plain"),
        StateError("container wéb is not running", details="two\nlines", hint="start it"),
        ConfigError("user nobody is unknown"),
        GuestTimeoutError("no answer"),
        ExecutionError("no such file", code=ErrorCode.NOT_FOUND),
        ExecutionError("permission denied", code=ErrorCode.NOT_EXECUTABLE, hint="chmod +x"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_arrives_as_it_was_sent(error: WoodlotError) -> None:
    text = encode_error(error)
    assert "\n" not in text
    got = decode_error(text)
    assert (got.code, got.message, got.details, got.hint) == (
        error.code,
        error.message,
        error.details,
        error.hint,
    )
    assert type(got) is type(error)


def test_every_error_that_the_package_has_arrives_as_its_class() -> None:
    for name, kind in vars(errors).items():
        if isinstance(kind, type) and issubclass(kind, WoodlotError):
            got = decode_error(encode_error(kind("why")))
            assert (type(got).__name__, got.code) == (name, kind.code)


def test_a_class_that_only_one_module_knows_arrives_as_what_it_is_one_of() -> None:
    got = decode_error(encode_error(QmpClosedError("gone")))
    assert type(got) is VmmError
    # And one that only a later version knows, as an error with its code.
    later = json.loads(encode_error(StateError("no"))) | {"kind": "LaterError"}
    got = decode_error(json.dumps(later))
    assert (type(got), got.code) == (WoodlotError, ErrorCode.INVALID_STATE)


def test_a_program_missing_on_the_host_is_not_one_missing_in_the_container() -> None:
    # It decides between the exit statuses 125 and 127.
    got = decode_error(encode_error(NotFoundError("mkfs.ext4 is not installed")))
    assert got.code is ErrorCode.NOT_FOUND
    assert not isinstance(got, ExecutionError)


@pytest.mark.parametrize(
    "text",
    ["", "Socket closed", "null", "[]", '"x"', "{}", '{"code": "odd", "message": "m"}',
     '{"code": "internal"}', '{"code": [], "message": "m"}'],
)  # fmt: skip
def test_any_other_text_becomes_the_message(text: str) -> None:
    got = decode_error(text)
    assert (got.message, got.code) == (text, ErrorCode.INTERNAL)


def test_what_a_later_version_adds_is_ignored() -> None:
    sent = json.loads(encode_error(StateError("stopped", hint="wait"))) | {"since": 2}
    got = decode_error(json.dumps(sent))
    assert (got.message, got.code, got.hint) == ("stopped", ErrorCode.INVALID_STATE, "wait")


@pytest.mark.parametrize(
    "end",
    [End(code=0), End(code=137, signal=9, oom_killed=True), End(code=125, reason="öde: ended")],
)
def test_an_end_arrives_as_it_was_sent(end: End) -> None:
    message = encode_end(end)
    assert decode_end(type(message).FromString(message.SerializeToString())) == end
