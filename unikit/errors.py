"""Every exception unikit raises, and the one place where C codes become exceptions.

:class:`UnikitError` is the root and is never raised itself; each class also derives from the
builtin that a Python programmer would catch anyway. Codes are those of ``rt/error.h``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence


class UnikitError(Exception):
    """The root of all exceptions of unikit; never raised itself."""


class OutOfMemory(UnikitError, MemoryError):
    """Memory or a table is exhausted; the call had no effect (``KIT_ENOMEM``)."""


class InvalidArgument(UnikitError, ValueError):
    """An argument lies outside what the contract allows (``KIT_EINVAL``)."""


class WouldBlock(UnikitError, BlockingIOError):
    """Nothing can be done now; try again after an event (``KIT_EAGAIN``)."""


class Closed(UnikitError, ConnectionError):
    """The object or its other end was closed in good order (``KIT_ECLOSED``)."""


class TimedOut(UnikitError, TimeoutError):
    """The deadline passed or the peer did not answer (``KIT_ETIMEDOUT``)."""


class Malformed(UnikitError, ValueError):
    """Bytes from outside break their format (``KIT_EMALFORMED``)."""


class ConnectionReset(UnikitError, ConnectionResetError):
    """The peer reset the connection (``KIT_ERESET``)."""


class ConnectionRefused(UnikitError, ConnectionRefusedError):
    """The peer refused the connection (``KIT_EREFUSED``)."""


class NotSupported(UnikitError, NotImplementedError):
    """The component or platform does not have this feature (``KIT_ENOTSUP``)."""


class AlreadyExists(UnikitError, FileExistsError):
    """A name, port or address is already taken (``KIT_EEXIST``)."""


class NotFound(UnikitError, LookupError):
    """No such name, file, option or route (``KIT_ENOENT``)."""


class NoPermission(UnikitError, PermissionError):
    """The host or the platform refuses permission (``KIT_EPERM``)."""


class MessageTooLong(UnikitError, ValueError):
    """Larger than the frame or datagram that could carry it (``KIT_EMSGSIZE``)."""


class Unreachable(UnikitError, OSError):
    """No route, or no neighbour answered for the next hop (``KIT_EUNREACH``)."""


class DeviceError(UnikitError, OSError):
    """A device failed (``KIT_EIO``)."""


class Corrupt(UnikitError, AssertionError):
    """A check found a broken invariant (``KIT_ECORRUPT``)."""


class Deadlock(UnikitError, RuntimeError):
    """Every task is blocked and nothing can wake one (``KIT_EDEADLOCK``)."""


class Panic(UnikitError, RuntimeError):
    """A component found a broken contract; the object must not be used again (``KIT_EPANIC``)."""


class CallbackError(UnikitError, RuntimeError):
    """A Python callback raised; the cause is chained (``KIT_ECALLBACK``)."""


class CompositionError(UnikitError, ValueError):
    """A composition cannot be built. ``problems`` lists every mistake, each in one line."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(self.problems))


class ToolchainError(UnikitError, RuntimeError):
    """A compiler, linker or other tool is missing or failed.

    :ivar command: the command line, or an empty tuple when the tool is missing.
    :ivar status: its exit status, or ``None``.
    :ivar stderr: what it printed.
    """

    def __init__(self, message: str, command: Sequence[str] = (), status: int | None = None,
                 stderr: str = "") -> None:
        self.command = tuple(command)
        self.status = status
        self.stderr = stderr
        super().__init__(message)


class ImageError(UnikitError, ValueError):
    """A file is not an image that unikit can use: malformed, foreign, too large, lying note."""


class PlatformError(UnikitError, OSError):
    """A platform is not usable here, or the host refused something. The message has the remedy."""


class GuestExit(UnikitError, RuntimeError):
    """An image ended otherwise than by its own exit: panic, fault, broken device contract.

    :ivar reason: ``"panic"``, ``"fault"``, ``"device"``, ``"killed"``.
    :ivar code: the exit code a command line tool should use.
    :ivar registers: name to value, as far as the platform knows them.
    :ivar backtrace: lines, innermost first.
    :ivar console: the last console lines.
    """

    def __init__(self, message: str, *, reason: str, code: int,
                 registers: Mapping[str, int] | None = None, backtrace: Sequence[str] = (),
                 console: Sequence[str] = ()) -> None:
        self.reason = reason
        self.code = code
        self.registers = dict(registers or {})
        self.backtrace = tuple(backtrace)
        self.console = tuple(console)
        super().__init__(message)


CODES: Mapping[int, type[UnikitError]] = {
    -1: OutOfMemory,
    -2: InvalidArgument,
    -3: WouldBlock,
    -4: Closed,
    -5: TimedOut,
    -6: Malformed,
    -7: ConnectionReset,
    -8: ConnectionRefused,
    -9: NotSupported,
    -10: AlreadyExists,
    -11: NotFound,
    -12: NoPermission,
    -13: MessageTooLong,
    -14: Unreachable,
    -15: DeviceError,
    -16: Corrupt,
    -17: Deadlock,
    -18: Panic,
    -19: CallbackError,
}
"""Code of ``rt/error.h`` to the class that :func:`check` raises for it."""


def check(code: int, doing: str) -> int:
    """Return a result that is no error, or raise what its code stands for.

    :param code: what a C function returned.
    :param doing: what was attempted and with which value, for the message.
    :raises UnikitError: the class :data:`CODES` has for a negative ``code``.
    """
    if code >= 0:
        return code
    kind = CODES.get(code)
    if kind is None:
        raise Corrupt(f"{doing}: unknown error code {code}")
    meaning = (kind.__doc__ or "").split(" (``")[0].split(";")[0].rstrip(".")
    raise kind(f"{doing}: {meaning[:1].lower()}{meaning[1:]}")
