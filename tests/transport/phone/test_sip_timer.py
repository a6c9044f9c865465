from __future__ import annotations

import pytest
from aiosipua.message import SipRequest

from tests.transport.phone.test_sip_message import INVITE
from transport.phone.sip_message import parse, respond
from transport.phone.sip_timer import SessionTimer, TooShort, agreed, answered


def invite(*headers: str) -> SipRequest:
    extra = "".join(f"{header}\r\n" for header in headers)
    message = parse(INVITE.replace(b"Content-Length: 0\r\n", extra.encode() + b"Content-Length: 0\r\n"))
    assert isinstance(message, SipRequest)
    return message


@pytest.mark.parametrize(
    ("headers", "timer"),
    [
        ((), None),
        (("Supported: timer",), SessionTimer(1800, True, True)),
        (("Supported: timer", "Session-Expires: 600"), SessionTimer(600, False, True)),
        (("Supported: timer", "Session-Expires: 600;refresher=uas"), SessionTimer(600, True, True)),
        (("Supported: timer", "Session-Expires: 600;refresher=uac"), SessionTimer(600, False, True)),
        (("Session-Expires: 600",), SessionTimer(600, True, False)),
        (("Supported: timer", "Session-Expires: rubbish"), None),
    ],
)
def test_who_refreshes_and_when(headers: tuple[str, ...], timer: SessionTimer | None) -> None:
    assert agreed(invite(*headers), 1800) == timer


def test_a_short_interval_is_refused() -> None:
    with pytest.raises(TooShort):
        agreed(invite("Supported: timer", "Session-Expires: 30"), 1800)


def test_we_refresh_at_half_and_they_get_nearly_all_of_it() -> None:
    assert SessionTimer(600, True, True).next_s == 300
    assert SessionTimer(600, False, True).next_s == 568
    assert SessionTimer(600, True, True).header == "600;refresher=uas"


def test_what_their_answer_settles() -> None:
    answer = respond(invite(), 200)
    assert answered(answer, 1800) == SessionTimer(1800, True, False)
    assert answered(answer, 0) is None
    answer.headers.set_single("Session-Expires", "400;refresher=uas")
    assert answered(answer, 1800) == SessionTimer(400, False, True)
