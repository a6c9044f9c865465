"""Everything that crosses a border of the conversation, as frozen dataclasses.

    transport --Input--> session --Command--> pump --EngineCommand--> engine
    transport <--Effect-- session <--EngineOutput-- pump <------------ engine

Rules. All are plain data: they pickle (the engine is a process of its own) and none is subclassed. ``session`` is a
number the pump gave out, never reused. ``epoch`` counts what was cut: the session raises it to cancel, and a reply (its
command, its outputs, its playout) that carries an older one is dropped wherever it is met. What changes the context
(Extend) or is answered in words (Transcribe, Overhear, Summarise, TranscriptOut) is never stale; Rewind is what takes
it back. Times are monotonic seconds, audio lengths are samples.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from models.base import Pcm, Pixels, Sampling, Segment

Pcm16 = npt.NDArray[np.int16]  # [n], mono
DEFAULT_SAMPLING = Sampling()

# --- inputs: transport -> session ------------------------------------------------


@dataclass(frozen=True)
class AudioIn:
    """Microphone audio, decoded and resampled by the transport: float32 [n] at ``Spec.input_rate_hz``."""

    pcm: Pcm = field(repr=False)


@dataclass(frozen=True)
class FrameIn:
    """One camera frame; the latest wins."""

    pixels: Pixels = field(repr=False)


@dataclass(frozen=True)
class ClientEvent:
    """A client event of the wire, already valid JSON; the session's protocol validates the rest."""

    event: Mapping[str, Any]


@dataclass(frozen=True)
class Played:
    """The client reports playout: of item ``item_id``, ``samples`` (at ``Spec.output_rate_hz``) have been heard."""

    item_id: str
    samples: int


@dataclass(frozen=True)
class RoundTrip:
    """The network's, as the listener's reports have it (RTCP, RFC 3550 section 6.4.1): what is played lies half of it,
    and a jitter buffer, behind what was sent."""

    seconds: float


@dataclass(frozen=True)
class Wake:
    """``Session.deadline`` has come."""


@dataclass(frozen=True)
class Gone:
    """The transport closed; the last input of a session."""


# --- engine commands: session -> engine ------------------------------------------------


@dataclass(frozen=True)
class Open:
    """Claims a slot; answered by Opened or Refused."""

    session: int


@dataclass(frozen=True)
class Extend:
    """Appends to the context. ``key``, where set, names the place after it: Rewind can come back to it."""

    session: int
    epoch: int
    segments: tuple[Segment, ...]
    key: str | None = None


@dataclass(frozen=True)
class Rewind:
    """Back to the place named ``key``; "" is the empty context. Later names are forgotten. Ends a running reply."""

    session: int
    epoch: int
    key: str


@dataclass(frozen=True)
class Reply:
    """Generate, from here. When it completes, its tokens are part of the context and ``key`` names the place after.

    ``decided_at_s``: when the turn was decided; ttft and ttfa count from it.
    """

    session: int
    epoch: int
    key: str
    decided_at_s: float
    voice: str = ""
    speak: bool = True
    sampling: Sampling = DEFAULT_SAMPLING
    talker_sampling: Sampling | None = None  # None: the checkpoint's own
    max_tokens: int = 1024
    words: str = ""
    """Said word for word, nothing is generated; "": the model decides."""


@dataclass(frozen=True)
class Cancel:
    """The running reply is over: outputs below ``epoch`` are dropped, computing for it stops. The context keeps the
    reply's first ``keep_tokens`` tokens, closed as a message and named by the reply's key; 0 removes the reply."""

    session: int
    epoch: int
    keep_tokens: int = 0


@dataclass(frozen=True)
class Transcribe:
    """Transcribe the user audio that ends here (before the message is closed), on a fork, below replies' priority."""

    session: int
    epoch: int
    item_id: str


@dataclass(frozen=True)
class Overhear:
    """Transcribe this audio by itself, whatever runs: what they say over a reply. float32 [n] at the input rate.
    Answered by TranscriptOut under ``name``, as Transcribe is; not part of any context."""

    session: int
    epoch: int
    name: str
    pcm: Pcm = field(repr=False)


@dataclass(frozen=True)
class Summarise:
    """What the model writes to ``ask``, asked here, on a fork, below all else; the context never knows. Answered by
    TranscriptOut under ``name``, after ``max_tokens`` at the latest."""

    session: int
    epoch: int
    name: str
    ask: tuple[Segment, ...]
    max_tokens: int = 256


@dataclass(frozen=True)
class Renew:
    """Builds another context beside this one, in the background, while the conversation goes on: ``extends``, in order,
    from nothing. Answered by Renewed. Replaces one that was asked for before; without ``extends`` that is dropped."""

    session: int
    epoch: int
    extends: tuple[Extend, ...]


@dataclass(frozen=True)
class Swap:
    """The session goes on in the context that was renewed, and the old one is let go. No reply runs."""

    session: int
    epoch: int


@dataclass(frozen=True)
class Playout:
    """The listener's clock: at ``at_s``, ``samples`` of this epoch's audio had been sent; it runs on in real time, or
    stands still if ``held``. The engine orders its work by it and keeps its lead bounded."""

    session: int
    epoch: int
    samples: int
    at_s: float
    held: bool = False


@dataclass(frozen=True)
class Close:
    """Frees all that the session holds; nothing is delivered for it afterwards."""

    session: int


EngineCommand = (
    Open | Extend | Rewind | Reply | Cancel | Transcribe | Overhear | Summarise | Renew | Swap | Playout | Close
)

# --- engine outputs: engine -> session ------------------------------------------------


@dataclass(frozen=True)
class Opened:
    """The session has a slot."""

    session: int
    epoch: int = 0


@dataclass(frozen=True)
class Refused:
    """No room (server_full). The session is closed already."""

    session: int
    message: str
    retry_after_s: float
    epoch: int = 0


@dataclass(frozen=True)
class TextOut:
    """Speech text, as it is decoded. ``tokens`` counts the reply's tokens up to and with this text."""

    session: int
    epoch: int
    text: str
    tokens: int


@dataclass(frozen=True)
class AudioOut:
    """Rendered speech, int16 [n] at ``Spec.output_rate_hz``. ``tokens``: the reply's tokens the talker had taken in
    when it made the last sample (text runs ahead of speech; this bounds what can have been said). ``said``: the
    reply's tokens up to and with the one being said in it, by the talker's own alignment; None: it can't tell."""

    session: int
    epoch: int
    pcm: Pcm16 = field(repr=False)
    tokens: int = 0
    said: int | None = None


@dataclass(frozen=True)
class CallOut:
    """A function call, whole. ``arguments`` is JSON text."""

    session: int
    epoch: int
    name: str
    arguments: str
    tokens: int


@dataclass(frozen=True)
class MalformedOut:
    """The model wrote something that is no function call where one should be."""

    session: int
    epoch: int
    text: str
    reason: str
    tokens: int


@dataclass(frozen=True)
class Usage:
    """Tokens of one reply."""

    input_text: int = 0
    input_audio: int = 0
    input_image: int = 0
    cached: int = 0
    output_text: int = 0
    output_audio: int = 0


@dataclass(frozen=True)
class Timing:
    """One reply in the words of DESIGN section 7, as far as the engine sees it. Seconds; None = did not happen."""

    prefill_lag: int
    ttft_s: float | None
    ttfa_s: float | None
    ttfa_audible_s: float | None


@dataclass(frozen=True)
class Limits:
    """What a session may still do: positions of its context, and sessions of the engine (0 of ``sessions``: nobody
    counts them). ``retry_after_s``: when to try again where none is left."""

    tokens: int
    tokens_left: int
    sessions: int
    sessions_left: int
    retry_after_s: float = 0.0


@dataclass(frozen=True)
class Finished:
    """The reply's last output; every sample of it was delivered before. ``reason``: "completed" or "max_tokens"."""

    session: int
    epoch: int
    reason: str
    usage: Usage
    timing: Timing
    limits: Limits | None = None


@dataclass(frozen=True)
class TranscriptOut:
    """Words of their audio item, or of a summary; ``done`` with the last of them. ``text`` is a delta. ``failure``,
    where not empty (then ``done``), says why there are none. ``ended``, with the last of them: how likely this was all
    they had to say, 0 to 1, in the model's own opinion; None: it has none."""

    session: int
    epoch: int
    item_id: str
    text: str
    done: bool
    failure: str = ""
    ended: float | None = None


@dataclass(frozen=True)
class Renewed:
    """The renewed context is there and may be swapped in; ``failure``, where not empty, says why there is none."""

    session: int
    epoch: int
    failure: str = ""


@dataclass(frozen=True)
class Failed:
    """The engine could not do a command. ``code`` is a wire code of realtime.errors; a running reply is over.
    ``fatal``: the session's slot is gone."""

    session: int
    epoch: int
    code: str
    message: str
    fatal: bool = False


EngineOutput = (
    Opened | Refused | TextOut | AudioOut | CallOut | MalformedOut | Finished | TranscriptOut | Renewed | Failed
)

Input = AudioIn | FrameIn | ClientEvent | Played | RoundTrip | Wake | Gone | EngineOutput

# --- effects: session -> transport ------------------------------------------------


@dataclass(frozen=True)
class Send:
    """A server event of the wire, ready for JSON."""

    event: dict[str, Any]


@dataclass(frozen=True)
class Play:
    """Reply audio that is due now, int16 [n] at ``Spec.output_rate_hz``. ``start`` is its first sample's number within
    the item, ``output_index`` the item's place in the response. A WebSocket turns it into
    ``response.output_audio.delta``, a media track into packets."""

    response_id: str
    item_id: str
    start: int
    pcm: Pcm16 = field(repr=False)
    output_index: int = 0


@dataclass(frozen=True)
class Flush:
    """Cut: whatever of Play has not been played yet must not be."""


@dataclass(frozen=True)
class Hangup:
    """The session is over; close the transport. ``code`` is a WebSocket close code."""

    code: int
    reason: str


Effect = Send | Play | Flush | Hangup
Command = EngineCommand | Effect
