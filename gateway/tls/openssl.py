"""What OpenSSL can do and Python's ssl module has no word for: shared ticket keys, and asking for certificates of any kind.

It is reached by ctypes, through a pointer that is read out of a context's object (its first field: CPython, `Modules/_ssl.c`).
Another CPython may lay the object out in another way, and a wrong pointer would end the worker. So the layout is checked once,
before anything is done with it: what Python says of a context must be what OpenSSL says of it. Where it is not, these two
features are off, and say so.
"""

from __future__ import annotations

import _ssl
import ctypes
import logging
import ssl
from functools import cache
from typing import Any, Final

log = logging.getLogger("fsm.tls")
TICKET_KEY_BYTES: Final = 80  # a name, a key to authenticate, a key to encrypt (OpenSSL 1.1 and later)
_SET_TICKET_KEYS: Final = 59  # SSL_CTRL_SET_TLSEXT_TICKET_KEYS
_LOWEST, _HIGHEST = 1 << 16, 1 << 47  # addresses of a process, on the machines that there are

# What becomes of a client's certificate while a handshake looks at it: whatever it is, the handshake goes on.
_Verify = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_void_p)
_accept = _Verify(lambda ok, store: 1)


@cache
def _library() -> Any:
    """The OpenSSL that Python's ssl module is linked with."""
    library = ctypes.CDLL(_ssl.__file__)
    library.SSL_CTX_set_verify.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p]
    library.SSL_CTX_set_verify.restype = None
    library.SSL_CTX_ctrl.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_long, ctypes.c_char_p]
    library.SSL_CTX_ctrl.restype = ctypes.c_long
    library.SSL_CTX_get_options.argtypes = [ctypes.c_void_p]
    library.SSL_CTX_get_options.restype = ctypes.c_uint64
    library.SSL_CTX_get_verify_mode.argtypes = [ctypes.c_void_p]
    library.SSL_CTX_get_verify_mode.restype = ctypes.c_int
    return library


def _pointer(context: ssl.SSLContext) -> int:
    """OpenSSL's SSL_CTX of a context; 0 for what cannot be one."""
    pointer = ctypes.c_void_p.from_address(id(context) + object.__basicsize__).value or 0
    return pointer if _LOWEST < pointer < _HIGHEST and pointer % 8 == 0 else 0


@cache
def is_reached() -> bool:
    """Whether OpenSSL's contexts are where they are looked for: two of them, told apart by what Python has set of each."""
    try:
        first, second = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        first.options |= ssl.OP_NO_TICKET
        second.verify_mode = ssl.CERT_OPTIONAL  # the same number in both, SSL_VERIFY_PEER
        library, pointers = _library(), (_pointer(first), _pointer(second))
        reached = all(pointers) and all(
            library.SSL_CTX_get_options(pointer) == context.options & 0xFFFF_FFFF_FFFF_FFFF
            and library.SSL_CTX_get_verify_mode(pointer) == context.verify_mode
            for pointer, context in zip(pointers, (first, second), strict=True)
        )
    except (AttributeError, OSError, ValueError):  # no such function, no such library
        reached = False
    if not reached:
        log.warning(
            "OpenSSL is not where it is in other Pythons: workers share no session tickets, AllowInsecureFallback is refused"
        )
    return reached


def share_tickets(context: ssl.SSLContext, keys: bytes) -> bool:
    """Protect session tickets with given keys instead of random ones (RFC 5077 §4); False where that cannot be done."""
    if not is_reached():
        return False
    if _library().SSL_CTX_ctrl(_pointer(context), _SET_TICKET_KEYS, len(keys), keys) != 1:
        raise ValueError("OpenSSL does not take the keys of session tickets")
    return True


def ask_for_any_certificate(context: ssl.SSLContext, *, asking: bool) -> None:
    """Ask for a certificate and accept any, or none (AllowInsecureFallback); or stop doing so.

    Raises ValueError where that cannot be done. Python's ssl module has no such mode: CERT_OPTIONAL refuses a certificate that
    does not verify, and there is no callback. OpenSSL has one.
    """
    if not is_reached():
        raise ValueError("AllowInsecureFallback cannot be done by this Python's ssl module; AllowValidOnly can")
    callback = ctypes.cast(_accept, ctypes.c_void_p) if asking else None
    _library().SSL_CTX_set_verify(_pointer(context), ssl.CERT_OPTIONAL if asking else ssl.CERT_NONE, callback)
