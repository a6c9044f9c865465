"""A dialog: what two ends of a call agreed to call each other (RFC 3261 section 12). Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from aiosipua.headers import parse_uri, stringify_uri
from aiosipua.message import SipRequest, SipResponse

from transport.phone.sip_message import USER_AGENT, Peer, from_tag, new_branch, new_tag, to_tag


@dataclass(frozen=True)
class Here:
    """How we are reached: what Via and Contact say."""

    host: str
    port: int
    transport: str

    @property
    def via(self) -> str:
        """For a new request; the answer shall come to where the request came from (RFC 3581)."""
        return f"SIP/2.0/{self.transport.upper()} {self._address};branch={new_branch()};rport"

    @property
    def contact(self) -> str:
        transport = f";transport={self.transport}" if self.transport != "udp" else ""
        return f"<sip:parley@{self._address}{transport}>"

    @property
    def _address(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass
class Dialog:
    """``local`` and ``remote`` are the From or To values without their tags."""

    call_id: str
    local: str
    remote: str
    local_tag: str
    remote_tag: str
    target: str
    """Where requests are for: their Contact."""
    peer: Peer
    """Where requests go: to whom they came from."""
    here: Here
    routes: list[str] = field(default_factory=list)
    local_seq: int = 0
    remote_seq: int = 0

    @classmethod
    def of_invite(cls, invite: SipRequest, peer: Peer, here: Here) -> Dialog:
        """They call us."""
        contact = invite.contact
        cseq = invite.cseq
        return cls(
            invite.call_id or "",
            _bare(invite.headers.get_first("to") or ""),
            _bare(invite.headers.get_first("from") or ""),
            new_tag(),
            from_tag(invite),
            stringify_uri(contact[0].uri) if contact else invite.uri,
            peer,
            here,
            list(invite.headers.get("record-route")),
            0,
            cseq.seq if cseq is not None else 0,
        )

    @classmethod
    def calling(cls, target: str, caller: str, call_id: str, peer: Peer, here: Here) -> Dialog:
        """We call them."""
        return cls(call_id, f"<{caller}>", f"<{target}>", new_tag(), "", target, peer, here)

    def answered(self, response: SipResponse) -> None:
        """Their answer to our INVITE completes it."""
        self.remote_tag = to_tag(response) or self.remote_tag
        if contact := response.contact:
            self.target = stringify_uri(contact[0].uri)
        self.routes = list(reversed(response.headers.get("record-route")))

    def refreshed(self, message: SipRequest | SipResponse) -> None:
        """Another INVITE, or its answer, may say a new Contact."""
        if contact := message.contact:
            self.target = stringify_uri(contact[0].uri)

    def request(self, method: str, seq: int | None = None) -> SipRequest:
        """The next request of ours; ``seq``: an ACK's and a CANCEL's are their INVITE's."""
        if seq is None:
            self.local_seq += 1
            seq = self.local_seq
        uri, routes = self.target, list(self.routes)
        if routes and "lr" not in parse_uri(routes[0].strip("<>")).params:  # a strict router (section 12.2.1.1)
            uri, routes = routes[0].strip("<>"), [*routes[1:], f"<{self.target}>"]
        request = SipRequest(method=method, uri=uri)
        request.headers.append("Via", self.here.via)
        request.headers.set_single("Max-Forwards", "70")
        request.headers.set_single("From", f"{self.local};tag={self.local_tag}")
        request.headers.set_single("To", f"{self.remote};tag={self.remote_tag}" if self.remote_tag else self.remote)
        request.headers.set_single("Call-ID", self.call_id)
        request.headers.set_single("CSeq", f"{seq} {method}")
        request.headers.set_single("User-Agent", USER_AGENT)
        for route in routes:
            request.headers.append("Route", route)
        if method in ("INVITE", "UPDATE", "REFER"):
            request.headers.set_single("Contact", self.here.contact)
        return request

    def matches(self, request: SipRequest) -> bool:
        """Whether a request is of this dialog."""
        return (request.call_id, from_tag(request), to_tag(request)) == (
            self.call_id,
            self.remote_tag,
            self.local_tag,
        )

    def in_order(self, request: SipRequest) -> bool:
        """Whether a request's number is new; then it counts."""
        seq = request.cseq.seq if request.cseq is not None else -1
        if seq <= self.remote_seq:
            return False
        self.remote_seq = seq
        return True


def _bare(value: str) -> str:
    """An address without its tag: ``"A" <sip:a@b>;tag=1`` -> ``"A" <sip:a@b>``."""
    head, bracket, tail = value.rpartition(">")
    if not bracket:
        return f"<{value.partition(';')[0].strip()}>"
    kept = [part for part in tail.split(";") if part.strip() and not part.strip().lower().startswith("tag=")]
    return ";".join([head + bracket, *kept])
