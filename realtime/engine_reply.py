"""One reply being made: what it is ready for, what came out of each unit, when it is over.

PREFILL -> the header and all before it go through the thinker
TEXT    -> tokens are decoded (or given, at once) and read; what is speech goes to the talker
(speech runs beside TEXT and after it: the talker makes frames, the codec samples)
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from models.base import Call, CodecFrame, Mark, Model, Reading, Sampling, Speech, Text, Tokens
from realtime.engine_context import Context
from realtime.events import (
    AudioOut,
    CallOut,
    EngineOutput,
    Finished,
    MalformedOut,
    Pcm16,
    Reply,
    TextOut,
    Timing,
)
from realtime.schedule import EngineConfig, Listener, Rank, Stage, Work

if TYPE_CHECKING:
    import torch

CLOSING_TOKENS = 8  # room left in the context so that a reply can be closed
RENDER_FRAMES = 4
"""Frames in one call of the codec, at most: on a processor four cost half of what they would one by one."""
RENDER_LEAD_FRAMES = 2
"""Made audio, in frames, that a listener has while frames wait for others to be rendered with."""
AUDIBLE = 0.01  # of full scale, -40 dBFS: below this a sample counts as silence in ``ttfa_audible``


@dataclass
class _Timer:
    """Moments of a reply, in seconds after the turn was decided."""

    decided_at_s: float
    ttft_s: float | None = None
    ttfa_s: float | None = None
    audible_s: float | None = None
    silent: int = 0  # samples before the first audible one

    def token(self, now: float) -> None:
        if self.ttft_s is None:
            self.ttft_s = now - self.decided_at_s

    def audio(self, pcm: Pcm16, rate_hz: int, now: float) -> None:
        if self.ttfa_s is None:
            self.ttfa_s = now - self.decided_at_s
        if self.audible_s is None:
            loud = np.flatnonzero(np.abs(pcm.astype(np.int32)) > AUDIBLE * 32767)
            if len(loud):
                self.audible_s = self.ttfa_s + (self.silent + int(loud[0])) / rate_hz
            self.silent += len(pcm)


@dataclass
class _Speaking:
    """The talker's side of a reply."""

    fed: list[int] = field(default_factory=list)  # per token fed: the reply's tokens up to it
    frames: int = 0  # made by the talker
    waiting: deque[tuple[CodecFrame, int]] = field(default_factory=deque)  # not rendered, tokens taken in
    begun: bool = False
    ended: bool = False

    @property
    def taken(self) -> int:
        """Of the reply's tokens those that the talker has taken in: one a frame."""
        return self.fed[min(self.frames, len(self.fed)) - 1] if self.fed and self.frames else 0


class ReplyRun:
    """A reply of one session, from its header to its last sample. The caller runs the units and tells the results."""

    def __init__(
        self,
        command: Reply,
        context: Context,
        listener: Listener,
        config: EngineConfig,
        deliver: Callable[[EngineOutput], None],
    ) -> None:
        self.command = command
        self.context = context
        self.ids: list[int] = []
        self.reason = ""  # of the end of the text; "" while it goes on
        self.decoding = False
        self.prefilled = 0
        self.underrun_s = 0.0
        self._model: Model = context.model
        self._slot = context.slot
        self._listener = listener
        self._config = config
        self._deliver = deliver
        self._reader = self._model.prompt.reader()
        self._timer = _Timer(command.decided_at_s)
        self._speaking = _Speaking()
        self._speak = command.speak and self._model.talker is not None and self._model.codec is not None
        self._input = 0  # positions in the cache when the reply began
        self._eos: int | None = None
        self._last_token_s = command.decided_at_s
        self.mark: Mark = self._model.thinker.mark(self._slot)
        listener.start(command.epoch)
        context.append(self._model.prompt.reply())

    @property
    def voice(self) -> str:
        """The voice to speak with; the model's first where none was asked for."""
        return self.command.voice or next(iter(self._model.spec.voices), "")

    @property
    def complete(self) -> bool:
        """Text and speech are over and everything was delivered."""
        spoken = not self._speaking.begun or (self._speaking.ended and not self._speaking.waiting)
        return bool(self.reason) and spoken

    # --- what it is ready for ------------------------------------------------

    def works(self, now: float) -> list[Work]:
        """The units this reply is ready for. Empty: it is stuck, which is our own bug."""
        due_s = self._due_s(now)
        heard = self._timer.ttfa_s is not None
        waits = self._speak and not heard
        if not self.decoding:
            stage = Stage.ENCODE if self._model.thinker.unencoded(self._slot) else Stage.PREFILL
            pending = self._model.thinker.pending(self._slot)
            return [Work(self._slot, stage, Rank.REPLY, due_s, waiting=waits, tokens=pending)]
        works = []
        speaking, frame_s = self._speaking, self._model.spec.frame_s
        start_s = self._start_s(now)
        if speaking.waiting:
            at_s = self._render_at_s(now, math.inf if speaking.ended else start_s)
            works.append(Work(self._slot, Stage.RENDER, Rank.REPLY, due_s, at_s, listening=heard, waiting=waits))
        needs_text = True
        if speaking.begun and not speaking.ended:
            assert self._model.talker is not None, "only a talker speaks"
            ready = self._model.talker.ready(self._slot)
            ahead = len(speaking.fed) - speaking.frames
            needs_text = not ready or ahead < self._config.text_lead_tokens
            if ready:
                works.append(Work(self._slot, Stage.FRAME, Rank.REPLY, due_s, start_s, heard, waits))
            due_s += max(0, ahead) * frame_s
        elif speaking.ended or not self._speak:
            due_s, start_s = max(due_s, self._last_token_s + self._config.ttfa_target_ms / 1000), -math.inf
        if needs_text and not self.reason:
            listens, waits = heard and not speaking.ended, waits and not speaking.ended
            works.append(Work(self._slot, Stage.DECODE, Rank.REPLY, due_s, start_s, listens, waits))
        return works

    def _due_s(self, now: float) -> float:
        if self._timer.ttfa_s is None:
            return self.command.decided_at_s + self._config.ttfa_target_ms / 1000
        return self._listener.dry_at_s(now)

    def _start_s(self, now: float) -> float:
        """The lead over playout is bounded, with what the codec has still to render counted in."""
        frame_s = self._model.spec.frame_s
        lead_s = max(self._config.lead_ms / 1000, 2 * frame_s)
        return self._listener.ready_at_s(now, lead_s - (1 + len(self._speaking.waiting)) * frame_s)

    def _render_at_s(self, now: float, next_s: float) -> float:
        """When the codec is to render what waits, with the next frame to be made from ``next_s`` on, or never. A frame
        costs less in a call of several: while the listener has lead enough, it waits for what may come by then."""
        if self._timer.ttfa_s is None or len(self._speaking.waiting) >= RENDER_FRAMES:
            return -math.inf
        latest_s = self._listener.ready_at_s(now, RENDER_LEAD_FRAMES * self._model.spec.frame_s)
        return latest_s if next_s < latest_s else -math.inf

    # --- what came out ------------------------------------------------

    def begin_text(self, now: float) -> None:
        """Everything before the reply is in the cache."""
        self._input = self.context.length
        self.decoding = True
        if self.command.words:
            self._recite(now)
        else:
            self._model.thinker.begin(self._slot, self.command.sampling)

    def _recite(self, now: float) -> None:
        """Nothing is decoded: the words were given. The talker hears of a reply's text by its tokens alone."""
        parts = self._model.prompt.parts(Text(self.command.words))
        ids = [token for part in parts if isinstance(part, Tokens) for token in part.ids]
        room = min(self.command.max_tokens, self._model.spec.context_tokens - self._input - CLOSING_TOKENS)
        for token in ids[:room]:
            self._timer.token(now)
            self.ids.append(token)
            self._read(self._reader.push(token))
        self.end_text("completed" if len(ids) <= room else "max_tokens")

    def token(self, token: int, now: float) -> None:
        """The thinker decoded ``token``."""
        self._timer.token(now)
        self._last_token_s = now
        if token in self._model.prompt.eos:
            self._eos = token
            self.end_text("completed")
            return
        self.ids.append(token)
        self._read(self._reader.push(token))
        full = self.context.length + CLOSING_TOKENS >= self._model.spec.context_tokens
        if full or len(self.ids) >= self.command.max_tokens:
            self.end_text("max_tokens")

    def end_text(self, reason: str) -> None:
        """There is no more text; the speech of what there is goes on."""
        self._read(self._reader.finish())
        self.reason = reason
        if self._speaking.begun and not self._speaking.ended:
            assert self._model.talker is not None, "only a talker speaks"
            self._model.talker.feed_end(self._slot)

    def frame(self, frame: CodecFrame, now: float) -> None:
        """The talker made a frame, or ended the speech."""
        speaking = self._speaking
        if frame.codes is None:
            speaking.ended = True
            return
        speaking.frames += 1
        if frame.samples is None:
            speaking.waiting.append((frame, speaking.taken))
        else:
            self._sound(frame, speaking.taken, frame.samples, now)
        if speaking.frames >= self._config.reply_frames:
            self.end_speech()

    def end_speech(self) -> None:
        """The speech stops with what is made, and the text with it: ``max_tokens``."""
        self._speaking.ended = True
        if not self.reason:
            self.end_text("max_tokens")
        self.reason = "max_tokens"

    @property
    def codes(self) -> list[torch.Tensor]:
        """int64 [groups] each: the frames to render next."""
        frames = [frame.codes for frame, _ in islice(self._speaking.waiting, RENDER_FRAMES)]
        return [codes for codes in frames if codes is not None]  # only frames with codes wait

    def rendered(self, samples: torch.Tensor, frames: int, now: float) -> None:
        """The codec rendered the first ``frames`` of ``codes``: float32 [n]. Raises ValueError where it is no sound."""
        size = self._model.spec.frame_samples
        for left in range(frames - 1, -1, -1):  # cut from the end: an utterance's first frame may be short
            end = len(samples) - left * size
            self._rendered_one(samples[max(0, end - size) if left < frames - 1 else 0 : end], now)

    def _rendered_one(self, samples: torch.Tensor, now: float) -> None:
        frame, tokens = self._speaking.waiting[0]
        self._sound(frame, tokens, samples, now)
        self._speaking.waiting.popleft()

    def _sound(self, frame: CodecFrame, tokens: int, samples: torch.Tensor, now: float) -> None:
        """The sound of a frame, with which the talker had taken in so many tokens."""
        fed = self._speaking.fed
        said = fed[frame.says] if frame.says is not None and frame.says < len(fed) else None
        self._play(samples, tokens, now, said)

    def _play(self, samples: torch.Tensor, tokens: int, now: float, said: int | None = None) -> None:
        pcm = to_pcm16(samples)
        if not len(pcm):
            return
        started = self._timer.ttfa_s is not None
        self._timer.audio(pcm, self._model.spec.output_rate_hz, now)
        dry_s = self._listener.add(len(pcm), now)
        self.underrun_s += dry_s if started else 0.0
        self._deliver(AudioOut(self.command.session, self.command.epoch, pcm, tokens, said))

    def _read(self, readings: Iterable[Reading]) -> None:
        session, epoch, tokens = self.command.session, self.command.epoch, len(self.ids)
        for reading in readings:
            if isinstance(reading, Speech):
                if reading.text:
                    self._deliver(TextOut(session, epoch, reading.text, tokens))
                self._say(reading.token)
            elif isinstance(reading, Call):
                self._deliver(CallOut(session, epoch, reading.name, reading.arguments, tokens))
            else:
                self._deliver(MalformedOut(session, epoch, reading.text, reading.reason, tokens))

    def _say(self, token: int) -> None:
        talker, codec, speaking = self._model.talker, self._model.codec, self._speaking
        if not self._speak or talker is None or codec is None or speaking.ended:
            return
        if not speaking.begun:
            codec.reset(self._slot)
            talker.begin(self._slot, self.voice, self._talker_sampling())
            speaking.begun = True
        talker.feed(self._slot, self._model.thinker.embedding([token])[0])
        speaking.fed.append(len(self.ids))

    def _talker_sampling(self) -> Sampling:
        asked, own, text = self.command.talker_sampling, self._model.spec.talker_sampling, self.command.sampling
        if asked is not None:
            return asked
        return text if own is None else replace(own, seed=text.seed)

    # --- the end ------------------------------------------------

    def finish(self, now: float) -> Finished:
        """Closes the complete reply in the context, delivers the last samples; gives its last output."""
        if self._speaking.begun and self._model.codec is not None:
            self._play(self._model.codec.flush(self._slot), self._speaking.taken, now)
        self._end_speech_state()
        self._end_text_state()
        self.context.append(self._model.prompt.end_reply(self._eos))
        self.context.name(self.command.key)
        usage = self.context.usage(self._input - self.prefilled, len(self.ids), self._speaking.frames, self._input)
        timer = self._timer
        timing = Timing(self.prefilled, timer.ttft_s, timer.ttfa_s, timer.audible_s)
        return Finished(self.command.session, self.command.epoch, self.reason, usage, timing)

    def cut(self, keep: int) -> int:
        """Ends the reply at once. The context keeps its first ``keep`` tokens; gives how many that were."""
        self._end_speech_state()
        keep = min(keep, len(self.ids))
        if keep <= 0:
            self.context.to_mark(self.mark)
            return 0
        self._end_text_state(keep)
        self.context.append(self._model.prompt.end_reply(None))
        self.context.name(self.command.key)
        return keep

    def _end_text_state(self, keep: int | None = None) -> None:
        """The context holds the reply's first ``keep`` tokens; None: all."""
        if not self.command.words:
            self._model.thinker.end(self._slot, keep)
        elif kept := self.ids[:keep]:
            self.context.append([Tokens(tuple(kept))])

    def _end_speech_state(self) -> None:
        if self._speaking.begun and self._model.talker is not None:
            self._model.talker.end(self._slot)
            self._speaking.waiting.clear()


def to_pcm16(samples: torch.Tensor) -> Pcm16:
    """float32 [n], -1..1 -> int16 [n]. Raises ValueError where a sample is not finite."""
    pcm = samples.cpu().numpy()
    if not np.isfinite(pcm).all():
        raise ValueError("the codec rendered samples that are not finite")
    whole: Pcm16 = np.rint(np.clip(pcm, -1.0, 1.0) * 32767).astype(np.int16)
    return whole
