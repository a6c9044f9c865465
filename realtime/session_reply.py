"""One reply of a session: what the engine made of it, turned into wire events and paced audio, in legal order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from realtime.errors import MalformedCallError, ParleyError
from realtime.events import AudioOut, CallOut, Finished, MalformedOut, Pcm16, Play, TextOut, Timing
from realtime.playback import Heard, Playback
from realtime.protocol_response import ResponseWriter

ReplyOutput = TextOut | AudioOut | CallOut | MalformedOut | Finished
WireEvent = dict[str, Any]


@dataclass
class Moments:
    """When things happened in this turn; monotonic seconds, None = not (yet)."""

    decided_at_s: float
    eot_delay_s: float | None
    """How long before the decision their speech had truly ended; None: the client asked for the reply."""
    first_sent_s: float | None = None
    interrupt_stop_s: float | None = None
    """Onset of their interruption -> our last sample."""
    begun_at_s: float | None = None
    """When it was asked for, if that was a guess before the decision."""

    def confirm(self, now: float, eot_delay_s: float | None) -> None:
        """The turn is decided only now; the reply was begun before."""
        self.begun_at_s, self.decided_at_s = self.decided_at_s, now
        self.eot_delay_s = eot_delay_s

    def since_decision(self, timing: Timing) -> Timing:
        """The engine counts from when it was asked. What was there before the decision came at once."""
        if self.begun_at_s is None:
            return timing
        early_s = self.decided_at_s - self.begun_at_s

        def later(seconds: float | None) -> float | None:
            return None if seconds is None else max(0.0, seconds - early_s)

        return Timing(timing.prefill_lag, later(timing.ttft_s), later(timing.ttfa_s), later(timing.ttfa_audible_s))

    def milliseconds(self) -> dict[str, float | None]:
        """What the session knows, in the words of the design; None = did not happen."""
        known = {"eot_delay_ms": self.eot_delay_s, "interrupt_stop_ms": self.interrupt_stop_s, "e2e_ms": None}
        if self.first_sent_s is not None and self.eot_delay_s is not None:
            known["e2e_ms"] = self.first_sent_s - self.decided_at_s + self.eot_delay_s
        return {name: None if value is None else 1000 * value for name, value in known.items()}


class RunningReply:
    """From ``Reply`` to the last sample heard. Unannounced, it keeps everything to itself (a guess).

    Text is written as the sound that says it is sent, so that a listener's captions don't run ahead of the voice and
    what is cut off was never shown; in a text reply, at once. Calls don't wait for the voice: their work can begin.
    """

    def __init__(
        self, writer: ResponseWriter, playback: Playback, moments: Moments, *, speak: bool, in_conversation: bool
    ) -> None:
        self.writer = writer
        self.playback = playback
        self.moments = moments
        self.speak = speak
        self.in_conversation = in_conversation
        self.announced = False
        self.finished: Finished | None = None
        self.calls = 0
        self.gain = 1.0
        self._last_gain = 1.0
        self._written = 0  # characters
        self._pending: list[tuple[CallOut | MalformedOut, bool]] = []  # and whether words came before it

    @property
    def key(self) -> str:
        """The response's id, and the reply's name in the engine's context."""
        return self.writer.response_id

    @property
    def timing(self) -> Timing:
        return self.finished.timing if self.finished else Timing(0, None, None, None)

    def announce(self) -> list[WireEvent]:
        """It is the reply: ``response.created``; what was made so far may be heard."""
        self.announced = True
        self.playback.open()
        return self.writer.start()

    def take(self, output: ReplyOutput) -> None:
        """What the engine made, in its order."""
        match output:
            case TextOut(text=text, tokens=tokens):
                self.playback.add_text(text, tokens)
            case AudioOut(pcm=pcm, tokens=tokens, said=said):
                self.playback.add_audio(pcm, tokens, said)
            case CallOut() | MalformedOut():
                self._pending.append((output, bool(self.playback.alignment.text)))
            case Finished():
                self.finished = output
                self.playback.finish()

    def flow(self, now: float) -> list[WireEvent | Play | ParleyError]:
        """What may go out now: audio that is due, its words, calls, and the end of the response when all was sent.

        An error is a malformed call: to be told, and never said."""
        out: list[WireEvent | Play | ParleyError] = []
        if not self.announced or self.writer.done:
            return out
        for piece in self.playback.due(now):
            out += self._write(piece.text_end)
            out += self.writer.open_message()
            item_id = self.writer.item_id
            assert item_id is not None, "a message is open"
            out.append(Play(self.key, item_id, piece.start, self._voiced(piece.pcm), self.writer.output_index))
            if self.moments.first_sent_s is None:
                self.moments.first_sent_s = now
        if self.playback.all_sent or not self.speak:
            out += self._write(len(self.playback.alignment.text))
        out += self._call()
        if self.finished is not None and self.playback.all_sent:
            out += self._complete(self.finished)
        return out

    def heard(self, now: float) -> Heard:
        """What they have of it by now: in a text reply, all that was written."""
        if self.speak:
            return self.playback.heard(now)
        said = self.playback.alignment.whole()
        return Heard(0, said.tokens, said.text, estimated=False, proportional=False)

    def cut(self, heard: Heard, reason: str) -> list[WireEvent]:
        """Their word or the client's ends it: the response is over with what was heard."""
        if self.writer.done or not self.announced:
            return []
        usage = self.finished.usage if self.finished else None
        text = heard.text if self.speak else None
        return self.writer.finish("cancelled", reason, usage, heard=text, audio_ms=self.ms(self.playback.sent))

    def fail(self, error: ParleyError) -> list[WireEvent]:
        """The engine could not go on; what was sent stands."""
        if self.writer.done or not self.announced:
            return []
        return self.writer.finish("failed", error=error, audio_ms=self.ms(self.playback.sent))

    def over(self, now: float) -> bool:
        """The response is done and its last sample was heard."""
        return self.writer.done and self.playback.over(now)

    def ms(self, samples: int) -> int:
        """Whole milliseconds that hold ``samples`` of the reply."""
        return -(-samples * 1000 // self.playback.rate_hz)

    def _voiced(self, pcm: Pcm16) -> Pcm16:
        """At the gain asked for; a change is spread over the piece, so that it doesn't click."""
        before, self._last_gain = self._last_gain, self.gain
        if before == self.gain == 1.0:
            return pcm
        return np.rint(pcm * np.linspace(before, self.gain, len(pcm))).astype(np.int16)

    def _write(self, end: int) -> list[WireEvent]:
        if end <= self._written:
            return []
        text = self.playback.alignment.text[self._written : end]
        self._written = end
        return self.writer.write(text)

    def _call(self) -> list[WireEvent | Play | ParleyError]:
        out: list[WireEvent | Play | ParleyError] = []
        for output, after_words in self._pending:
            if after_words:  # the message comes first in the response, as it does in the model's context
                out += self.writer.open_message()
            if isinstance(output, CallOut):
                self.calls += 1
                out += self.writer.call(output.name, output.arguments)
            else:
                out.append(MalformedCallError(f"the model wrote a broken function call ({output.reason})"))
        self._pending.clear()
        return out

    def _complete(self, finished: Finished) -> list[WireEvent]:
        audio_ms = self.ms(self.playback.generated)
        if finished.reason == "max_tokens":
            return self.writer.finish("incomplete", "max_output_tokens", finished.usage, audio_ms=audio_ms)
        return self.writer.finish("completed", usage=finished.usage, audio_ms=audio_ms)
