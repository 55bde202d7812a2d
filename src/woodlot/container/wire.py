"""Values on the way through a supervisor's socket."""

import json

from woodlot._pb.supervisor.v1 import supervisor_pb2 as pb
from woodlot.container.session import End
from woodlot.container.spec import ExecSpec
from woodlot.errors import ErrorCode, ExecutionError, WoodlotError


class RemoteError(WoodlotError):
    """An error of the supervisor's, with the code it had there."""

    def __init__(
        self,
        message: str,
        *,
        details: str | None = None,
        hint: str | None = None,
        code: ErrorCode = ErrorCode.INTERNAL,
    ) -> None:
        super().__init__(message, details=details, hint=hint)
        self.code = code


def encode_error(error: WoodlotError) -> str:
    """An error as the text of a gRPC status."""
    return json.dumps(
        {
            "code": error.code.value,
            "message": error.message,
            "details": error.details,
            "hint": error.hint,
            # By the code alone, a program that is missing on the host looks like one missing in the container.
            "execution": isinstance(error, ExecutionError),
        }
    )


def decode_error(text: str) -> WoodlotError:
    """The error in the text of a gRPC status; any other text becomes the message."""
    try:
        fields = json.loads(text)
        code = ErrorCode(fields["code"])
        message = str(fields["message"])
        details, hint = fields.get("details"), fields.get("hint")
        kind = ExecutionError if fields.get("execution") else RemoteError
    except (ValueError, KeyError, TypeError, AttributeError):
        return RemoteError(text)
    return kind(message, details=details, hint=hint, code=code)


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
