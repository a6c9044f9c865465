"""Passwords in SIP: a challenge for those who call, checked without keeping state (RFC 3261 section 22, RFC 7616).

A nonce is its time and a signature of that, so that none need be remembered; it is good for ``NONCE_S``, for more than
one request. What we answer to others' challenges is the library's business (``aiosipua.auth``). Pure.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Mapping

from aiosipua.headers import AuthCredentials, parse_auth
from aiosipua.message import SipRequest

NONCE_S = 300.0
REALM = "parley"


class Guard:
    """Knows the users. ``secret`` signs the nonces."""

    def __init__(self, users: Mapping[str, str], secret: bytes | None = None) -> None:
        self._users = users
        self._secret = secret or secrets.token_bytes(32)

    def challenge(self, now_s: float, *, stale: bool = False) -> str:
        """A ``WWW-Authenticate``."""
        again = ", stale=true" if stale else ""
        return f'Digest realm="{REALM}", nonce="{self._nonce(int(now_s))}", algorithm=MD5, qop="auth"{again}'

    def admits(self, request: SipRequest, now_s: float) -> bool:
        """Whether the request carries a user's password, for itself and in time."""
        header = request.headers.get_first("authorization")
        if not header:
            return False
        given = parse_auth(header, credentials=True)
        params = given.params
        password = self._users.get(params.get("username", ""))
        if given.scheme.lower() != "digest" or password is None or not self.fresh(request, now_s):
            return False
        if params.get("realm") != REALM or params.get("uri") != request.uri:
            return False
        return hmac.compare_digest(params.get("response", ""), _digest(given, password, request.method))

    def fresh(self, request: SipRequest, now_s: float) -> bool:
        """Whether its nonce is one of ours, and not too old."""
        header = request.headers.get_first("authorization") or ""
        nonce = parse_auth(header, credentials=True).params.get("nonce", "")
        made, _, _ = nonce.partition(".")
        if not made.isascii() or not made.isdigit() or len(made) > 15:
            return False
        return hmac.compare_digest(nonce.encode(), self._nonce(int(made)).encode()) and 0 <= now_s - int(made) < NONCE_S

    def _nonce(self, made: int) -> str:
        return f"{made}.{hmac.new(self._secret, str(made).encode(), hashlib.sha256).hexdigest()[:32]}"


def _digest(given: AuthCredentials, password: str, method: str) -> str:
    """RFC 2617 section 3.2.2.1, with and without qop."""

    def h(text: str) -> str:
        return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()

    params = given.params
    one = h(f"{params.get('username')}:{REALM}:{password}")
    two = h(f"{method}:{params.get('uri')}")
    if params.get("qop"):
        middle = f"{params.get('nonce')}:{params.get('nc')}:{params.get('cnonce')}:{params.get('qop')}"
        return h(f"{one}:{middle}:{two}")
    return h(f"{one}:{params.get('nonce')}:{two}")
