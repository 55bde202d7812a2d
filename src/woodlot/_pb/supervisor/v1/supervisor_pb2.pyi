from woodlot._pb.agent.v1 import agent_pb2 as _agent_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class StartRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StartResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class AttachRequest(_message.Message):
    __slots__ = ("open", "stdin", "close_stdin")
    class Open(_message.Message):
        __slots__ = ("start", "stdin", "rows", "columns", "owner", "exec", "log")
        START_FIELD_NUMBER: _ClassVar[int]
        STDIN_FIELD_NUMBER: _ClassVar[int]
        ROWS_FIELD_NUMBER: _ClassVar[int]
        COLUMNS_FIELD_NUMBER: _ClassVar[int]
        OWNER_FIELD_NUMBER: _ClassVar[int]
        EXEC_FIELD_NUMBER: _ClassVar[int]
        LOG_FIELD_NUMBER: _ClassVar[int]
        start: bool
        stdin: bool
        rows: int
        columns: int
        owner: bool
        exec: ExecProcess
        log: bool
        def __init__(self, start: bool = ..., stdin: bool = ..., rows: _Optional[int] = ..., columns: _Optional[int] = ..., owner: bool = ..., exec: _Optional[_Union[ExecProcess, _Mapping]] = ..., log: bool = ...) -> None: ...
    class CloseStdin(_message.Message):
        __slots__ = ()
        def __init__(self) -> None: ...
    OPEN_FIELD_NUMBER: _ClassVar[int]
    STDIN_FIELD_NUMBER: _ClassVar[int]
    CLOSE_STDIN_FIELD_NUMBER: _ClassVar[int]
    open: AttachRequest.Open
    stdin: bytes
    close_stdin: AttachRequest.CloseStdin
    def __init__(self, open: _Optional[_Union[AttachRequest.Open, _Mapping]] = ..., stdin: _Optional[bytes] = ..., close_stdin: _Optional[_Union[AttachRequest.CloseStdin, _Mapping]] = ...) -> None: ...

class ExecProcess(_message.Message):
    __slots__ = ("id", "args", "env", "cwd", "user", "tty", "detached")
    ID_FIELD_NUMBER: _ClassVar[int]
    ARGS_FIELD_NUMBER: _ClassVar[int]
    ENV_FIELD_NUMBER: _ClassVar[int]
    CWD_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    TTY_FIELD_NUMBER: _ClassVar[int]
    DETACHED_FIELD_NUMBER: _ClassVar[int]
    id: str
    args: _containers.RepeatedScalarFieldContainer[str]
    env: _containers.RepeatedScalarFieldContainer[str]
    cwd: str
    user: str
    tty: bool
    detached: bool
    def __init__(self, id: _Optional[str] = ..., args: _Optional[_Iterable[str]] = ..., env: _Optional[_Iterable[str]] = ..., cwd: _Optional[str] = ..., user: _Optional[str] = ..., tty: bool = ..., detached: bool = ...) -> None: ...

class AttachResponse(_message.Message):
    __slots__ = ("started", "stdout", "stderr", "exited", "log")
    class Started(_message.Message):
        __slots__ = ("log_inode", "log_size")
        LOG_INODE_FIELD_NUMBER: _ClassVar[int]
        LOG_SIZE_FIELD_NUMBER: _ClassVar[int]
        log_inode: int
        log_size: int
        def __init__(self, log_inode: _Optional[int] = ..., log_size: _Optional[int] = ...) -> None: ...
    STARTED_FIELD_NUMBER: _ClassVar[int]
    STDOUT_FIELD_NUMBER: _ClassVar[int]
    STDERR_FIELD_NUMBER: _ClassVar[int]
    EXITED_FIELD_NUMBER: _ClassVar[int]
    LOG_FIELD_NUMBER: _ClassVar[int]
    started: AttachResponse.Started
    stdout: bytes
    stderr: bytes
    exited: Exit
    log: bytes
    def __init__(self, started: _Optional[_Union[AttachResponse.Started, _Mapping]] = ..., stdout: _Optional[bytes] = ..., stderr: _Optional[bytes] = ..., exited: _Optional[_Union[Exit, _Mapping]] = ..., log: _Optional[bytes] = ...) -> None: ...

class SignalRequest(_message.Message):
    __slots__ = ("number", "exec_id")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    EXEC_ID_FIELD_NUMBER: _ClassVar[int]
    number: int
    exec_id: str
    def __init__(self, number: _Optional[int] = ..., exec_id: _Optional[str] = ...) -> None: ...

class SignalResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ResizeRequest(_message.Message):
    __slots__ = ("rows", "columns", "exec_id")
    ROWS_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    EXEC_ID_FIELD_NUMBER: _ClassVar[int]
    rows: int
    columns: int
    exec_id: str
    def __init__(self, rows: _Optional[int] = ..., columns: _Optional[int] = ..., exec_id: _Optional[str] = ...) -> None: ...

class ResizeResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StopRequest(_message.Message):
    __slots__ = ("signal", "grace_s", "resumable")
    SIGNAL_FIELD_NUMBER: _ClassVar[int]
    GRACE_S_FIELD_NUMBER: _ClassVar[int]
    RESUMABLE_FIELD_NUMBER: _ClassVar[int]
    signal: int
    grace_s: float
    resumable: bool
    def __init__(self, signal: _Optional[int] = ..., grace_s: _Optional[float] = ..., resumable: bool = ...) -> None: ...

class StopResponse(_message.Message):
    __slots__ = ("exit",)
    EXIT_FIELD_NUMBER: _ClassVar[int]
    exit: Exit
    def __init__(self, exit: _Optional[_Union[Exit, _Mapping]] = ...) -> None: ...

class StatsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StatsResponse(_message.Message):
    __slots__ = ("guest", "host_memory_bytes")
    GUEST_FIELD_NUMBER: _ClassVar[int]
    HOST_MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    guest: _agent_pb2.StatsResponse
    host_memory_bytes: int
    def __init__(self, guest: _Optional[_Union[_agent_pb2.StatsResponse, _Mapping]] = ..., host_memory_bytes: _Optional[int] = ...) -> None: ...

class TopRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class PauseRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class PauseResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class UnpauseRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class UnpauseResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class UpdateRequest(_message.Message):
    __slots__ = ("cpus", "memory_bytes", "restart")
    CPUS_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    RESTART_FIELD_NUMBER: _ClassVar[int]
    cpus: float
    memory_bytes: int
    restart: str
    def __init__(self, cpus: _Optional[float] = ..., memory_bytes: _Optional[int] = ..., restart: _Optional[str] = ...) -> None: ...

class UpdateResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class WaitRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Exit(_message.Message):
    __slots__ = ("code", "signal", "oom_killed", "reason")
    CODE_FIELD_NUMBER: _ClassVar[int]
    SIGNAL_FIELD_NUMBER: _ClassVar[int]
    OOM_KILLED_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    code: int
    signal: int
    oom_killed: bool
    reason: str
    def __init__(self, code: _Optional[int] = ..., signal: _Optional[int] = ..., oom_killed: bool = ..., reason: _Optional[str] = ...) -> None: ...
