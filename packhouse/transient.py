"""Which failures may be gone when the same thing is tried again: of the network, of the other side, or of a busy system.

What does not pass by itself is none of them: a full disk, a right that is missing, wrong input, a package that is not what it
should be.
"""

import errno
import re
import socket

from packhouse.errors import PackhouseError

MAY_PASS = {
    errno.EAGAIN,
    errno.EBUSY,
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
    errno.EINTR,
    errno.EIO,
    errno.ENETDOWN,
    errno.ENETRESET,
    errno.ENETUNREACH,
    errno.ENOBUFS,
    errno.ESTALE,
    errno.ETIMEDOUT,
}
# What pip, uv, docker, buildah and podman say of it, in any case of letters.
SAID = re.compile(
    r"connection (?:was )?(?:refused|reset|aborted|broken|closed)|closed (?:network )?connection|forcibly closed|broken pipe"
    r"|timed? ?out|deadline exceeded|temporary failure|temporarily unavailable|no such host|dns error|unreachable"
    r"|incomplete ?(?:read|download|message)|not enough bytes|\beof\b|unexpected end of file|before message length"
    r"|error (?:sending request|decoding response body)|response body error|tls handshake|toomanyrequests"
    r"|(?:http|status|error|too many)[^\n\d]{0,24}\b(?:429|50[0234])\b|\b(?:429|50[0234]) (?:client|server) error",
    re.IGNORECASE,
)


def may_pass(error: BaseException) -> bool:
    """Whether an error is of a kind that may pass, or else the one that led to it, for libraries wrap errors of the system."""
    if isinstance(error, PackhouseError):
        return error.is_transient
    if isinstance(error, ConnectionError | TimeoutError):
        return True
    if isinstance(error, socket.gaierror):
        return error.errno == socket.EAI_AGAIN
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in MAY_PASS
    led_to_it = error.__cause__ or error.__context__
    return led_to_it is not None and may_pass(led_to_it)


def is_said_to_pass(output: str) -> bool:
    """Whether a program that fetches or pushes says that it failed for a cause that may pass."""
    return SAID.search(output) is not None
