"""What whoever serves decides for every session; what a client decides is in settings.py."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from models.base import Sampling
from realtime.endpoint import EndOfTurn, SoundOfEnd, model_ends_turn
from realtime.overlap import OverlapRules
from realtime.playback import Pacing
from realtime.vad import VoiceDetector, WebRtcVoice


@dataclass(frozen=True)
class SessionConfig:
    """Bounds and defaults of a session."""

    pacing: Pacing = field(default_factory=Pacing)
    """How far ahead of the listener audio is sent: ``Pacing(ahead_ms=None)`` sends it as it is made."""
    voice_detector: Callable[[int, float], VoiceDetector] = WebRtcVoice
    """(rate in Hz, threshold) -> a detector."""
    overlap: OverlapRules = field(default_factory=OverlapRules)
    """What becomes of a reply that they speak over."""
    end_of_turn: EndOfTurn | None = model_ends_turn
    """Judges their words under ``semantic_vad``, or the model does; None: silence alone decides."""
    sound_of_end: SoundOfEnd | None = None
    """Judges how it sounded under ``semantic_vad``, beside their words or in their place (endings_onnx.py)."""
    words_after_ms: float = 60.0
    """After this much silence their words so far are asked for, and their sound is judged."""
    speculate_ms: float | None = 200.0
    """After this much silence a reply is begun that nobody hears yet; None: never."""
    speculation_tokens: int = 256
    """Reply tokens that may be wasted on guesses before any was right..."""
    speculation_share: float = 2.0
    """...and for each token of a guess that was used, so many more."""
    sampling: Sampling = field(default_factory=Sampling)
    """How replies are drawn, where the client doesn't say. Each reply of a session gets a seed of its own."""
    reply_tokens: int = 1024
    """Longest reply, where the client asks for no shorter one."""
    input_buffer_s: float = 300.0
    """Audio that may wait in an open message. Beyond it: an error in manual mode, the end of the turn otherwise."""
    least_commit_ms: int = 100
    """A shorter commit is refused, as in the API."""
    renew_at: float = 0.6
    """When a reply leaves more than this share of the model's context used, the newer half of the turns is prefilled
    again in the background, to take its place..."""
    fullest: float = 0.75
    """...and when that did not come in time, and the share is this, the oldest turns are dropped at once."""
    summary_request: str = (
        "Sum up this conversation in a few sentences, so that it can go on from there: who wants what, names, numbers, "
        "what was asked, answered and agreed. Write the summary alone."
    )
    """What the model is asked where a session wants the oldest turns in brief (``parley_summarise``)..."""
    summary_tokens: int = 256
    """...and how long that may be."""
    no_audio_s: float = 2.0
    """In the middle of a turn, no audio at all for this long (mute, lost network) ends it."""
    frame_fresh_s: float = 3.0
    """A camera frame older than this is not shown at the start of a turn."""
    output_buffer_events: bool = False
    """Send ``output_audio_buffer.started / stopped / cleared``, as over WebRTC and SIP."""
    player_pauses: bool | None = None
    """Whether the listener's player obeys ``parley.playout.pause``; None: if it reports what it played."""

    def __post_init__(self) -> None:
        for name in ("reply_tokens", "input_buffer_s", "summary_tokens", "no_audio_s"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, not {getattr(self, name)}")
