"""sipp's scenarios, put together from their messages. ``text(name)`` gives the XML."""

from __future__ import annotations

HEAD = """Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=z9hG4bK-[pid]-[call_number]-{branch}
From: sipp <sip:sipp@[local_ip]:[local_port]>;tag=[pid]t[call_number]
To: <sip:[service]@[remote_ip]:[remote_port]>{to}
Call-ID: [call_id]
CSeq: {seq} {method}
Contact: <sip:sipp@[local_ip]:[local_port]>
Max-Forwards: 70
"""
SDP = """Content-Type: application/sdp
Content-Length: [len]

v=0
o=sipp 1 1 IN IP[local_ip_type] [local_ip]
s=-
c=IN IP[media_ip_type] [media_ip]
t=0 0
m=audio [media_port] RTP/AVP {codec}
a=rtpmap:{codec} {name}/8000
"""
EMPTY = "Content-Length: 0\n\n"


def message(
    method: str, seq: int = 1, body: str = EMPTY, to: str = "[peer_tag_param]", extra: str = "", branch: str = ""
) -> str:
    """``branch``: a CANCEL, and the ACK of an error, have their INVITE's (RFC 3261 sections 9.1 and 17.1.1.3)."""
    head = HEAD.format(method=method, seq=seq, to=to, branch=branch or f"{method}{seq}")
    return f"<![CDATA[\n{method} sip:[service]@[remote_ip]:[remote_port] SIP/2.0\n{head}{extra}{body}]]>"


def send(method: str, seq: int = 1, *, again: bool = True, **more: str) -> str:
    retrans = ' retrans="500"' if again else ""
    return f"<send{retrans}>{message(method, seq, **more)}</send>"


def invite(codec: int = 0, name: str = "PCMU", again: bool = True, extra: str = "") -> str:
    return send("INVITE", body=SDP.format(codec=codec, name=name), to="", again=again, extra=extra)


def answer(status: int, *, optional: bool = False) -> str:
    return f'<recv response="{status}"{" optional=" + chr(34) + "true" + chr(34) if optional else ""}/>'


def pause(ms: int) -> str:
    return f'<pause milliseconds="{ms}"/>'


TRYING = answer(100, optional=True) + answer(180, optional=True) + answer(183, optional=True)
ACK = send("ACK", again=False)
ACK_ERROR = send("ACK", again=False, branch="INVITE1")
BYE = send("BYE", 2) + answer(200)
CANCEL = f'<send retrans="500">{message("CANCEL", to="", branch="INVITE1")}</send>'


def refused(status: int) -> str:
    return TRYING + answer(status) + ACK_ERROR


SCENARIOS = {
    "call": invite() + TRYING + answer(200) + ACK + pause(700) + BYE,
    # Our 200 must come again until the ACK (sipp takes no notice of a message that it has had).
    "late ack": invite() + TRYING + answer(200) + pause(2500) + ACK + pause(300) + BYE,
    # It never comes: we end the call with a BYE of our own.
    "no ack": invite() + TRYING + answer(200) + "<recv request=\"BYE\" timeout=\"60000\"/>" + """<send><![CDATA[
SIP/2.0 200 OK
[last_Via:]
[last_From:]
[last_To:]
[last_Call-ID:]
[last_CSeq:]
Content-Length: 0

]]></send>""",
    "no codec": invite(18, "G729") + refused(488),
    "busy": invite() + refused(486),
    "forbidden": invite() + refused(403),
    "not found": invite() + refused(404),
    "cancel at once": invite() + answer(100) + CANCEL + answer(180, optional=True) + answer(200) + answer(487)
    + ACK_ERROR,
    "cancel while ringing": invite() + answer(100) + answer(180) + pause(400) + CANCEL + answer(200) + answer(487)
    + ACK_ERROR,
    "cancel too late": invite() + TRYING + answer(200) + CANCEL + answer(200) + ACK + pause(200) + BYE,
    "bye before ack": invite() + TRYING + answer(200) + BYE,
    "unknown extension": invite(extra="Require: 100rel\n") + refused(420),
    "short timer": invite(extra="Supported: timer\nSession-Expires: 30\n") + refused(422),
    "options": send("OPTIONS", to="") + answer(200),
    "unknown method": send("PUBLISH", to="") + answer(405),
    "stray bye": send("BYE", to=";tag=nobody") + answer(481),
    # What no parser likes is answered with 400, and the next call is one like any other.
    "malformed": f"<send>{message('INVITE', to='').replace('INVITE sip:', 'INVITE http:')}</send>" + answer(400),
}  # fmt: skip


def reply(status: int, reason: str, extra: str = "", body: str = EMPTY, tag: str = ";tag=[pid]s[call_number]") -> str:
    """sipp's, to the last request."""
    return f"""<send><![CDATA[
SIP/2.0 {status} {reason}
[last_Via:]
[last_From:]
[last_To:]{tag}
[last_Call-ID:]
[last_CSeq:]
Contact: <sip:sipp@[local_ip]:[local_port]>{extra}
{body}]]></send>"""


def asked(method: str) -> str:
    """sipp waits for a request."""
    return f'<recv request="{method}" crlf="true"/>'


def verified(method: str, n: int = 1) -> str:
    """And for one with the password; without it the scenario waits here for what never comes."""
    check = '<action><verifyauth assign_to="known" username="4930" password="secret"/></action>'
    return f"""<recv request="{method}">{check}</recv><nop hide="true" test="known" next="good{n}"/>
<recv request="NEVER" timeout="1000"/><label id="good{n}"/>"""


CHALLENGE = '\nWWW-Authenticate: Digest realm="trunk", nonce="n1", qop="auth", algorithm=MD5'

SCENARIOS |= {
    # A trunk: it challenges, grants two seconds, and is registered at again before they are over.
    "registrar": asked("REGISTER") + reply(401, "Unauthorized", CHALLENGE) + verified("REGISTER", 1)
    + reply(200, "OK", ";expires=2") + asked("REGISTER") + reply(401, "Unauthorized", CHALLENGE)
    + verified("REGISTER", 2) + reply(200, "OK", ";expires=3600"),
    # And one that lets calls out with a password alone.
    "trunk": asked("INVITE") + reply(401, "Unauthorized", CHALLENGE) + asked("ACK")
    + verified("INVITE") + reply(180, "Ringing") + pause(300)
    + reply(200, "OK", body=SDP.format(codec=0, name="PCMU")) + asked("ACK") + asked("BYE") + reply(200, "OK", tag=""),
    # Called twice: by us, and by whom we sent on, in the place of our call. Either hangs up.
    "replaced callee": asked("INVITE") + reply(180, "Ringing")
    + reply(200, "OK", body=SDP.format(codec=0, name="PCMU")) + asked("ACK") + asked("BYE") + reply(200, "OK", tag=""),
    "busy callee": asked("INVITE") + reply(486, "Busy Here") + asked("ACK"),
    "ringing callee": asked("INVITE") + reply(180, "Ringing") + asked("CANCEL") + reply(200, "OK") + pause(100),
}  # fmt: skip


def text(name: str) -> str:
    return f'<?xml version="1.0" encoding="ISO-8859-1" ?>\n<scenario name="{name}">{SCENARIOS[name]}</scenario>\n'
