"""What is said to a model: a conversation as segments, a slot's input as parts, a reply as readings. Plain data.

A *segment* is what the session sends: no tokens, no template. A *part* is what a thinker's slot takes. Audio and Frame
are both: they pass through the Prompt as they are. A *reading* is what a reply's tokens mean.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Pcm = npt.NDArray[np.float32]  # [n], mono, -1..1
Pixels = npt.NDArray[np.uint8]  # [h, w, 3], RGB

# --- segments: a conversation as the engine receives it (no tokens, no template) ----------------------------


@dataclass(frozen=True)
class Instructions:
    """The system prompt. ``tools`` holds JSON schemas of functions as the OpenAI API writes them."""

    text: str
    tools: tuple[str, ...] = ()


@dataclass(frozen=True)
class Begin:
    """Opens a message: role ``user`` or ``assistant``."""

    role: str


@dataclass(frozen=True)
class End:
    """Closes the open message."""


@dataclass(frozen=True)
class Text:
    """Text inside a message."""

    text: str


@dataclass(frozen=True)
class FunctionCall:
    """A call the assistant made; ``arguments`` is JSON text. A message of its own."""

    name: str
    arguments: str


@dataclass(frozen=True)
class FunctionResult:
    """What the application answered to a call. A message of its own."""

    output: str


# --- parts: what a thinker's slot takes ------------------------------------------------


@dataclass(frozen=True)
class Tokens:
    """Token ids, in order."""

    ids: tuple[int, ...]


@dataclass(frozen=True)
class Audio:
    """User audio, float32 [n] at ``Spec.input_rate_hz``, in any chunking; ``final`` ends this stretch of audio.

    What the encoder can't yet make exact is held back until it can, or until ``final``. ``pcm`` may be empty when
    ``final`` is set.
    """

    pcm: Pcm = field(repr=False)
    final: bool = False


@dataclass(frozen=True)
class Frame:
    """A picture, uint8 [h, w, 3] RGB. ``t_s`` None: an image by itself. Otherwise a camera frame, ``t_s`` seconds after
    the start of the open stretch of audio (of the message, where there is no audio), never decreasing."""

    pixels: Pixels = field(repr=False)
    t_s: float | None = None


Part = Tokens | Audio | Frame
Segment = Instructions | Begin | End | Text | FunctionCall | FunctionResult | Audio | Frame


# --- what a reply's tokens mean ------------------------------------------------


@dataclass(frozen=True)
class Speech:
    """Text to be said. ``token`` is the id to feed to the talker; ``text`` is what it adds, "" inside a character."""

    token: int
    text: str


@dataclass(frozen=True)
class Call:
    """A whole function call was read. Never spoken."""

    name: str
    arguments: str


@dataclass(frozen=True)
class MalformedCall:
    """Something that began as a function call and isn't one. Never spoken; ``text`` is what the model wrote."""

    text: str
    reason: str


Reading = Speech | Call | MalformedCall
