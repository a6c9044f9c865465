"""Encrypted sound: SRTP (RFC 3711) with its keys in the session descriptions (SDES, RFC 4568).

Each side tells the key of what it sends. Who reads the descriptions reads the keys: they belong on SIP over TLS.
"""

from __future__ import annotations

import base64
import binascii
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from pylibsrtp import Error, Policy, Session

KEY_BYTES = 30
"""Of both suites: a key of 16 and a salt of 14 (RFC 4568 section 6.2)."""
SUITES = {
    "AES_CM_128_HMAC_SHA1_80": Policy.SRTP_PROFILE_AES128_CM_SHA1_80,
    "AES_CM_128_HMAC_SHA1_32": Policy.SRTP_PROFILE_AES128_CM_SHA1_32,
}
OFFERED = "AES_CM_128_HMAC_SHA1_80"
"""Everybody has it (RFC 4568 section 6.2.1)."""


@dataclass(frozen=True)
class Crypto:
    """The key that one side sends with."""

    tag: int
    suite: str
    key: bytes = field(repr=False)

    @classmethod
    def new(cls, suite: str = OFFERED) -> Crypto:
        return cls(1, suite, secrets.token_bytes(KEY_BYTES))

    @property
    def line(self) -> str:
        """As an attribute of a session description."""
        return f"a=crypto:{self.tag} {self.suite} inline:{base64.b64encode(self.key).decode()}"


def read(attributes: Iterable[str]) -> tuple[Crypto, ...]:
    """Those of their ``a=crypto`` attributes that can be taken, in their order. Unknown suites can't, nor keys with an
    index (MKI), nor session parameters that change what is sent (section 6.3)."""
    return tuple(crypto for text in attributes if (crypto := _read(text)) is not None)


def _read(text: str) -> Crypto | None:
    tag, suite, inline, *parameters = [*text.split(), "", "", ""][: max(3, len(text.split()))]
    method, _, rest = inline.partition(":")
    key, *limits = rest.split("|")  # a lifetime is longer than any call; an MKI would be in every packet
    if not tag.isdigit() or len(tag) > 9 or suite not in SUITES or method.lower() != "inline":
        return None
    if any(":" in limit for limit in limits) or any(not each.startswith("-") for each in parameters):
        return None
    try:
        raw = base64.b64decode(key, validate=True)
    except (binascii.Error, ValueError):
        return None
    return Crypto(int(tag), suite, raw) if len(raw) == KEY_BYTES else None


@dataclass(frozen=True)
class Keys:
    """What was agreed on: the key we send with, and theirs."""

    ours: Crypto
    theirs: Crypto


def agreed(ours: Crypto | None, theirs: tuple[Crypto, ...], *, answer: bool) -> Keys | None:
    """With what they offer, or with their ``answer`` to our offer; None: nothing fits. ``ours``: what was offered or
    agreed on before, which goes on where it can."""
    if answer:
        fitting = next((each for each in theirs if ours is not None and each.suite == ours.suite), None)
        return Keys(ours, fitting) if ours is not None and fitting is not None else None
    if not theirs:
        return None
    chosen = next((each for each in theirs if ours is not None and each.suite == ours.suite), theirs[0])
    if ours is None or ours.suite != chosen.suite:
        ours = Crypto.new(chosen.suite)
    return Keys(replace(ours, tag=chosen.tag), chosen)


class Cipher:
    """Packets of one call, both ways. Whoever sends with another key is not heard."""

    def __init__(self, keys: Keys) -> None:
        self.keys = keys
        self._out = Session(_policy(keys.ours, Policy.SSRC_ANY_OUTBOUND))
        self._in = Session(_policy(keys.theirs, Policy.SSRC_ANY_INBOUND))

    def seal(self, packet: bytes, *, rtcp: bool = False) -> bytes:
        """One of ours."""
        sealed: bytes = self._out.protect_rtcp(packet) if rtcp else self._out.protect(packet)
        return sealed

    def open(self, packet: bytes, *, rtcp: bool = False) -> bytes | None:
        """One of theirs; None: it isn't, or came before, or is broken."""
        try:
            opened: bytes = self._in.unprotect_rtcp(packet) if rtcp else self._in.unprotect(packet)
        except (Error, ValueError):  # the latter: longer than any packet
            return None
        return opened


def _policy(crypto: Crypto, direction: int) -> Policy:
    return Policy(key=crypto.key, ssrc_type=direction, srtp_profile=SUITES[crypto.suite])
