"""Requests and their answers, over wires that lose (RFC 3261 section 17, RFC 6026). Pure; ``now`` is monotonic seconds.

A request of theirs is given to us once; when it comes again, its last answer goes again. A request of ours is sent
again until it is answered (T1, doubling, up to T2), and given up after 64 x T1. An answer 300 and above to an INVITE is
acknowledged here, 200 by whoever asked. Nothing is sent twice over TCP, except 200 to an INVITE until its ACK comes.
"""

from __future__ import annotations

import heapq
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

from aiosipua.message import SipRequest, SipResponse

from transport.phone.sip_message import Message, Peer

log = logging.getLogger(__name__)

T1_S, T2_S, T4_S = 0.5, 4.0, 5.0
LIFE_S = 64 * T1_S
RINGING_S = 180.0
"""An INVITE of ours that was answered with "ringing" only is given up after so long (RFC 3261's timer C)."""
MAX_TRANSACTIONS = 20_000

Key = tuple[str, ...]


@dataclass(eq=False)
class _Transaction:
    key: Key
    request: SipRequest
    peer: Peer
    answer: SipResponse | None = None
    """Of theirs: our last. Of ours: the final one."""
    heard: Callable[[SipResponse | None], None] | None = None
    """Of ours: who wants the answers; None in it: there will be none."""
    heard_of: bool = False
    """Of ours: something came back."""
    ack: SipRequest | None = None
    interval_s: float = T1_S
    again_s: float = float("inf")
    over_s: float = float("inf")
    ends: list[Callable[[], None]] = field(default_factory=list)


class Transactions:
    """All of an endpoint. ``send`` puts a message on the wire, at once."""

    def __init__(self, send: Callable[[Message, Peer], None]) -> None:
        self._send = send
        self._all: dict[Key, _Transaction] = {}
        self._timers: list[tuple[float, int, _Transaction]] = []
        self._count = count()
        self._by_call: dict[tuple[str, int], Key] = {}  # INVITEs of theirs: (call, number) -> transaction

    def __len__(self) -> int:
        return len(self._all)

    @property
    def deadline(self) -> float | None:
        """When ``wake`` has something to do."""
        return self._timers[0][0] if self._timers else None

    # --- theirs ------------------------------------------------

    def received(self, message: Message, peer: Peer, now: float) -> SipRequest | None:
        """A message came: the request, if it is a new one, or an ACK of a 200; what else is to be done is done."""
        if isinstance(message, SipResponse):
            self._answered(message, now)
            return None
        key = _server_key(message)
        known = self._all.get(key)
        if message.method == "ACK":
            return self._acknowledged(message, known, now)
        if known is not None:
            if known.answer is not None:
                self._send(known.answer, peer)
            return None
        if len(self._all) >= MAX_TRANSACTIONS:
            log.warning("too many SIP transactions: a request is dropped")
            return None
        transaction = _Transaction(key, message, peer)
        self._all[key] = transaction
        if message.method == "INVITE":
            self._by_call[_call_key(message)] = key
        else:  # whoever forgets to answer must not keep it
            self._schedule(transaction, over_s=now + 2 * LIFE_S)
        return message

    def answer(
        self, request: SipRequest, response: SipResponse, now: float, no_ack: Callable[[], None] | None = None
    ) -> None:
        """Ours to a request of theirs. ``no_ack``: called when a 200 to an INVITE is never acknowledged."""
        transaction = self._all.get(_server_key(request))
        if transaction is None:
            return
        transaction.answer = response
        self._send(response, transaction.peer)
        if response.status_code < 200:
            return
        if request.method != "INVITE":
            life_s = 0.0 if transaction.peer.reliable else LIFE_S
            self._schedule(transaction, over_s=now + life_s)
            return
        transaction.ends = [no_ack] if no_ack is not None else []
        again = not transaction.peer.reliable or response.status_code < 300
        self._schedule(transaction, again_s=now + T1_S if again else float("inf"), over_s=now + LIFE_S)

    def invite_of(self, cancel: SipRequest) -> tuple[SipRequest, SipResponse | None] | None:
        """What a CANCEL is about, and our last answer to that (RFC 3261 section 9.2); None: nothing that is known."""
        transaction = self._all.get((*_server_key(cancel)[:-1], "INVITE"))
        return None if transaction is None else (transaction.request, transaction.answer)

    def _acknowledged(self, ack: SipRequest, known: _Transaction | None, now: float) -> SipRequest | None:
        """The ACK of an error is ours, of a 200 the call's; that one has a branch of its own."""
        if known is not None and known.answer is not None and known.answer.status_code >= 300:
            known.ends = []
            self._schedule(known, over_s=now + (0.0 if known.peer.reliable else T4_S))
            return None
        for transaction in [known] if known is not None else self._invites(ack):
            answer = transaction.answer
            if answer is not None and 200 <= answer.status_code < 300:
                transaction.ends = []
                self._schedule(transaction, over_s=now + (0.0 if transaction.peer.reliable else T4_S))
        return ack

    def _invites(self, ack: SipRequest) -> list[_Transaction]:
        """Those of the ACK's call and number."""
        number = ack.cseq.seq if ack.cseq is not None else -1
        key = self._by_call.get((ack.call_id or "", number))
        transaction = self._all.get(key) if key is not None else None
        return [transaction] if transaction is not None else []

    # --- ours ------------------------------------------------

    def start(self, request: SipRequest, peer: Peer, now: float, heard: Callable[[SipResponse | None], None]) -> None:
        """Sends a request. ``heard`` gets every answer, None at last when there was no final one."""
        transaction = _Transaction(_client_key(request), request, peer, heard=heard)
        self._all[transaction.key] = transaction
        self._send(request, peer)
        self._schedule(transaction, again_s=float("inf") if peer.reliable else now + T1_S, over_s=now + LIFE_S)

    def lost(self, peer: Peer) -> None:
        """The connection to them is over, or could not be made: what nobody took notice of is given up (RFC 3261
        section 17.1.4); else they may still answer, on another."""
        for transaction in [*self._all.values()]:
            if transaction.heard is not None and not transaction.heard_of and transaction.peer == peer:
                self._end(transaction)

    def _answered(self, response: SipResponse, now: float) -> None:
        transaction = self._all.get(_client_key(response))
        if transaction is None or transaction.heard is None:
            return
        transaction.heard_of = True
        invite = transaction.request.method == "INVITE"
        if transaction.answer is not None:
            if invite and response.status_code >= 300 and transaction.ack is not None:
                self._send(transaction.ack, transaction.peer)
            elif invite and 200 <= response.status_code < 300:
                transaction.heard(response)  # again: whoever asked acknowledges again
            return
        if response.status_code < 200:
            again_s = float("inf") if invite or transaction.peer.reliable else now + T2_S
            self._schedule(transaction, again_s=again_s, over_s=now + (RINGING_S if invite else LIFE_S))
            transaction.heard(response)
            return
        transaction.answer = response
        if invite and response.status_code >= 300:
            transaction.ack = acknowledge(transaction.request, response)
            self._send(transaction.ack, transaction.peer)
        life_s = LIFE_S if invite else T4_S
        self._schedule(transaction, over_s=now + (0.0 if transaction.peer.reliable and not invite else life_s))
        transaction.heard(response)

    # --- time ------------------------------------------------

    def wake(self, now: float) -> None:
        """Does what is due."""
        while self._timers and self._timers[0][0] <= now:
            _, _, transaction = heapq.heappop(self._timers)
            if self._all.get(transaction.key) is not transaction:
                continue
            if transaction.over_s <= now:
                self._end(transaction)
            elif transaction.again_s <= now:
                self._again(transaction, now)

    def _again(self, transaction: _Transaction, now: float) -> None:
        message = transaction.request if transaction.heard is not None else transaction.answer
        assert message is not None
        self._send(message, transaction.peer)
        transaction.interval_s *= 2
        # An INVITE of ours doubles without a bound (RFC 3261 section 17.1.1.2), all else up to T2.
        if transaction.heard is None or transaction.request.method != "INVITE":
            transaction.interval_s = min(transaction.interval_s, T2_S)
        self._schedule(transaction, again_s=now + transaction.interval_s, over_s=transaction.over_s)

    def _end(self, transaction: _Transaction) -> None:
        del self._all[transaction.key]
        if transaction.request.method == "INVITE":
            self._by_call.pop(_call_key(transaction.request), None)
        if transaction.heard is not None and transaction.answer is None:
            transaction.heard(None)
        for end in transaction.ends:
            end()

    def _schedule(self, transaction: _Transaction, *, again_s: float = float("inf"), over_s: float) -> None:
        transaction.again_s, transaction.over_s = again_s, over_s
        heapq.heappush(self._timers, (min(again_s, over_s), next(self._count), transaction))


def acknowledge(invite: SipRequest, response: SipResponse) -> SipRequest:
    """The ACK of an error: of the INVITE's transaction (RFC 3261 section 17.1.1.3)."""
    ack = SipRequest(method="ACK", uri=invite.uri)
    ack.headers.append("Via", invite.headers.get("via")[0])
    for name in ("From", "Call-ID"):
        ack.headers.set_single(name, invite.headers.get_first(name) or "")
    ack.headers.set_single("To", response.headers.get_first("to") or "")
    ack.headers.set_single("CSeq", f"{invite.cseq.seq if invite.cseq is not None else 1} ACK")
    ack.headers.set_single("Max-Forwards", "70")
    for route in invite.headers.get("route"):
        ack.headers.append("Route", route)
    return ack


def _server_key(request: SipRequest) -> Key:
    """RFC 3261 section 17.2.3; an ACK and a CANCEL are of their INVITE's."""
    via = request.via[0]
    method = "INVITE" if request.method == "ACK" else request.method
    return ("theirs", via.branch or "", via.host, str(via.port), method)


def _client_key(message: Message) -> Key:
    via, cseq = message.via[0], message.cseq
    return ("ours", via.branch or "", cseq.method if cseq is not None else "")


def _call_key(request: SipRequest) -> tuple[str, int]:
    return (request.call_id or "", request.cseq.seq if request.cseq is not None else -1)
