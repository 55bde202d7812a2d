"""Values on the way through a supervisor's socket."""

import json
from collections.abc import Mapping

from woodlot import errors
from woodlot._pb.supervisor.v1 import supervisor_pb2 as pb
from woodlot.container.session import End
from woodlot.container.spec import ExecSpec
from woodlot.errors import ErrorCode, WoodlotError

_KINDS: Mapping[str, type[WoodlotError]] = {
    name: kind
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, WoodlotError)
}


def encode_error(error: WoodlotError) -> str:
    """An error as the text of a gRPC status."""
    # What is a class of its own for another module's sake is one of those that everybody knows.
    kind = next(base.__name__ for base in type(error).__mro__ if base in _KINDS.values())
    return json.dumps(
        {
            "kind": kind,
            "code": error.code.value,
            "message": error.message,
            "details": error.details,
            "hint": error.hint,
        }
    )


def decode_error(text: str) -> WoodlotError:
    """The error in the text of a gRPC status, of the class it had there; any other text becomes the message."""
    try:
        fields = json.loads(text)
        code = ErrorCode(fields["code"])
        kind = _KINDS.get(str(fields["kind"]), WoodlotError)
        error = kind(str(fields["message"]), details=fields.get("details"), hint=fields.get("hint"))
    except (ValueError, KeyError, TypeError, AttributeError):
        return WoodlotError(text)
    error.code = code
    return error


def encode_end(end: End) -> pb.Exit:
    """An end as a message."""
    return pb.Exit(code=end.code, signal=end.signal, oom_killed=end.oom_killed, reason=end.reason)


def decode_end(message: pb.Exit) -> End:
    """The end in a message."""
    return End(
        code=message.code,
        signal=message.signal,
        oom_killed=message.oom_killed,
        reason=message.reason,
    )


def encode_exec(spec: ExecSpec, *, detached: bool, rows: int, columns: int) -> pb.AttachRequest:
    """A process to be run, as the first message of its stream."""
    process = pb.ExecProcess(
        id=spec.id,
        args=spec.args,
        env=spec.env,
        cwd=spec.cwd,
        user=spec.user,
        tty=spec.tty,
        detached=detached,
    )
    return pb.AttachRequest(
        open=pb.AttachRequest.Open(stdin=spec.stdin, rows=rows, columns=columns, exec=process)
    )


def decode_exec(message: pb.AttachRequest.Open) -> ExecSpec:
    """The process in the first message of a stream."""
    process = message.exec
    return ExecSpec(
        id=process.id,
        args=tuple(process.args),
        env=tuple(process.env),
        cwd=process.cwd,
        user=process.user,
        tty=process.tty,
        stdin=message.stdin,
    )
