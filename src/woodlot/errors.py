"""Every error this package raises on purpose.

The tree, with the code each class carries:

    WoodlotError
    ├── ConfigError            invalid_argument   a flag, setting, reference or file we cannot use
    ├── NotFoundError          not_found          no such image, container, kernel, program
    ├── AlreadyExistsError     already_exists     the name is taken
    ├── StateError             invalid_state      the object is not in a state that allows this
    ├── UnsupportedError       unsupported        this host, backend or kernel cannot do it
    ├── LimitError             limit_exceeded     input larger than a limit of ours, disk or memory full
    ├── IntegrityError         data_loss          bytes that do not match their digest or format
    ├── RegistryError          unavailable        a registry that fails, refuses or lies
    │   └── AuthError          unauthenticated
    ├── NetworkError           unavailable        the switch of a network failed
    ├── VmmError               unavailable        the virtual machine monitor failed
    │   └── VmmTimeoutError    timeout
    ├── GuestError             unavailable        the agent in the guest failed
    │   └── GuestTimeoutError  timeout
    └── ExecutionError         not_found or not_executable   the container's process could not be started

Catch `WoodlotError` to catch them all; branch on `.code`.
"""

from enum import StrEnum, auto


class ErrorCode(StrEnum):
    """What a caller can branch on."""

    INVALID_ARGUMENT = auto()
    NOT_FOUND = auto()
    NOT_EXECUTABLE = auto()
    ALREADY_EXISTS = auto()
    INVALID_STATE = auto()
    TIMEOUT = auto()
    UNSUPPORTED = auto()
    LIMIT_EXCEEDED = auto()
    DATA_LOSS = auto()
    UNAUTHENTICATED = auto()
    UNAVAILABLE = auto()
    INTERNAL = auto()


class WoodlotError(Exception):
    """Base class: what failed, the facts, and what to do about it.

    Attributes:
        message: One line naming the object and the operation that failed.
        details: Facts for a bug report: argv, exit status, tail of a log.
        hint: The next thing to try, as an instruction; None when there is none.
        code: What a caller can branch on.
    """

    code: ErrorCode = ErrorCode.INTERNAL

    def __init__(
        self, message: str, *, details: str | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.details = details
        self.hint = hint


class ConfigError(WoodlotError):
    """A flag, setting, reference or file that cannot be used as it is."""

    code = ErrorCode.INVALID_ARGUMENT


class NotFoundError(WoodlotError):
    """No such image, container, kernel or program."""

    code = ErrorCode.NOT_FOUND


class AlreadyExistsError(WoodlotError):
    """The name is taken."""

    code = ErrorCode.ALREADY_EXISTS


class StateError(WoodlotError):
    """The object is not in a state that allows the operation."""

    code = ErrorCode.INVALID_STATE


class UnsupportedError(WoodlotError):
    """This host, backend or kernel cannot do it."""

    code = ErrorCode.UNSUPPORTED


class LimitError(WoodlotError):
    """Input beyond a limit of ours, or a full disk or memory."""

    code = ErrorCode.LIMIT_EXCEEDED


class IntegrityError(WoodlotError):
    """Bytes that do not match their digest, size or format."""

    code = ErrorCode.DATA_LOSS


class RegistryError(WoodlotError):
    """A registry that fails, refuses or lies."""

    code = ErrorCode.UNAVAILABLE


class AuthError(RegistryError):
    """A registry wants credentials that it was not given or does not accept."""

    code = ErrorCode.UNAUTHENTICATED


class NetworkError(WoodlotError):
    """The switch of a network could not start, failed or is gone."""

    code = ErrorCode.UNAVAILABLE


class VmmError(WoodlotError):
    """The virtual machine monitor could not start or ended by itself."""

    code = ErrorCode.UNAVAILABLE


class VmmTimeoutError(VmmError):
    """The virtual machine monitor did not reach a stage in time."""

    code = ErrorCode.TIMEOUT


class GuestError(WoodlotError):
    """The agent in the guest failed or spoke nonsense."""

    code = ErrorCode.UNAVAILABLE


class GuestTimeoutError(GuestError):
    """The agent in the guest did not answer in time."""

    code = ErrorCode.TIMEOUT


class ExecutionError(WoodlotError):
    """The container's process could not be executed; `code` tells not_found from not_executable."""

    code = ErrorCode.NOT_FOUND

    def __init__(
        self,
        message: str,
        *,
        details: str | None = None,
        hint: str | None = None,
        code: ErrorCode = ErrorCode.NOT_FOUND,
    ) -> None:
        super().__init__(message, details=details, hint=hint)
        self.code = code


class TimeLimitError(WoodlotError):
    """A process ran longer than its caller allowed."""

    code = ErrorCode.TIMEOUT
