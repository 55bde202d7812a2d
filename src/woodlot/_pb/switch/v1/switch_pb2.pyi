from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AttachRequest(_message.Message):
    __slots__ = ("container_id", "names", "ip", "mac", "socket_path", "host_ports", "nameservers", "sibling_sockets", "egress")
    CONTAINER_ID_FIELD_NUMBER: _ClassVar[int]
    NAMES_FIELD_NUMBER: _ClassVar[int]
    IP_FIELD_NUMBER: _ClassVar[int]
    MAC_FIELD_NUMBER: _ClassVar[int]
    SOCKET_PATH_FIELD_NUMBER: _ClassVar[int]
    HOST_PORTS_FIELD_NUMBER: _ClassVar[int]
    NAMESERVERS_FIELD_NUMBER: _ClassVar[int]
    SIBLING_SOCKETS_FIELD_NUMBER: _ClassVar[int]
    EGRESS_FIELD_NUMBER: _ClassVar[int]
    container_id: str
    names: _containers.RepeatedScalarFieldContainer[str]
    ip: str
    mac: str
    socket_path: str
    host_ports: _containers.RepeatedCompositeFieldContainer[PortRange]
    nameservers: _containers.RepeatedScalarFieldContainer[str]
    sibling_sockets: _containers.RepeatedScalarFieldContainer[str]
    egress: Egress
    def __init__(self, container_id: _Optional[str] = ..., names: _Optional[_Iterable[str]] = ..., ip: _Optional[str] = ..., mac: _Optional[str] = ..., socket_path: _Optional[str] = ..., host_ports: _Optional[_Iterable[_Union[PortRange, _Mapping]]] = ..., nameservers: _Optional[_Iterable[str]] = ..., sibling_sockets: _Optional[_Iterable[str]] = ..., egress: _Optional[_Union[Egress, _Mapping]] = ...) -> None: ...

class Egress(_message.Message):
    __slots__ = ("rules",)
    class Rule(_message.Message):
        __slots__ = ("cidr", "name", "port")
        CIDR_FIELD_NUMBER: _ClassVar[int]
        NAME_FIELD_NUMBER: _ClassVar[int]
        PORT_FIELD_NUMBER: _ClassVar[int]
        cidr: str
        name: str
        port: int
        def __init__(self, cidr: _Optional[str] = ..., name: _Optional[str] = ..., port: _Optional[int] = ...) -> None: ...
    RULES_FIELD_NUMBER: _ClassVar[int]
    rules: _containers.RepeatedCompositeFieldContainer[Egress.Rule]
    def __init__(self, rules: _Optional[_Iterable[_Union[Egress.Rule, _Mapping]]] = ...) -> None: ...

class PortRange(_message.Message):
    __slots__ = ("first", "last")
    FIRST_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    first: int
    last: int
    def __init__(self, first: _Optional[int] = ..., last: _Optional[int] = ...) -> None: ...

class AttachResponse(_message.Message):
    __slots__ = ("attached", "link_lost")
    class Attached(_message.Message):
        __slots__ = ("ip", "prefix_length", "gateway", "host", "mtu", "internal", "ip_v6", "prefix_length_v6", "gateway_v6")
        IP_FIELD_NUMBER: _ClassVar[int]
        PREFIX_LENGTH_FIELD_NUMBER: _ClassVar[int]
        GATEWAY_FIELD_NUMBER: _ClassVar[int]
        HOST_FIELD_NUMBER: _ClassVar[int]
        MTU_FIELD_NUMBER: _ClassVar[int]
        INTERNAL_FIELD_NUMBER: _ClassVar[int]
        IP_V6_FIELD_NUMBER: _ClassVar[int]
        PREFIX_LENGTH_V6_FIELD_NUMBER: _ClassVar[int]
        GATEWAY_V6_FIELD_NUMBER: _ClassVar[int]
        ip: str
        prefix_length: int
        gateway: str
        host: str
        mtu: int
        internal: bool
        ip_v6: str
        prefix_length_v6: int
        gateway_v6: str
        def __init__(self, ip: _Optional[str] = ..., prefix_length: _Optional[int] = ..., gateway: _Optional[str] = ..., host: _Optional[str] = ..., mtu: _Optional[int] = ..., internal: bool = ..., ip_v6: _Optional[str] = ..., prefix_length_v6: _Optional[int] = ..., gateway_v6: _Optional[str] = ...) -> None: ...
    class LinkLost(_message.Message):
        __slots__ = ("reason",)
        REASON_FIELD_NUMBER: _ClassVar[int]
        reason: str
        def __init__(self, reason: _Optional[str] = ...) -> None: ...
    ATTACHED_FIELD_NUMBER: _ClassVar[int]
    LINK_LOST_FIELD_NUMBER: _ClassVar[int]
    attached: AttachResponse.Attached
    link_lost: AttachResponse.LinkLost
    def __init__(self, attached: _Optional[_Union[AttachResponse.Attached, _Mapping]] = ..., link_lost: _Optional[_Union[AttachResponse.LinkLost, _Mapping]] = ...) -> None: ...

class Port(_message.Message):
    __slots__ = ("host_ip", "host_port", "container_port", "protocol")
    HOST_IP_FIELD_NUMBER: _ClassVar[int]
    HOST_PORT_FIELD_NUMBER: _ClassVar[int]
    CONTAINER_PORT_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    host_ip: str
    host_port: int
    container_port: int
    protocol: str
    def __init__(self, host_ip: _Optional[str] = ..., host_port: _Optional[int] = ..., container_port: _Optional[int] = ..., protocol: _Optional[str] = ...) -> None: ...

class PublishRequest(_message.Message):
    __slots__ = ("container_id", "port", "last_host_port")
    CONTAINER_ID_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    LAST_HOST_PORT_FIELD_NUMBER: _ClassVar[int]
    container_id: str
    port: Port
    last_host_port: int
    def __init__(self, container_id: _Optional[str] = ..., port: _Optional[_Union[Port, _Mapping]] = ..., last_host_port: _Optional[int] = ...) -> None: ...

class PublishResponse(_message.Message):
    __slots__ = ("ports",)
    PORTS_FIELD_NUMBER: _ClassVar[int]
    ports: _containers.RepeatedCompositeFieldContainer[Port]
    def __init__(self, ports: _Optional[_Iterable[_Union[Port, _Mapping]]] = ...) -> None: ...

class UnpublishRequest(_message.Message):
    __slots__ = ("container_id", "port")
    CONTAINER_ID_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    container_id: str
    port: Port
    def __init__(self, container_id: _Optional[str] = ..., port: _Optional[_Union[Port, _Mapping]] = ...) -> None: ...

class UnpublishResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class LookupRequest(_message.Message):
    __slots__ = ("container_id", "name")
    CONTAINER_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    container_id: str
    name: str
    def __init__(self, container_id: _Optional[str] = ..., name: _Optional[str] = ...) -> None: ...

class LookupResponse(_message.Message):
    __slots__ = ("addresses",)
    ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    addresses: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, addresses: _Optional[_Iterable[str]] = ...) -> None: ...

class StatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StatusResponse(_message.Message):
    __slots__ = ("members",)
    class Member(_message.Message):
        __slots__ = ("container_id", "names", "ip", "mac", "ports", "frames_received", "frames_sent", "frames_dropped", "egress_refused", "ip_v6")
        CONTAINER_ID_FIELD_NUMBER: _ClassVar[int]
        NAMES_FIELD_NUMBER: _ClassVar[int]
        IP_FIELD_NUMBER: _ClassVar[int]
        MAC_FIELD_NUMBER: _ClassVar[int]
        PORTS_FIELD_NUMBER: _ClassVar[int]
        FRAMES_RECEIVED_FIELD_NUMBER: _ClassVar[int]
        FRAMES_SENT_FIELD_NUMBER: _ClassVar[int]
        FRAMES_DROPPED_FIELD_NUMBER: _ClassVar[int]
        EGRESS_REFUSED_FIELD_NUMBER: _ClassVar[int]
        IP_V6_FIELD_NUMBER: _ClassVar[int]
        container_id: str
        names: _containers.RepeatedScalarFieldContainer[str]
        ip: str
        mac: str
        ports: _containers.RepeatedCompositeFieldContainer[Port]
        frames_received: int
        frames_sent: int
        frames_dropped: int
        egress_refused: int
        ip_v6: str
        def __init__(self, container_id: _Optional[str] = ..., names: _Optional[_Iterable[str]] = ..., ip: _Optional[str] = ..., mac: _Optional[str] = ..., ports: _Optional[_Iterable[_Union[Port, _Mapping]]] = ..., frames_received: _Optional[int] = ..., frames_sent: _Optional[int] = ..., frames_dropped: _Optional[int] = ..., egress_refused: _Optional[int] = ..., ip_v6: _Optional[str] = ...) -> None: ...
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    members: _containers.RepeatedCompositeFieldContainer[StatusResponse.Member]
    def __init__(self, members: _Optional[_Iterable[_Union[StatusResponse.Member, _Mapping]]] = ...) -> None: ...
