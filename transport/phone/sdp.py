"""Session descriptions of calls: what is offered, what we answer, what was settled (RFC 8866, RFC 3264). Pure.

One audio stream each; other media are answered with port 0. SRTP where it is offered as such (``RTP/SAVP``), and where
we want it.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field, replace

from aiosipua.sdp import MediaDescription, SdpMessage, parse_sdp

from transport.phone import sdes
from transport.rtp_codecs import KINDS, OPUS, CodecKind
from transport.rtp_receiver import Payloads

MAX_SDP_BYTES = 32 * 1024
PROFILES = {"RTP/AVP": False, "RTP/AVPF": False, "RTP/SAVP": True, "RTP/SAVPF": True}
"""Of the audio we take -> whether it is encrypted."""
NOISE = 13
EVENTS = 101
_ANSWERS = {"sendrecv": "sendrecv", "sendonly": "recvonly", "recvonly": "sendonly", "inactive": "inactive"}


class BadSdp(ValueError):
    """It can't be read (400). The text says why."""


class NotAcceptable(ValueError):
    """It can be read, and has nothing for us (488). The text says why."""


@dataclass(frozen=True)
class Remote:
    """The far end's side of the audio."""

    host: str
    port: int
    codecs: tuple[tuple[CodecKind, int], ...]
    """What we know of what they have, in their order, with their payload types."""
    events: tuple[tuple[int, int], ...] = ()
    """(clock, payload type) of their telephone events."""
    noise: bool = False
    direction: str = "sendrecv"
    """As they say it."""
    mux: bool = False
    """RTCP comes on the same port (RFC 5761)."""
    media: tuple[str, ...] = field(default=("audio",), repr=False)
    """The offer's media lines; ours answers the first audio."""
    profile: str = "RTP/AVP"
    crypto: tuple[sdes.Crypto, ...] = ()
    """Keys they may send with; not empty where ``profile`` is an encrypted one."""

    @property
    def held(self) -> bool:
        """They don't want to hear us."""
        return self.direction in ("sendonly", "inactive") or self.host in ("0.0.0.0", "::")

    @property
    def silent(self) -> bool:
        """They send us nothing."""
        return self.direction in ("recvonly", "inactive")

    def settled(self) -> tuple[CodecKind, Payloads]:
        """Their first codec that we know, with its payload types."""
        kind, payload_type = self.codecs[0]
        events = dict(self.events)
        event = events.get(kind.clock_hz, next(iter(events.values()), None))
        return kind, Payloads(payload_type, event, NOISE if self.noise and kind.clock_hz == 8000 else None)


@dataclass(frozen=True)
class Local:
    """Our side. ``version`` rises with each description of the same session."""

    host: str
    port: int
    session: int
    version: int = 1
    crypto: sdes.Crypto | None = None
    """What we send with; None: nothing is encrypted."""

    def next(self) -> Local:
        """For another description."""
        return replace(self, version=self.version + 1)


def read(text: str) -> Remote:
    """An offer or an answer. Raises BadSdp, NotAcceptable."""
    if len(text) > MAX_SDP_BYTES:
        raise BadSdp("the session description is too long")
    if not text.lstrip().startswith("v=0"):
        raise BadSdp("a session description begins with v=0")
    try:
        sdp = parse_sdp(text)
    except (ValueError, IndexError, TypeError) as error:
        raise BadSdp(f"the session description can't be read: {error}") from None
    audio = next((media for media in sdp.media if media.media == "audio" and media.port), None)
    if audio is None:
        raise NotAcceptable("no audio is offered")
    if audio.proto not in PROFILES:
        raise NotAcceptable(f"{audio.proto[:20]} is not taken: only RTP/AVP and RTP/SAVP")
    crypto = sdes.read(audio.attributes.get("crypto", ())) if PROFILES[audio.proto] else ()
    if PROFILES[audio.proto] and not crypto:
        raise NotAcceptable(f"no a=crypto that is known here: {', '.join(sdes.SUITES)}")
    return replace(_remote(sdp, audio), profile=audio.proto, crypto=crypto)


def _remote(sdp: SdpMessage, audio: MediaDescription) -> Remote:
    codecs, events, noise = [], [], False
    for codec in audio.codecs:
        name = codec.encoding_name.lower()
        kind = next((each for each in KINDS if each.name.lower() == name and each.clock_hz == codec.clock_rate), None)
        if not 0 <= codec.payload_type <= 127:
            raise BadSdp(f"payload type {codec.payload_type} is none")
        if kind is not None:
            codecs.append((kind, codec.payload_type))
        elif name == "telephone-event":
            events.append((codec.clock_rate, codec.payload_type))
        noise = noise or codec.payload_type == NOISE
    if not codecs:
        known = ", ".join(kind.name for kind in KINDS)
        raise NotAcceptable(f"none of the offered codecs is known here: {known}")
    connection = audio.connection or sdp.connection
    host = connection.address if connection is not None else ""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        raise BadSdp("c= must name an IP address") from None
    if not 0 < audio.port < 65536:
        raise BadSdp(f"{audio.port} is no port")
    direction = audio.direction
    if not any(name in audio.attributes for name in _ANSWERS):
        direction = next((name for name in _ANSWERS if name in sdp.attributes), "sendrecv")
    media = tuple(f"{each.media} {each.proto} {' '.join(each.formats)}" for each in sdp.media)
    at = next(n for n, each in enumerate(sdp.media) if each is audio)
    media = (*media[:at], "audio", *media[at + 1 :])
    return Remote(
        host,
        audio.port,
        tuple(codecs),
        tuple(events),
        noise,
        direction,
        "rtcp-mux" in audio.attributes,
        media,
    )


# --- ours ------------------------------------------------


def answer(remote: Remote, local: Local, *, held: bool = False) -> str:
    """To their offer. ``held``: we don't want to hear them."""
    kind, payloads = remote.settled()
    direction = _ANSWERS[remote.direction]
    if held:
        direction = {"sendrecv": "sendonly", "recvonly": "inactive"}.get(direction, direction)
    events = {payload_type: clock for clock, payload_type in remote.events}
    formats = [(payloads.audio, kind)]
    events_hz = events.get(payloads.events or -1, 8000)
    lines = _audio(local, remote.profile, formats, payloads, events_hz, direction, remote.mux)
    media: list[str] = []
    for each in remote.media:
        if each == "audio":
            media += lines
        else:
            name, proto, *formats_ = each.split(" ")
            media.append(f"m={name} 0 {proto} {' '.join(formats_)}")
    return _whole(local, media)


def offer(local: Local, *, held: bool = False) -> str:
    """For a call of our own, or for one that we hold."""
    formats = [(kind.payload_type, kind) for kind in KINDS]
    direction = "sendonly" if held else "sendrecv"
    profile = "RTP/AVP" if local.crypto is None else "RTP/SAVP"
    return _whole(local, _audio(local, profile, formats, Payloads(0, EVENTS, NOISE), 8000, direction, False))


def _audio(
    local: Local,
    profile: str,
    formats: list[tuple[int, CodecKind]],
    payloads: Payloads,
    events_hz: int,
    direction: str,
    mux: bool,
) -> list[str]:
    types = [str(payload_type) for payload_type, _ in formats]
    maps = []
    for payload_type, kind in formats:
        channels = f"/{kind.channels}" if kind.channels > 1 else ""
        maps.append(f"a=rtpmap:{payload_type} {kind.name}/{kind.clock_hz}{channels}")
        if kind is OPUS:
            maps.append(f"a=fmtp:{payload_type} useinbandfec=1")
    if payloads.noise is not None:
        types.append(str(payloads.noise))
        maps.append(f"a=rtpmap:{payloads.noise} CN/8000")
    if payloads.events is not None:
        types.append(str(payloads.events))
        maps += [f"a=rtpmap:{payloads.events} telephone-event/{events_hz}", f"a=fmtp:{payloads.events} 0-15"]
    return [
        f"m=audio {local.port} {profile} {' '.join(types)}",
        *([local.crypto.line] if local.crypto is not None else []),
        *maps,
        "a=ptime:20",
        f"a={direction}",
        *(["a=rtcp-mux"] if mux else []),
    ]


def _whole(local: Local, media: list[str]) -> str:
    family = "IP6" if ":" in local.host else "IP4"
    head = [
        "v=0",
        f"o=- {local.session} {local.version} IN {family} {local.host}",
        "s=parley",
        f"c=IN {family} {local.host}",
        "t=0 0",
    ]
    return "\r\n".join([*head, *media, ""])
