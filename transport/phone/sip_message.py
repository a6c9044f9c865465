"""SIP messages, read and written (RFC 3261): a strict door before the library's lenient one, and what we say. Pure."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field

from aiosipua.headers import Address, parse_address
from aiosipua.message import SipMessage, SipRequest, SipResponse

Message = SipRequest | SipResponse

MAX_MESSAGE_BYTES = 65_535
TRANSPORTS = ("udp", "tcp", "tls")
METHODS = ("INVITE", "ACK", "CANCEL", "BYE", "OPTIONS", "REFER", "NOTIFY", "UPDATE", "INFO", "PRACK")
ALLOW = ", ".join(method for method in METHODS if method != "PRACK")
USER_AGENT = "Parley"
REASONS = {
    100: "Trying", 180: "Ringing", 183: "Session Progress", 200: "OK", 202: "Accepted", 400: "Bad Request",
    401: "Unauthorized", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed", 408: "Request Timeout",
    415: "Unsupported Media Type", 420: "Bad Extension", 422: "Session Interval Too Small",
    480: "Temporarily Unavailable", 481: "Call/Transaction Does Not Exist", 482: "Loop Detected",
    483: "Too Many Hops", 486: "Busy Here", 487: "Request Terminated", 488: "Not Acceptable Here",
    491: "Request Pending", 500: "Server Internal Error", 503: "Service Unavailable", 505: "Version Not Supported",
    603: "Decline",
}  # fmt: skip
_TOKEN = re.compile(r"[A-Za-z0-9.!%*_+`'~-]+")
_ADDRESS = re.compile(r"(sips?|tel):[^\s<>\"]{1,255}", re.IGNORECASE)


class Malformed(ValueError):
    """No SIP message. ``request``: what of it can be answered with 400; None: nothing can."""

    def __init__(self, why: str, request: SipRequest | None = None) -> None:
        super().__init__(why)
        self.request = request


@dataclass(frozen=True)
class Peer:
    """Where a message came from, or goes to."""

    transport: str
    """One of TRANSPORTS."""
    host: str
    port: int
    name: str = field(default="", compare=False)
    """What a connection to it must be certified for over TLS; "": its address."""

    @property
    def reliable(self) -> bool:
        """Nothing needs to be said twice."""
        return self.transport != "udp"


def parse(data: bytes) -> Message:
    """Raises Malformed."""
    if len(data) > MAX_MESSAGE_BYTES:
        raise Malformed("the message is too long")
    try:
        message = SipMessage.parse(data)
    except (ValueError, IndexError, TypeError, AttributeError) as error:
        raise Malformed(str(error)) from None
    answerable = message if isinstance(message, SipRequest) and _routable(message) else None
    if why := _objection(message):
        raise Malformed(why, answerable)
    return message


def _routable(message: SipRequest) -> bool:
    try:
        return bool(message.via and message.via[0].host and message.method != "ACK" and message.cseq)
    except ValueError:
        return False


def _objection(message: Message) -> str:
    """Why this is no SIP message, "" when it is."""
    for name in ("via", "from", "to", "call-id", "cseq"):
        if not message.headers.get(name):
            return f"{name} is missing"
    try:
        via, cseq = message.via[0], message.cseq
        ends = (message.from_addr, message.to_addr)
        _ = message.contact
        length = message.headers.get_first("content-length")
        if length is not None and int(length) > len(message.body):
            return "the body is cut short"
    except (ValueError, IndexError) as error:
        return f"a header can't be read: {error}"
    if cseq is None or not 0 <= cseq.seq < 2**31 or not _TOKEN.fullmatch(cseq.method):
        return "cseq must be a number and a method"
    if not via.branch or not via.host or len(via.branch) > 256:
        return "via has no branch"
    if any(end is None or not end.uri.host for end in ends):
        return "from and to must be addresses"
    if isinstance(message, SipResponse):
        return "" if 100 <= message.status_code <= 699 else "no such status"
    if not _TOKEN.fullmatch(message.method) or cseq.method != message.method:
        return "the method is not that of cseq"
    if not _ADDRESS.fullmatch(message.uri):
        return "the request's address can't be read"
    return "" if from_tag(message) else "from has no tag"


def from_tag(message: Message) -> str:
    """Theirs in a request, ours in a response to ours."""
    address = message.from_addr
    return (address.tag or "") if address is not None else ""


def to_tag(message: Message) -> str:
    """ "" in a request that begins a dialog."""
    address = message.to_addr
    return (address.tag or "") if address is not None else ""


def stamp(request: SipRequest, peer: Peer) -> None:
    """Notes in the topmost Via where the request really came from (RFC 3261 section 18.2.1, RFC 3581)."""
    first, *rest = request.via
    if "rport" in first.params:
        first.params["rport"] = str(peer.port)
    if first.host != peer.host or "rport" in first.params:
        first.params["received"] = peer.host
    request.via = [first, *rest]


def new_tag() -> str:
    return secrets.token_hex(8)


def new_branch() -> str:
    """With the magic cookie (RFC 3261 section 8.1.1.7)."""
    return "z9hG4bK" + secrets.token_hex(10)


def user(address: Address | None) -> str:
    """The part of an address that a number is: ``sip:+4930@host`` and ``tel:+4930`` -> ``+4930``."""
    if address is None:
        return ""
    name = address.uri.user if address.uri.user is not None else address.uri.host
    return name.removeprefix("tel:").partition(";")[0][:100]


def address(text: str) -> Address:
    """Raises ValueError for what is no address."""
    parsed = parse_address(text)
    if not _ADDRESS.fullmatch(text.strip("<>").partition(">")[0]):
        raise ValueError(f"not an address: {text[:100]!r}")
    return parsed


def respond(request: SipRequest, status: int, tag: str = "", headers: Mapping[str, str] | None = None) -> SipResponse:
    """Our answer, without a body. ``tag``: ours, of the dialog; a new one where there is none (RFC 3261 8.2.6.2)."""
    response = SipResponse(status_code=status, reason_phrase=REASONS.get(status, "Refused"))
    for name in ("Via", "Record-Route") if status < 300 else ("Via",):
        for value in request.headers.get(name):
            response.headers.append(name, value)
    for name in ("From", "Call-ID", "CSeq"):
        response.headers.set_single(name, request.headers.get_first(name) or "")
    to = request.headers.get_first("To") or ""
    if status > 100 and not to_tag(request):
        to += f";tag={tag or new_tag()}"
    response.headers.set_single("To", to)
    response.headers.set_single("User-Agent", USER_AGENT)
    for name, value in (headers or {}).items():
        response.headers.set_single(name, value)
    return response


def with_body(message: Message, body: str, kind: str = "application/sdp") -> None:
    """Sets a message's body."""
    message.text = body
    message.headers.set_single("Content-Type", kind)


def sdp_of(message: Message) -> str | None:
    """The session description in a message; None: it has none."""
    kind = (message.content_type or "").partition(";")[0].strip().lower()
    return message.text if message.body and kind == "application/sdp" else None
