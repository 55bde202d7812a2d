from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class HelloRequest(_message.Message):
    __slots__ = ("protocol_version",)
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    def __init__(self, protocol_version: _Optional[int] = ...) -> None: ...

class HelloResponse(_message.Message):
    __slots__ = ("protocol_version", "agent_version", "features", "kernel_release", "machine")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    AGENT_VERSION_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    KERNEL_RELEASE_FIELD_NUMBER: _ClassVar[int]
    MACHINE_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    agent_version: str
    features: _containers.RepeatedScalarFieldContainer[str]
    kernel_release: str
    machine: str
    def __init__(self, protocol_version: _Optional[int] = ..., agent_version: _Optional[str] = ..., features: _Optional[_Iterable[str]] = ..., kernel_release: _Optional[str] = ..., machine: _Optional[str] = ...) -> None: ...

class SettleRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class SettleResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ConfigureRequest(_message.Message):
    __slots__ = ("time_unix_nanos", "entropy", "interfaces", "sysctls")
    class SysctlsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    TIME_UNIX_NANOS_FIELD_NUMBER: _ClassVar[int]
    ENTROPY_FIELD_NUMBER: _ClassVar[int]
    INTERFACES_FIELD_NUMBER: _ClassVar[int]
    SYSCTLS_FIELD_NUMBER: _ClassVar[int]
    time_unix_nanos: int
    entropy: bytes
    interfaces: _containers.RepeatedCompositeFieldContainer[NetworkInterface]
    sysctls: _containers.ScalarMap[str, str]
    def __init__(self, time_unix_nanos: _Optional[int] = ..., entropy: _Optional[bytes] = ..., interfaces: _Optional[_Iterable[_Union[NetworkInterface, _Mapping]]] = ..., sysctls: _Optional[_Mapping[str, str]] = ...) -> None: ...

class ConfigureResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ResetRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ResetResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class NetworkInterface(_message.Message):
    __slots__ = ("mac", "name", "addresses", "mtu", "routes", "device_mac")
    MAC_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    MTU_FIELD_NUMBER: _ClassVar[int]
    ROUTES_FIELD_NUMBER: _ClassVar[int]
    DEVICE_MAC_FIELD_NUMBER: _ClassVar[int]
    mac: str
    name: str
    addresses: _containers.RepeatedScalarFieldContainer[str]
    mtu: int
    routes: _containers.RepeatedCompositeFieldContainer[Route]
    device_mac: str
    def __init__(self, mac: _Optional[str] = ..., name: _Optional[str] = ..., addresses: _Optional[_Iterable[str]] = ..., mtu: _Optional[int] = ..., routes: _Optional[_Iterable[_Union[Route, _Mapping]]] = ..., device_mac: _Optional[str] = ...) -> None: ...

class Route(_message.Message):
    __slots__ = ("destination", "gateway", "prohibit")
    DESTINATION_FIELD_NUMBER: _ClassVar[int]
    GATEWAY_FIELD_NUMBER: _ClassVar[int]
    PROHIBIT_FIELD_NUMBER: _ClassVar[int]
    destination: str
    gateway: str
    prohibit: bool
    def __init__(self, destination: _Optional[str] = ..., gateway: _Optional[str] = ..., prohibit: bool = ...) -> None: ...

class CreateContainerRequest(_message.Message):
    __slots__ = ("id", "hostname", "rootfs", "mounts", "resources", "masked_paths", "readonly_paths", "etc_files", "shm_bytes")
    class EtcFilesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: bytes
        def __init__(self, key: _Optional[str] = ..., value: _Optional[bytes] = ...) -> None: ...
    ID_FIELD_NUMBER: _ClassVar[int]
    HOSTNAME_FIELD_NUMBER: _ClassVar[int]
    ROOTFS_FIELD_NUMBER: _ClassVar[int]
    MOUNTS_FIELD_NUMBER: _ClassVar[int]
    RESOURCES_FIELD_NUMBER: _ClassVar[int]
    MASKED_PATHS_FIELD_NUMBER: _ClassVar[int]
    READONLY_PATHS_FIELD_NUMBER: _ClassVar[int]
    ETC_FILES_FIELD_NUMBER: _ClassVar[int]
    SHM_BYTES_FIELD_NUMBER: _ClassVar[int]
    id: str
    hostname: str
    rootfs: RootFilesystem
    mounts: _containers.RepeatedCompositeFieldContainer[Mount]
    resources: Resources
    masked_paths: _containers.RepeatedScalarFieldContainer[str]
    readonly_paths: _containers.RepeatedScalarFieldContainer[str]
    etc_files: _containers.ScalarMap[str, bytes]
    shm_bytes: int
    def __init__(self, id: _Optional[str] = ..., hostname: _Optional[str] = ..., rootfs: _Optional[_Union[RootFilesystem, _Mapping]] = ..., mounts: _Optional[_Iterable[_Union[Mount, _Mapping]]] = ..., resources: _Optional[_Union[Resources, _Mapping]] = ..., masked_paths: _Optional[_Iterable[str]] = ..., readonly_paths: _Optional[_Iterable[str]] = ..., etc_files: _Optional[_Mapping[str, bytes]] = ..., shm_bytes: _Optional[int] = ...) -> None: ...

class CreateContainerResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RootFilesystem(_message.Message):
    __slots__ = ("image_serial", "upper_serial", "read_only")
    IMAGE_SERIAL_FIELD_NUMBER: _ClassVar[int]
    UPPER_SERIAL_FIELD_NUMBER: _ClassVar[int]
    READ_ONLY_FIELD_NUMBER: _ClassVar[int]
    image_serial: str
    upper_serial: str
    read_only: bool
    def __init__(self, image_serial: _Optional[str] = ..., upper_serial: _Optional[str] = ..., read_only: bool = ...) -> None: ...

class Mount(_message.Message):
    __slots__ = ("type", "source", "destination", "options", "name", "copy_up", "cut_short", "mode", "owner", "watch")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    DESTINATION_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    COPY_UP_FIELD_NUMBER: _ClassVar[int]
    CUT_SHORT_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    WATCH_FIELD_NUMBER: _ClassVar[int]
    type: str
    source: str
    destination: str
    options: _containers.RepeatedScalarFieldContainer[str]
    name: str
    copy_up: bool
    cut_short: bool
    mode: int
    owner: str
    watch: bool
    def __init__(self, type: _Optional[str] = ..., source: _Optional[str] = ..., destination: _Optional[str] = ..., options: _Optional[_Iterable[str]] = ..., name: _Optional[str] = ..., copy_up: bool = ..., cut_short: bool = ..., mode: _Optional[int] = ..., owner: _Optional[str] = ..., watch: bool = ...) -> None: ...

class Resources(_message.Message):
    __slots__ = ("cpu_millis", "memory_bytes", "pids")
    CPU_MILLIS_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    PIDS_FIELD_NUMBER: _ClassVar[int]
    cpu_millis: int
    memory_bytes: int
    pids: int
    def __init__(self, cpu_millis: _Optional[int] = ..., memory_bytes: _Optional[int] = ..., pids: _Optional[int] = ...) -> None: ...

class Process(_message.Message):
    __slots__ = ("args", "env", "cwd", "user", "tty", "window", "stdin", "capabilities", "no_new_privileges", "seccomp_unconfined", "rlimits", "init")
    ARGS_FIELD_NUMBER: _ClassVar[int]
    ENV_FIELD_NUMBER: _ClassVar[int]
    CWD_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    TTY_FIELD_NUMBER: _ClassVar[int]
    WINDOW_FIELD_NUMBER: _ClassVar[int]
    STDIN_FIELD_NUMBER: _ClassVar[int]
    CAPABILITIES_FIELD_NUMBER: _ClassVar[int]
    NO_NEW_PRIVILEGES_FIELD_NUMBER: _ClassVar[int]
    SECCOMP_UNCONFINED_FIELD_NUMBER: _ClassVar[int]
    RLIMITS_FIELD_NUMBER: _ClassVar[int]
    INIT_FIELD_NUMBER: _ClassVar[int]
    args: _containers.RepeatedScalarFieldContainer[str]
    env: _containers.RepeatedScalarFieldContainer[str]
    cwd: str
    user: str
    tty: bool
    window: WindowSize
    stdin: bool
    capabilities: _containers.RepeatedScalarFieldContainer[str]
    no_new_privileges: bool
    seccomp_unconfined: bool
    rlimits: _containers.RepeatedCompositeFieldContainer[Rlimit]
    init: bool
    def __init__(self, args: _Optional[_Iterable[str]] = ..., env: _Optional[_Iterable[str]] = ..., cwd: _Optional[str] = ..., user: _Optional[str] = ..., tty: bool = ..., window: _Optional[_Union[WindowSize, _Mapping]] = ..., stdin: bool = ..., capabilities: _Optional[_Iterable[str]] = ..., no_new_privileges: bool = ..., seccomp_unconfined: bool = ..., rlimits: _Optional[_Iterable[_Union[Rlimit, _Mapping]]] = ..., init: bool = ...) -> None: ...

class WindowSize(_message.Message):
    __slots__ = ("rows", "columns")
    ROWS_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    rows: int
    columns: int
    def __init__(self, rows: _Optional[int] = ..., columns: _Optional[int] = ...) -> None: ...

class Rlimit(_message.Message):
    __slots__ = ("type", "soft", "hard")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    SOFT_FIELD_NUMBER: _ClassVar[int]
    HARD_FIELD_NUMBER: _ClassVar[int]
    type: str
    soft: int
    hard: int
    def __init__(self, type: _Optional[str] = ..., soft: _Optional[int] = ..., hard: _Optional[int] = ...) -> None: ...

class RunRequest(_message.Message):
    __slots__ = ("start", "stdin", "close_stdin", "resize", "signal")
    class Start(_message.Message):
        __slots__ = ("process", "first", "id")
        PROCESS_FIELD_NUMBER: _ClassVar[int]
        FIRST_FIELD_NUMBER: _ClassVar[int]
        ID_FIELD_NUMBER: _ClassVar[int]
        process: Process
        first: bool
        id: str
        def __init__(self, process: _Optional[_Union[Process, _Mapping]] = ..., first: bool = ..., id: _Optional[str] = ...) -> None: ...
    class CloseStdin(_message.Message):
        __slots__ = ()
        def __init__(self) -> None: ...
    class Signal(_message.Message):
        __slots__ = ("number",)
        NUMBER_FIELD_NUMBER: _ClassVar[int]
        number: int
        def __init__(self, number: _Optional[int] = ...) -> None: ...
    START_FIELD_NUMBER: _ClassVar[int]
    STDIN_FIELD_NUMBER: _ClassVar[int]
    CLOSE_STDIN_FIELD_NUMBER: _ClassVar[int]
    RESIZE_FIELD_NUMBER: _ClassVar[int]
    SIGNAL_FIELD_NUMBER: _ClassVar[int]
    start: RunRequest.Start
    stdin: bytes
    close_stdin: RunRequest.CloseStdin
    resize: WindowSize
    signal: RunRequest.Signal
    def __init__(self, start: _Optional[_Union[RunRequest.Start, _Mapping]] = ..., stdin: _Optional[bytes] = ..., close_stdin: _Optional[_Union[RunRequest.CloseStdin, _Mapping]] = ..., resize: _Optional[_Union[WindowSize, _Mapping]] = ..., signal: _Optional[_Union[RunRequest.Signal, _Mapping]] = ...) -> None: ...

class RunResponse(_message.Message):
    __slots__ = ("started", "stdout", "stderr", "exited")
    class Started(_message.Message):
        __slots__ = ("pid",)
        PID_FIELD_NUMBER: _ClassVar[int]
        pid: int
        def __init__(self, pid: _Optional[int] = ...) -> None: ...
    class Exited(_message.Message):
        __slots__ = ("code", "signal", "oom_killed")
        CODE_FIELD_NUMBER: _ClassVar[int]
        SIGNAL_FIELD_NUMBER: _ClassVar[int]
        OOM_KILLED_FIELD_NUMBER: _ClassVar[int]
        code: int
        signal: int
        oom_killed: bool
        def __init__(self, code: _Optional[int] = ..., signal: _Optional[int] = ..., oom_killed: bool = ...) -> None: ...
    STARTED_FIELD_NUMBER: _ClassVar[int]
    STDOUT_FIELD_NUMBER: _ClassVar[int]
    STDERR_FIELD_NUMBER: _ClassVar[int]
    EXITED_FIELD_NUMBER: _ClassVar[int]
    started: RunResponse.Started
    stdout: bytes
    stderr: bytes
    exited: RunResponse.Exited
    def __init__(self, started: _Optional[_Union[RunResponse.Started, _Mapping]] = ..., stdout: _Optional[bytes] = ..., stderr: _Optional[bytes] = ..., exited: _Optional[_Union[RunResponse.Exited, _Mapping]] = ...) -> None: ...

class SignalRequest(_message.Message):
    __slots__ = ("id", "number")
    ID_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    id: str
    number: int
    def __init__(self, id: _Optional[str] = ..., number: _Optional[int] = ...) -> None: ...

class SignalResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ResizeRequest(_message.Message):
    __slots__ = ("id", "window")
    ID_FIELD_NUMBER: _ClassVar[int]
    WINDOW_FIELD_NUMBER: _ClassVar[int]
    id: str
    window: WindowSize
    def __init__(self, id: _Optional[str] = ..., window: _Optional[_Union[WindowSize, _Mapping]] = ...) -> None: ...

class ResizeResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class AbortMountRequest(_message.Message):
    __slots__ = ("index",)
    INDEX_FIELD_NUMBER: _ClassVar[int]
    index: int
    def __init__(self, index: _Optional[int] = ...) -> None: ...

class AbortMountResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ConnectionRequest(_message.Message):
    __slots__ = ("socket", "data")
    SOCKET_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    socket: str
    data: bytes
    def __init__(self, socket: _Optional[str] = ..., data: _Optional[bytes] = ...) -> None: ...

class ConnectionResponse(_message.Message):
    __slots__ = ("opened", "data", "end")
    class Opened(_message.Message):
        __slots__ = ()
        def __init__(self) -> None: ...
    class End(_message.Message):
        __slots__ = ()
        def __init__(self) -> None: ...
    OPENED_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    opened: ConnectionResponse.Opened
    data: bytes
    end: ConnectionResponse.End
    def __init__(self, opened: _Optional[_Union[ConnectionResponse.Opened, _Mapping]] = ..., data: _Optional[bytes] = ..., end: _Optional[_Union[ConnectionResponse.End, _Mapping]] = ...) -> None: ...

class Change(_message.Message):
    __slots__ = ("kind", "directory", "name", "is_directory", "to_directory", "to_name")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        KIND_UNSPECIFIED: _ClassVar[Change.Kind]
        KIND_CREATED: _ClassVar[Change.Kind]
        KIND_DELETED: _ClassVar[Change.Kind]
        KIND_MOVED: _ClassVar[Change.Kind]
        KIND_MOVED_OUT: _ClassVar[Change.Kind]
        KIND_MOVED_IN: _ClassVar[Change.Kind]
        KIND_MODIFIED: _ClassVar[Change.Kind]
        KIND_CLOSED: _ClassVar[Change.Kind]
        KIND_ATTRIBUTES: _ClassVar[Change.Kind]
    KIND_UNSPECIFIED: Change.Kind
    KIND_CREATED: Change.Kind
    KIND_DELETED: Change.Kind
    KIND_MOVED: Change.Kind
    KIND_MOVED_OUT: Change.Kind
    KIND_MOVED_IN: Change.Kind
    KIND_MODIFIED: Change.Kind
    KIND_CLOSED: Change.Kind
    KIND_ATTRIBUTES: Change.Kind
    KIND_FIELD_NUMBER: _ClassVar[int]
    DIRECTORY_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    IS_DIRECTORY_FIELD_NUMBER: _ClassVar[int]
    TO_DIRECTORY_FIELD_NUMBER: _ClassVar[int]
    TO_NAME_FIELD_NUMBER: _ClassVar[int]
    kind: Change.Kind
    directory: bytes
    name: bytes
    is_directory: bool
    to_directory: bytes
    to_name: bytes
    def __init__(self, kind: _Optional[_Union[Change.Kind, str]] = ..., directory: _Optional[bytes] = ..., name: _Optional[bytes] = ..., is_directory: bool = ..., to_directory: _Optional[bytes] = ..., to_name: _Optional[bytes] = ...) -> None: ...

class PlayChangesRequest(_message.Message):
    __slots__ = ("source", "changes")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    source: str
    changes: _containers.RepeatedCompositeFieldContainer[Change]
    def __init__(self, source: _Optional[str] = ..., changes: _Optional[_Iterable[_Union[Change, _Mapping]]] = ...) -> None: ...

class PlayChangesResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StatsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StatsResponse(_message.Message):
    __slots__ = ("time_nanos", "cpu_usage_usec", "memory_usage_bytes", "memory_limit_bytes", "network_rx_bytes", "network_tx_bytes", "block_read_bytes", "block_write_bytes", "processes")
    TIME_NANOS_FIELD_NUMBER: _ClassVar[int]
    CPU_USAGE_USEC_FIELD_NUMBER: _ClassVar[int]
    MEMORY_USAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MEMORY_LIMIT_BYTES_FIELD_NUMBER: _ClassVar[int]
    NETWORK_RX_BYTES_FIELD_NUMBER: _ClassVar[int]
    NETWORK_TX_BYTES_FIELD_NUMBER: _ClassVar[int]
    BLOCK_READ_BYTES_FIELD_NUMBER: _ClassVar[int]
    BLOCK_WRITE_BYTES_FIELD_NUMBER: _ClassVar[int]
    PROCESSES_FIELD_NUMBER: _ClassVar[int]
    time_nanos: int
    cpu_usage_usec: int
    memory_usage_bytes: int
    memory_limit_bytes: int
    network_rx_bytes: int
    network_tx_bytes: int
    block_read_bytes: int
    block_write_bytes: int
    processes: int
    def __init__(self, time_nanos: _Optional[int] = ..., cpu_usage_usec: _Optional[int] = ..., memory_usage_bytes: _Optional[int] = ..., memory_limit_bytes: _Optional[int] = ..., network_rx_bytes: _Optional[int] = ..., network_tx_bytes: _Optional[int] = ..., block_read_bytes: _Optional[int] = ..., block_write_bytes: _Optional[int] = ..., processes: _Optional[int] = ...) -> None: ...

class ListProcessesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListProcessesResponse(_message.Message):
    __slots__ = ("processes", "left_out")
    class Process(_message.Message):
        __slots__ = ("pid", "parent_pid", "group_id", "session_id", "uid", "user", "cpu_millis", "age_millis", "terminal", "state", "nice", "threads", "virtual_bytes", "resident_bytes", "name", "command")
        PID_FIELD_NUMBER: _ClassVar[int]
        PARENT_PID_FIELD_NUMBER: _ClassVar[int]
        GROUP_ID_FIELD_NUMBER: _ClassVar[int]
        SESSION_ID_FIELD_NUMBER: _ClassVar[int]
        UID_FIELD_NUMBER: _ClassVar[int]
        USER_FIELD_NUMBER: _ClassVar[int]
        CPU_MILLIS_FIELD_NUMBER: _ClassVar[int]
        AGE_MILLIS_FIELD_NUMBER: _ClassVar[int]
        TERMINAL_FIELD_NUMBER: _ClassVar[int]
        STATE_FIELD_NUMBER: _ClassVar[int]
        NICE_FIELD_NUMBER: _ClassVar[int]
        THREADS_FIELD_NUMBER: _ClassVar[int]
        VIRTUAL_BYTES_FIELD_NUMBER: _ClassVar[int]
        RESIDENT_BYTES_FIELD_NUMBER: _ClassVar[int]
        NAME_FIELD_NUMBER: _ClassVar[int]
        COMMAND_FIELD_NUMBER: _ClassVar[int]
        pid: int
        parent_pid: int
        group_id: int
        session_id: int
        uid: int
        user: str
        cpu_millis: int
        age_millis: int
        terminal: int
        state: str
        nice: int
        threads: int
        virtual_bytes: int
        resident_bytes: int
        name: str
        command: str
        def __init__(self, pid: _Optional[int] = ..., parent_pid: _Optional[int] = ..., group_id: _Optional[int] = ..., session_id: _Optional[int] = ..., uid: _Optional[int] = ..., user: _Optional[str] = ..., cpu_millis: _Optional[int] = ..., age_millis: _Optional[int] = ..., terminal: _Optional[int] = ..., state: _Optional[str] = ..., nice: _Optional[int] = ..., threads: _Optional[int] = ..., virtual_bytes: _Optional[int] = ..., resident_bytes: _Optional[int] = ..., name: _Optional[str] = ..., command: _Optional[str] = ...) -> None: ...
    PROCESSES_FIELD_NUMBER: _ClassVar[int]
    LEFT_OUT_FIELD_NUMBER: _ClassVar[int]
    processes: _containers.RepeatedCompositeFieldContainer[ListProcessesResponse.Process]
    left_out: int
    def __init__(self, processes: _Optional[_Iterable[_Union[ListProcessesResponse.Process, _Mapping]]] = ..., left_out: _Optional[int] = ...) -> None: ...

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
    __slots__ = ("resources",)
    RESOURCES_FIELD_NUMBER: _ClassVar[int]
    resources: Resources
    def __init__(self, resources: _Optional[_Union[Resources, _Mapping]] = ...) -> None: ...

class UpdateResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ShutdownRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ShutdownResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StatPathRequest(_message.Message):
    __slots__ = ("path", "follow")
    PATH_FIELD_NUMBER: _ClassVar[int]
    FOLLOW_FIELD_NUMBER: _ClassVar[int]
    path: bytes
    follow: bool
    def __init__(self, path: _Optional[bytes] = ..., follow: bool = ...) -> None: ...

class StatPathResponse(_message.Message):
    __slots__ = ("path", "exists", "mode", "size")
    PATH_FIELD_NUMBER: _ClassVar[int]
    EXISTS_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    path: bytes
    exists: bool
    mode: int
    size: int
    def __init__(self, path: _Optional[bytes] = ..., exists: bool = ..., mode: _Optional[int] = ..., size: _Optional[int] = ...) -> None: ...

class ReadArchiveRequest(_message.Message):
    __slots__ = ("path", "name")
    PATH_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    path: bytes
    name: bytes
    def __init__(self, path: _Optional[bytes] = ..., name: _Optional[bytes] = ...) -> None: ...

class ArchivePiece(_message.Message):
    __slots__ = ("data",)
    DATA_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    def __init__(self, data: _Optional[bytes] = ...) -> None: ...

class WriteArchiveRequest(_message.Message):
    __slots__ = ("open", "data")
    class Open(_message.Message):
        __slots__ = ("path",)
        PATH_FIELD_NUMBER: _ClassVar[int]
        path: bytes
        def __init__(self, path: _Optional[bytes] = ...) -> None: ...
    OPEN_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    open: WriteArchiveRequest.Open
    data: bytes
    def __init__(self, open: _Optional[_Union[WriteArchiveRequest.Open, _Mapping]] = ..., data: _Optional[bytes] = ...) -> None: ...

class WriteArchiveResponse(_message.Message):
    __slots__ = ("code", "message")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    code: int
    message: str
    def __init__(self, code: _Optional[int] = ..., message: _Optional[str] = ...) -> None: ...

class ExportRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ExportLayerRequest(_message.Message):
    __slots__ = ("going",)
    GOING_FIELD_NUMBER: _ClassVar[int]
    going: bool
    def __init__(self, going: bool = ...) -> None: ...

class DiffRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DiffResponse(_message.Message):
    __slots__ = ("changes",)
    class Change(_message.Message):
        __slots__ = ("kind", "path")
        class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
            __slots__ = ()
            MODIFIED: _ClassVar[DiffResponse.Change.Kind]
            ADDED: _ClassVar[DiffResponse.Change.Kind]
            DELETED: _ClassVar[DiffResponse.Change.Kind]
        MODIFIED: DiffResponse.Change.Kind
        ADDED: DiffResponse.Change.Kind
        DELETED: DiffResponse.Change.Kind
        KIND_FIELD_NUMBER: _ClassVar[int]
        PATH_FIELD_NUMBER: _ClassVar[int]
        kind: DiffResponse.Change.Kind
        path: bytes
        def __init__(self, kind: _Optional[_Union[DiffResponse.Change.Kind, str]] = ..., path: _Optional[bytes] = ...) -> None: ...
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    changes: _containers.RepeatedCompositeFieldContainer[DiffResponse.Change]
    def __init__(self, changes: _Optional[_Iterable[_Union[DiffResponse.Change, _Mapping]]] = ...) -> None: ...

class TraceRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class TraceResponse(_message.Message):
    __slots__ = ("now_nanos", "spans")
    class Span(_message.Message):
        __slots__ = ("name", "start_nanos", "end_nanos")
        NAME_FIELD_NUMBER: _ClassVar[int]
        START_NANOS_FIELD_NUMBER: _ClassVar[int]
        END_NANOS_FIELD_NUMBER: _ClassVar[int]
        name: str
        start_nanos: int
        end_nanos: int
        def __init__(self, name: _Optional[str] = ..., start_nanos: _Optional[int] = ..., end_nanos: _Optional[int] = ...) -> None: ...
    NOW_NANOS_FIELD_NUMBER: _ClassVar[int]
    SPANS_FIELD_NUMBER: _ClassVar[int]
    now_nanos: int
    spans: _containers.RepeatedCompositeFieldContainer[TraceResponse.Span]
    def __init__(self, now_nanos: _Optional[int] = ..., spans: _Optional[_Iterable[_Union[TraceResponse.Span, _Mapping]]] = ...) -> None: ...
