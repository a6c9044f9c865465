"""The replies of a session: one at a time, asked of the engine, told to the client, ended by either or by itself."""

from __future__ import annotations

from dataclasses import replace

from models.base import Spec
from realtime import protocol_events as wire
from realtime.conversation import Conversation
from realtime.errors import EngineFailed, ParleyError
from realtime.events import Cancel, Failed, Finished, Flush, Played, Playout, Reply, RoundTrip
from realtime.playback import Heard, Playback
from realtime.protocol_messages import CreateResponse
from realtime.protocol_response import ResponseWriter
from realtime.session_config import SessionConfig
from realtime.session_context import EngineContext
from realtime.session_items import Items
from realtime.session_outbox import Outbox
from realtime.session_reply import Moments, ReplyOutput, RunningReply
from realtime.settings import Settings

DUCKED = 0.3
"""Gain while they speak over us: -10 dB."""


class Replies:
    """Begins, feeds, cuts and ends replies. ``epoch`` rises with every cut: what the engine made before is stale."""

    def __init__(
        self,
        spec: Spec,
        config: SessionConfig,
        session: int,
        conversation: Conversation,
        context: EngineContext,
        items: Items,
        out: Outbox,
    ) -> None:
        self.epoch = 0
        self._spec = spec
        self._config = config
        self._session = session
        self._conversation = conversation
        self._context = context
        self._items = items
        self._out = out
        self._running: RunningReply | None = None
        self._count = 0
        self._shifts = 0  # of the listener's clock, as far as the engine knows
        self._made_before = 0  # samples of this epoch's earlier replies
        self._pauses = bool(config.player_pauses)
        self._pacing = config.pacing
        self._context_tokens = 0
        self.guessed_tokens = 0
        self.wasted_tokens = 0
        """Made on guesses since the last reply's latencies were told, and of those thrown away."""
        self.ran_dry = False
        """The last reply that was heard had to wait for the engine: it is busy."""

    # --- what is ---

    @property
    def response_id(self) -> str | None:
        """Of the response in progress on the wire."""
        reply = self._running
        return reply.key if reply is not None and not reply.writer.done else None

    @property
    def item_id(self) -> str | None:
        """Of the message being spoken."""
        return self._running.writer.item_id if self._running is not None else None

    @property
    def may_be_followed(self) -> bool:
        """Another reply may be asked for, to come after this one: the last response is done on the wire, though it may
        still be heard, or it made a call, whose result may be here before what we say meanwhile was heard."""
        return self._running is not None and (self._running.writer.done or self._running.calls > 0)

    @property
    def context_share(self) -> float:
        """How much of the model's context the latest reply filled, with all before it."""
        return self._context_tokens / self._spec.context_tokens

    @property
    def tokens(self) -> int:
        """Text tokens that the running reply has so far."""
        return self._running.playback.alignment.whole().tokens if self._running is not None else 0

    def saying(self, now: float) -> str:
        """What of the running reply may be in the air now, or was just before."""
        return self._running.playback.saying(now) if self._running is not None else ""

    def heard_s(self, now: float) -> float:
        """Seconds of the running reply that were played."""
        return self._running.playback.played(now) / self._spec.output_rate_hz if self._running is not None else 0.0

    def deadline(self, now: float) -> float | None:
        """When time alone changes something; None once all was heard."""
        reply = self._running
        return None if reply is None or reply.over(now) else reply.playback.deadline()

    def over(self, now: float) -> bool:
        return self._running is not None and self._running.over(now)

    # --- from the beginning to the end ---

    def begin(
        self,
        asked: CreateResponse,
        settings: Settings,
        now: float,
        eot_delay_s: float | None,
        announce: bool = True,
    ) -> None:
        """Asks for a reply; the engine's context is in order. Unannounced, nobody hears of it until `confirm`."""
        assert self._running is None, "one reply at a time"
        speak = settings.speak and bool(self._spec.voices)
        conversation = self._conversation if asked.in_conversation else None
        writer = ResponseWriter(self._out.ids, settings, conversation, asked.metadata)
        playback = Playback(self._spec.output_rate_hz, self._pacing, opened=announce)
        self._running = RunningReply(
            writer, playback, Moments(now, eot_delay_s), speak=speak, in_conversation=asked.in_conversation
        )
        self._shifts = 0
        self._count += 1
        own = self._spec.text_sampling or self._config.sampling
        sampling = settings.sampling(replace(own, seed=self._config.sampling.seed + self._count))
        tokens = min(settings.max_output_tokens or self._config.reply_tokens, self._config.reply_tokens)
        key, voice = writer.response_id, settings.voice
        self._out.do(Reply(self._session, self.epoch, key, now, voice, speak, sampling, None, tokens, asked.words))
        if announce:
            self._out.tell(*self._running.announce())

    def confirm(self, now: float, eot_delay_s: float | None) -> None:
        """The turn was over indeed: the guessed reply may be heard."""
        assert self._running is not None, "a reply was guessed"
        self._running.moments.confirm(now, eot_delay_s)
        self._out.tell(*self._running.announce())

    def forget(self) -> list[Cancel]:
        """The guess was wrong: the reply never was. Gives what ends it in the engine."""
        reply, self._running = self._running, None
        if reply is None:  # it failed, and ended by itself
            return []
        self.epoch += 1
        self._made_before = 0
        self._context.unreplied(reply.key)
        return [Cancel(self._session, self.epoch, 0)]

    def take(self, output: ReplyOutput) -> bool:
        """What the engine made; False for what is stale."""
        if self._running is None or output.epoch < self.epoch:
            return False
        self._running.take(output)
        if isinstance(output, Finished):
            used = output.usage
            self._context_tokens = used.input_text + used.input_audio + used.input_image + used.output_text
            self._context.replied(self._running.key)
        return True

    def flow(self, now: float) -> bool:
        """Sends what is due; True when the reply is heard for the first time."""
        reply = self._running
        if reply is None:
            return False
        silent, open_before = reply.moments.first_sent_s is None, not reply.writer.done
        self._out.tell(*reply.flow(now))
        self._report_clock(reply, now)
        first = silent and reply.moments.first_sent_s is not None
        if first and self._config.output_buffer_events:
            self._out.tell(wire.output_audio_started(reply.key))
        if open_before and reply.writer.done:
            self._tell_latency(reply)
        return first

    def end(self) -> None:
        """The reply was heard to its end."""
        reply = self._running
        assert reply is not None, "a reply runs"
        if self._config.output_buffer_events and reply.playback.sent:
            self._out.tell(wire.output_audio_stopped(reply.key))
        if self._pauses and reply.playback.held:  # nothing is left to play, but a player that waits would wait for ever
            self._out.tell({"type": "parley.playout.resume", "response_id": reply.key})
        self._made_before += reply.playback.generated
        self.ran_dry = reply.playback.underrun_ms > 0
        self._items.remember(reply)
        self._running = None

    def cut(self, now: float, reason: str, interrupt_s: float | None) -> bool:
        """The reply ends here: what was heard stays, in the engine, the conversation and on the wire alike.

        ``interrupt_s``: since the onset of the interruption. False: the engine's context must be made to agree."""
        reply, self._running = self._running, None
        assert reply is not None, "a reply runs"
        heard = reply.heard(now)
        reply.moments.interrupt_stop_s = interrupt_s
        keep = heard.tokens if reply.calls == 0 and reply.in_conversation else 0
        self.epoch += 1
        self._made_before = 0
        self._out.do(*self._context.cut(reply.key, keep, self.epoch), Flush())
        if self._config.output_buffer_events and reply.playback.sent:
            self._out.tell(wire.output_audio_cleared(reply.key))
        told = reply.writer.done
        self._out.tell(*reply.cut(heard, reason))
        if not told:
            self._tell_latency(reply)
        self._truncate(reply, heard)
        self._items.remember(reply)
        if reason == "turn_detected":  # a client that cancels says itself what it wants of its results
            self._items.cut_off(reply.writer.items)
        return reply.calls == 0 or not reply.in_conversation

    def fail(self, failed: Failed) -> ParleyError | None:
        """Tells the client; gives the error if it ended the reply."""
        error = error_of(failed.code, failed.message)
        self._out.tell(error)
        if failed.fatal or not failed.code.startswith("invalid_"):
            self._context.lost()
        reply = self._running
        if reply is None or failed.epoch < self.epoch or reply.finished is not None:
            return None
        self._running = None
        self.epoch += 1
        self._made_before = 0
        self._out.do(Flush())
        self._out.tell(*reply.fail(error))
        self._items.remember(reply)
        return error

    # --- the listener ---

    def duck(self) -> None:
        """They speak over us: softer, until it is clear what this is."""
        if self._running is not None:
            self._running.gain = DUCKED

    def hold(self, now: float) -> None:
        """Nothing more is sent; all state is kept. A player that speaks our extension is paused at once."""
        reply = self._running
        if reply is None:
            return
        reply.playback.hold(now, pauses=self._pauses)
        if self._pauses:
            self._out.tell({"type": "parley.playout.pause", "response_id": reply.key})
        self._report_clock(reply, now)

    def release(self, now: float) -> None:
        """On where we were, at full voice."""
        reply = self._running
        if reply is None:
            return
        reply.gain = 1.0
        if not reply.playback.held:
            return
        reply.playback.release(now)
        if self._pauses:
            self._out.tell({"type": "parley.playout.resume", "response_id": reply.key})
        self._report_clock(reply, now)

    def reported(self, event: Played | RoundTrip, now: float) -> None:
        """What is known of the listener."""
        if isinstance(event, Played):
            self.report(event.item_id, event.samples, now)
            return
        self._pacing = self._config.pacing.measured(event.seconds)
        if self._running is not None:
            self._running.playback.repace(self._pacing, now)

    def report(self, item_id: str, samples: int, now: float, *, stopped: bool = False) -> None:
        """The client says what of the item was played; so it knows our extension, unless the transport knows better."""
        if self._config.player_pauses is None:
            self._pauses = True
        if self._running is not None and self._running.writer.item_id == item_id:
            self._running.playback.report(samples, now, stopped=stopped)

    def _report_clock(self, reply: RunningReply, now: float) -> None:
        """The engine orders its work by the listener's clock, and is told whenever that jumps or stops."""
        playback = reply.playback
        if playback.shifts == self._shifts or self._config.pacing.ahead_ms is None:
            return
        self._shifts = playback.shifts
        sent = self._made_before + playback.sent
        self._out.do(Playout(self._session, self.epoch, sent, now, playback.held))

    def _truncate(self, reply: RunningReply, heard: Heard) -> None:
        item_id = reply.writer.item_id
        if not reply.speak or item_id is None or item_id not in self._conversation:
            return
        heard_ms = min(reply.ms(heard.samples), reply.ms(reply.playback.sent))
        self._conversation.truncate(item_id, 0, heard_ms, lambda *_: heard.text, in_engine=True)
        marks = {"estimated": heard.estimated, "proportional": heard.proportional}
        self._out.tell(wire.item_truncated(item_id, 0, heard_ms), wire.heard(item_id, 0, heard_ms, heard.text, **marks))

    def _tell_latency(self, reply: RunningReply) -> None:
        measured: dict[str, float | None] = reply.moments.milliseconds()
        measured |= {"underrun_ms": reply.playback.underrun_ms}
        measured |= {"guessed_tokens": self.guessed_tokens, "wasted_tokens": self.wasted_tokens}
        self.guessed_tokens = self.wasted_tokens = 0
        timing = reply.moments.since_decision(reply.timing)
        self._out.tell(wire.latency(reply.key, timing, **measured))
        if reply.finished is not None and reply.finished.limits is not None:
            self._out.tell(wire.rate_limits(reply.finished.limits))


def error_of(code: str, message: str) -> ParleyError:
    """The engine's error, by its wire code."""
    kinds = [ParleyError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    plain = [kind for kind in kinds if kind.__init__ is ParleyError.__init__]
    return next((kind for kind in plain if kind.code == code), EngineFailed)(message)
