"""Who may come in: API keys, short-lived client secrets, and the Origin rule. Pure; ``now_s`` is an argument.

Three ways to carry a key, as clients of the OpenAI Realtime API do: the header ``Authorization: Bearer KEY``; Azure's
``api-key: KEY``; and, since a browser can't set headers on a WebSocket, the subprotocol
``openai-insecure-api-key.KEY`` beside ``realtime``.

Without a key the server serves this machine alone: it binds to loopback only (``check_exposure``), and a request must
name a loopback host, so that no page of another site reaches it through a name that resolves to 127.0.0.1.
"""

from __future__ import annotations

import hmac
import ipaddress
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

SUBPROTOCOL = "realtime"
KEY_SUBPROTOCOL = "openai-insecure-api-key."
SECRET_PREFIX = "ek_"
SECRET_SECONDS = (10, 7200)
"""The shortest and the longest life of a client secret, as in the OpenAI API."""
SECRET_DEFAULT_SECONDS = 600
MAX_SECRETS = 10_000


class Denied(Exception):
    """Not let in. ``status``: HTTP; ``code``: the wire's error code; ``retry_after_s``: when it may have changed."""

    def __init__(self, status: int, code: str, message: str, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.retry_after_s = status, code, message, retry_after_s

    def as_error(self) -> dict[str, Any]:
        """The body of the refusal."""
        return {
            "error": {"type": "invalid_request_error", "code": self.code, "message": self.message, "param": None},
        }


class Exposed(ValueError):
    """The server would be reachable from other machines without a key; the text says what to do."""


def is_loopback(host: str) -> bool:
    """Whether ``host`` (a name or an address, without a port) can only be this machine."""
    if host.rstrip(".").lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_exposure(host: str, api_keys: Iterable[str]) -> None:
    """Raises Exposed when ``host`` is not loopback and there is no key."""
    if not is_loopback(host) and not any(api_keys):
        raise Exposed(
            f"--host {host} can be reached from other machines, and there is no API key. "
            "Give one with --api-key KEY (or PARLEY_API_KEY), or bind to 127.0.0.1."
        )


@dataclass(frozen=True)
class Caller:
    """Someone who was let in."""

    session: Mapping[str, Any] | None = None
    """The session configuration that the client secret is bound to; None with an API key."""
    with_key: bool = True
    """Came with an API key (or to a server that has none): may make client secrets."""


@dataclass(frozen=True)
class Secret:
    """A client secret: what a browser may hold instead of the API key."""

    value: str = field(repr=False)
    expires_at_s: float
    session: Mapping[str, Any]


class Secrets:
    """The client secrets that are alive, in memory: they are gone when the server restarts."""

    def __init__(self) -> None:
        self._alive: dict[str, Secret] = {}

    def __len__(self) -> int:
        return len(self._alive)

    def issue(self, session: Mapping[str, Any], seconds: int, now_s: float) -> Secret:
        """A new secret bound to ``session``, alive for ``seconds``. Raises ValueError for a life out of range."""
        shortest, longest = SECRET_SECONDS
        if not shortest <= seconds <= longest:
            raise ValueError(f"expires_after.seconds must be {shortest} to {longest}, not {seconds}")
        self._forget(now_s)
        if len(self._alive) >= MAX_SECRETS:
            raise Denied(429, "rate_limit_exceeded", f"{MAX_SECRETS} client secrets are alive: wait for some to expire")
        secret = Secret(SECRET_PREFIX + secrets.token_urlsafe(24), now_s + seconds, dict(session))
        self._alive[secret.value] = secret
        return secret

    def find(self, value: str, now_s: float) -> Secret | None:
        """The secret, if it is alive. It may open several sessions until it expires, as in the OpenAI API."""
        # A dictionary look-up: 192 random bits leave nothing for a timing attack to search.
        secret = self._alive.get(value)
        return secret if secret and now_s < secret.expires_at_s else None

    def _forget(self, now_s: float) -> None:
        for value in [v for v, secret in self._alive.items() if secret.expires_at_s <= now_s]:
            del self._alive[value]


@dataclass(frozen=True)
class Gate:
    """The rules of one server."""

    api_keys: tuple[str, ...] = ()
    """Any of them lets in. Empty: whoever is on this machine."""
    allowed_origins: tuple[str, ...] = ()
    """Origins (``https://app.example``) beyond the server's own; ``*`` allows all."""
    secrets: Secrets = field(default_factory=Secrets, repr=False)

    def admit(self, headers: Mapping[str, str], subprotocols: Iterable[str], now_s: float) -> Caller:
        """Checks Origin, then the key. Header names are lower case. Raises Denied."""
        self.check_origin(headers)
        value = credential(headers, subprotocols)
        if value.startswith(SECRET_PREFIX) and (secret := self.secrets.find(value, now_s)):
            return Caller(secret.session, with_key=False)
        if not self.api_keys:
            return self._admit_local(headers)
        if not value:
            raise Denied(401, "missing_api_key", "no API key: send the header 'Authorization: Bearer KEY'")
        if not self._known(value):
            raise Denied(401, "invalid_api_key", "wrong API key, or a client secret that has expired")
        return Caller()

    def check_origin(self, headers: Mapping[str, str]) -> None:
        """A page may call the server it came from; others must be allowed. No Origin: not a browser. Raises Denied."""
        origin = headers.get("origin")
        if origin is None or "*" in self.allowed_origins:
            return
        if origin.lower().rstrip("/") in {allowed.lower().rstrip("/") for allowed in self.allowed_origins}:
            return
        _, found, netloc = origin.partition("://")
        if found and netloc and _authority(netloc) == _authority(headers.get("host", "")):
            return
        raise Denied(
            403,
            "origin_not_allowed",
            f"pages of {origin[:200]} may not use this server: start it with --allow-origin to let them",
        )

    def _known(self, value: str) -> bool:
        # Every key is compared, each in constant time.
        return sum(hmac.compare_digest(value.encode(), key.encode()) for key in self.api_keys) > 0

    def _admit_local(self, headers: Mapping[str, str]) -> Caller:
        name, _ = _authority(headers.get("host", ""))
        if not is_loopback(name):
            raise Denied(
                403,
                "host_not_allowed",
                f"this server has no API key and serves 127.0.0.1 and localhost only, not the host {name[:200]!r}",
            )
        return Caller()


def credential(headers: Mapping[str, str], subprotocols: Iterable[str]) -> str:
    """The key or secret that a request carries; "" when it carries none."""
    scheme, _, value = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and value.strip():
        return value.strip()
    if headers.get("api-key"):
        return headers["api-key"].strip()
    for name in subprotocols:
        if name.startswith(KEY_SUBPROTOCOL):
            return name.removeprefix(KEY_SUBPROTOCOL)
    return ""


def choose_subprotocol(offered: Iterable[str]) -> str | None:
    """What the handshake answers: ``realtime`` where it was offered, never the one that carries the key."""
    return SUBPROTOCOL if SUBPROTOCOL in offered else None


def _authority(netloc: str) -> tuple[str, str]:
    """``user@Host:port`` -> (lower-case host, port), the port "" when it is the scheme's own."""
    host = netloc.rpartition("@")[2].lower()
    name, colon, port = host.rpartition(":")
    if not colon or "]" in port:  # no port (an IPv6 address may be all there is)
        name, port = host, ""
    return name, "" if port in ("80", "443") else port
