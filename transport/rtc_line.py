"""One peer connection: a caller's microphone, cameras and data channel, and our reply. A call may outlive it.

ICE. aiortc binds one UDP port for each local address and connection, bundled (RFC 9143), where the kernel likes or in
a range (``ServiceConfig.udp_ports``, see ``rtc_ports``). It can't share one port among calls: its ICE takes every
packet of a socket for its own connection. Behind NAT a caller comes in through TURN (``ServiceConfig.ice_servers``).
Nor can aiortc restart ICE: a caller whose network changed makes a new peer connection and the call goes on with it
(``webrtc.py``).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from urllib.parse import unquote

from aiortc import (
    RTCBundlePolicy,
    RTCConfiguration,
    RTCDataChannel,
    RTCIceServer,
    RTCPeerConnection,
    RTCRtpReceiver,
    RTCRtpSender,
    RTCSessionDescription,
)
from aiortc.stats import RTCRemoteInboundRtpStreamStats

from models.base import Pcm, Pixels, Spec
from realtime.errors import InvalidField
from transport.auth import Denied
from transport.rtc_audio import Microphone, ReplyTrack
from transport.rtc_ports import NoPort, bind_within
from transport.rtc_video import REFRESH_S, Watcher

log = logging.getLogger(__name__)

CHANNEL = "oai-events"
MAX_SDP_BYTES = 64 * 1024
MAX_MEDIA = 8
MAX_CANDIDATES = 128
CONGESTED_BYTES = 256 * 1024
RETRY_S = 5  # a call may have ended by then
MEASURE_S = 1.0
"""Reports are looked at so often; about as often they come."""
CLOSE_S = 5.0
"""Whoever is there is told by then that it is over; a connection whose sockets died may never be done with telling."""
MAX_EVENT_BYTES = 256 * 1024
"""Of one event to the caller: what browsers take in one message (a=max-message-size)."""
JITTER_BUFFER = "_RTCRtpReceiver__jitter_buffer"


def ice_server(url: str) -> RTCIceServer:
    """``stun:HOST[:PORT]``, ``turn:[USER:PASSWORD@]HOST[:PORT][?transport=udp|tcp]``, ``turns:...``; user and password
    percent-encoded where they need it. Raises ValueError."""
    scheme, colon, rest = url.partition(":")
    if scheme not in ("stun", "turn", "turns") or not colon or not rest:
        raise ValueError(f"not a STUN or TURN server: {url!r} (stun:HOST:PORT or turn:USER:PASSWORD@HOST:PORT)")
    login, _, host = rest.rpartition("@")
    user, _, password = login.partition(":")
    if scheme != "stun" and not user:
        raise ValueError(f"{scheme}:{host} needs a user and a password: {scheme}:USER:PASSWORD@{host}")
    return RTCIceServer(f"{scheme}:{host}", unquote(user) or None, unquote(password) or None)


class Line:
    """Made with the caller's offer (`answer`), over when `gone` is set. All on the loop."""

    def __init__(
        self,
        spec: Spec,
        ice_servers: Iterable[str],
        ports: range | None,
        hear: Callable[[Pcm], None],
        see: Callable[[Pixels], None],
        take: Callable[[str], None],
    ) -> None:
        self._spec = spec
        self._ports = ports
        self._hear, self._see, self._take = hear, see, take
        servers = [ice_server(url) for url in ice_servers]
        # An empty list: None would be somebody else's public server.
        self._peer = RTCPeerConnection(RTCConfiguration(servers, bundlePolicy=RTCBundlePolicy.MAX_BUNDLE))
        self._peer.on("connectionstatechange", self._changed)
        self._peer.on("datachannel", self._opened)
        self._channel: RTCDataChannel | None = None
        self._speaking = False  # our track has its section
        self._deaf = False  # the caller wants no events
        self._stirred = asyncio.Event()  # something that `send` waits for may have come
        self._tasks: list[asyncio.Task[None]] = []
        self._attached: set[int] = set()  # transceivers
        self._ice_user = ""
        self._answering = asyncio.Lock()
        self._seen_s: dict[int, float] = {}  # video track -> when it last showed something
        self.track = ReplyTrack(spec.output_rate_hz)
        self.round_trip_s: float | None = None
        """The network's, as their reports have it."""
        self.settled = asyncio.Event()
        """Connected, or gone before that."""
        self.gone = asyncio.Event()
        self.replaced = asyncio.Event()
        """The call goes on with another line."""
        self.lost = False
        """Gone without a word (the network), so that the caller may come back."""

    async def answer(self, offer: str) -> str:
        """The answer to the caller's SDP, with all our candidates. The first offer, or a later one of the same peer
        connection (a track more or less). Raises InvalidField (param "sdp"), Denied where no UDP port is free."""
        check_offer(offer)
        async with self._answering:
            return await self._answer(offer)

    def is_from_same_peer(self, offer: str) -> bool:
        """Whether an offer renegotiates this very connection; another's, or an ICE restart, needs a new line."""
        return not self.gone.is_set() and bool(self._ice_user) and _ice_user(offer) == self._ice_user

    async def _answer(self, offer: str) -> str:
        self._deaf = "m=application" not in offer
        try:
            await self._peer.setRemoteDescription(RTCSessionDescription(offer, "offer"))
            self._attach()
            if self._ports is not None:
                bind_within(self._peer, self._ports)
            await self._peer.setLocalDescription(await self._peer.createAnswer())
        except NoPort as error:
            raise Denied(503, "server_full", str(error), RETRY_S) from None
        # aiortc's parsing raises whatever it meets: ValueError, IndexError, KeyError, AssertionError, its own.
        except Exception as error:
            log.debug("an offer was refused", exc_info=error)
            raise InvalidField(
                f"this SDP offer can't be answered: {error or type(error).__name__}", param="sdp"
            ) from None
        self._ice_user = _ice_user(offer)
        return self._peer.localDescription.sdp

    def _attach(self) -> None:
        """Our track to the first audio section, our ears and eyes to what the caller sends; once for each."""
        for index, transceiver in enumerate(self._peer.getTransceivers()):
            if index in self._attached:
                continue
            self._attached.add(index)
            if transceiver.kind == "audio":
                if not self._speaking:
                    transceiver.sender.replaceTrack(self.track)
                    transceiver.direction, self._speaking = "sendrecv", True
                    self._tasks.append(asyncio.create_task(self._measure(transceiver.sender)))
                _listen(transceiver.receiver, Microphone(self._spec.input_rate_hz, self._hear))
            elif self._spec.video_rate_hz > 0 and transceiver.receiver.track is not None:
                watcher = Watcher(self._spec.video_rate_hz, self._eye(index))
                self._tasks.append(asyncio.create_task(watcher.watch(transceiver.receiver.track)))

    async def _measure(self, sender: RTCRtpSender) -> None:
        while True:
            await asyncio.sleep(MEASURE_S)
            for stats in (await sender.getStats()).values():
                if isinstance(stats, RTCRemoteInboundRtpStreamStats) and stats.roundTripTime is not None:
                    self.round_trip_s = stats.roundTripTime

    def _eye(self, index: int) -> Callable[[Pixels], None]:
        """Of several pictures the last section's counts, while it moves: a screen that is shared is what they mean."""

        def see(pixels: Pixels) -> None:
            now = asyncio.get_running_loop().time()
            self._seen_s[index] = now
            if not any(other > index and now - at < 2 * REFRESH_S for other, at in self._seen_s.items()):
                self._see(pixels)

        return see

    # --- the data channel ---

    def _opened(self, channel: RTCDataChannel) -> None:
        if channel.label != CHANNEL or self._channel is not None:
            channel.close()
            return
        self._channel = channel
        channel.bufferedAmountLowThreshold = CONGESTED_BYTES // 2
        channel.on("message", self._message)
        channel.on("bufferedamountlow", self._stirred.set)
        self._stirred.set()

    def _message(self, message: str | bytes) -> None:
        self._take(message if isinstance(message, str) else message.decode(errors="replace"))

    async def send(self, text: str) -> bool:
        """One event to the caller, as soon as the channel is open and not congested; False when the line is gone.

        To a caller without a data channel nothing is sent."""
        while not self.gone.is_set():
            if self._deaf:
                return True
            channel = self._channel
            if channel is not None and channel.readyState == "open" and channel.bufferedAmount < CONGESTED_BYTES:
                channel.send(text)
                return True
            self._stirred.clear()
            await self._stirred.wait()
        return False

    async def flushed(self) -> None:
        """Waits until what was sent has been taken by the network."""
        while self._channel is not None and self._channel.readyState == "open" and self._channel.bufferedAmount:
            await asyncio.sleep(0.02)

    # --- the end ---

    def _changed(self) -> None:
        state = self._peer.connectionState
        if state == "connected":
            self.settled.set()
        elif state in ("failed", "closed"):
            self.lost = self.lost or state == "failed"
            self._end()

    def _end(self) -> None:
        for event in (self.gone, self.settled, self._stirred):
            event.set()

    async def close(self) -> None:
        """Releases sockets, threads and tasks, within ``CLOSE_S``. Twice is once."""
        self._end()
        self.track.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        try:
            async with asyncio.timeout(CLOSE_S):
                await self._peer.close()
        except Exception as error:  # TimeoutError, or what aiortc meets on sockets that are gone
            log.warning("a peer connection could not be closed in order: %s", error or type(error).__name__)


def check_offer(sdp: str) -> None:
    """What aiortc should not even see. Raises InvalidField."""
    if len(sdp) > MAX_SDP_BYTES:
        raise InvalidField(f"an SDP offer of {len(sdp)} characters is too long: at most {MAX_SDP_BYTES}", param="sdp")
    if not sdp.lstrip().startswith("v=0"):
        raise InvalidField("not an SDP offer: it begins with v=0 (RFC 8866); send it as application/sdp", param="sdp")
    lines = sdp.splitlines()
    media = [line for line in lines if line.startswith("m=")]
    if not any(line.startswith(("m=audio", "m=application")) for line in media):
        raise InvalidField("the SDP offer has neither audio nor a data channel: add a microphone track", param="sdp")
    if len(media) > MAX_MEDIA:
        raise InvalidField(f"the SDP offer has {len(media)} media sections; at most {MAX_MEDIA} are taken", param="sdp")
    if sum(line.startswith("a=candidate") for line in lines) > MAX_CANDIDATES:
        raise InvalidField(f"the SDP offer has more than {MAX_CANDIDATES} candidates", param="sdp")


def _ice_user(sdp: str) -> str:
    """The ufrag of the first section (RFC 8839 section 5.4); "" where there is none."""
    lines = (line.strip() for line in sdp.splitlines())
    return next((line.partition(":")[2] for line in lines if line.startswith("a=ice-ufrag:")), "")


def _listen(receiver: RTCRtpReceiver, microphone: Microphone) -> None:
    """Puts our microphone where aiortc's receiver keeps its jitter buffer: private there, and held by a test."""
    if not hasattr(receiver, JITTER_BUFFER):
        raise RuntimeError(
            "this version of aiortc keeps its jitter buffer elsewhere: rtc_line.JITTER_BUFFER must follow"
        )
    setattr(receiver, JITTER_BUFFER, microphone)
