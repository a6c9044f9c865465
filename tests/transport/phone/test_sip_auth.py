from __future__ import annotations

import pytest
from aiosipua.auth import SipDigestAuth, answer_challenge
from aiosipua.message import SipRequest

from tests.transport.phone.test_sip_message import INVITE
from transport.phone.sip_auth import NONCE_S, Guard
from transport.phone.sip_message import parse, respond

GUARD = Guard({"alice": "secret"}, b"k" * 32)
NOW = 1_700_000_000.5


def with_password(user: str, password: str, challenge: str) -> SipRequest:
    request = parse(INVITE)
    assert isinstance(request, SipRequest)
    answer = respond(request, 401, headers={"WWW-Authenticate": challenge})
    header = answer_challenge(SipDigestAuth(user, password), answer, 401, "INVITE", request.uri)
    assert header is not None
    request.headers.set_single(*header)
    return request


def test_the_password_opens() -> None:
    for qop in (True, False):
        challenge = GUARD.challenge(NOW)
        request = with_password("alice", "secret", challenge if qop else challenge.replace(', qop="auth"', ""))
        assert GUARD.admits(request, NOW + 10)


@pytest.mark.parametrize(("user", "password"), [("alice", "Secret"), ("alice", ""), ("bob", "secret")])
def test_another_does_not(user: str, password: str) -> None:
    request = with_password(user, password, GUARD.challenge(NOW))
    assert not GUARD.admits(request, NOW)
    assert GUARD.fresh(request, NOW), "so it was not the nonce"


def test_nor_an_old_or_a_made_up_nonce_or_another_address() -> None:
    request = with_password("alice", "secret", GUARD.challenge(NOW))
    assert not GUARD.admits(request, NOW + NONCE_S + 1)
    assert not GUARD.admits(request, NOW - 60)
    assert not Guard({"alice": "secret"}, b"x" * 32).admits(request, NOW)
    request.uri = "sip:other@192.0.2.1"
    assert not GUARD.admits(request, NOW)


@pytest.mark.parametrize(
    "header", ["", "Basic YTpi", "Digest", 'Digest username="alice"', 'Digest nonce="²³.x"', "\ufffd"]
)
def test_what_is_no_answer_to_the_challenge(header: str) -> None:
    request = parse(INVITE)
    assert isinstance(request, SipRequest)
    if header:
        request.headers.set_single("Authorization", header)
    assert not GUARD.admits(request, NOW)
