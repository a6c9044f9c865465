"""One conversation: what comes in, who has the floor, what is to be done. Pure: ``feed(event, now) -> commands``.

    transport --Input--> feed --+--> UserAudio (voice detector, open message)  --edges-->  Floor (turns.py)
    engine ----Output--> feed --+--> RunningReply (playback ledger, response writer)          |
                                +--> Items, Conversation, EngineContext        <--actions----+

`Session` is the wiring and nothing else: it raises the floor's events and does its actions. The nouns next door hold
the state. All time is ``now``, monotonic seconds; ``deadline`` says when to feed ``Wake`` if nothing else comes.
"""

from __future__ import annotations

from collections.abc import Callable

from models.base import Spec
from realtime import protocol_events as wire
from realtime.conversation import Conversation, Entry
from realtime.errors import ClientError, Conflict, ContextFull, NotActive, NothingToCommit, ParleyError, ServerFull
from realtime.events import (
    AudioIn,
    ClientEvent,
    Close,
    Command,
    Failed,
    FrameIn,
    Gone,
    Hangup,
    Input,
    Open,
    Opened,
    Overhear,
    Pcm16,
    Played,
    Refused,
    Renewed,
    RoundTrip,
    TranscriptOut,
    Wake,
)
from realtime.pcm import to_float
from realtime.protocol import ClientMessage, Ids, parse, response_settings, session_object, updated
from realtime.protocol_messages import (
    CancelResponse,
    ClearAudio,
    ClearOutput,
    CommitAudio,
    CreateItem,
    CreateResponse,
    DeleteItem,
    RetrieveItem,
    SessionUpdate,
    TruncateItem,
)
from realtime.session_config import SessionConfig
from realtime.session_context import EngineContext
from realtime.session_ears import Ears
from realtime.session_guess import Guesses
from realtime.session_input import UserAudio
from realtime.session_items import Items
from realtime.session_outbox import Outbox
from realtime.session_overlap import SpeechOver
from realtime.session_replies import Replies
from realtime.session_reply import ReplyOutput
from realtime.session_rolling import RollingContext
from realtime.session_transcripts import Transcripts
from realtime.session_turn import UserTurn
from realtime.settings import Settings
from realtime.turns import REPLYING, Action, Event, Floor, State

TRY_AGAIN_LATER, INTERNAL_ERROR = 1013, 1011
"""WebSocket close codes (RFC 6455 section 7.4.1 and its IANA registry)."""


class Session:
    """One session of the wire. ``session`` is the number the pump gave out; ``ids`` tells sessions apart on the wire.

    ``start`` comes first. Nothing waits for the engine's Opened: Open is the first in its queue, so that the first
    words are heard whenever they come.
    """

    def __init__(
        self, spec: Spec, config: SessionConfig, session: int, settings: Settings, ids: Ids | None = None
    ) -> None:
        self.session = session
        self.settings = settings
        self.ids = ids or Ids(f"{session:04x}")
        self.closed = False
        self._spec = spec
        self._config = config
        self._now = 0.0
        self._quiet_since_s: float | None = None  # when the last reply ended, for the idle timeout
        self._eot_delay_s: float | None = None
        self._asked: tuple[CreateResponse, Settings] | None = None
        self._out = Outbox(self.ids, settings.dialect)
        self._conversation = Conversation(spec.input_rate_hz)
        self._items = Items(spec, self._conversation, self._out)
        self._context = EngineContext(session, spec.input_rate_hz)
        self._user = UserAudio(spec, config)
        self._transcripts = Transcripts(self._conversation, self._out, spec.input_rate_hz)
        self._replies = Replies(spec, config, session, self._conversation, self._context, self._items, self._out)
        self._rolling = RollingContext(session, config, self._conversation, self._context, self._items, self._out)
        self._floor = Floor(self._do)
        self._guesses = Guesses(config, self._context, self._replies, self._transcripts, self._out)
        self._turn = UserTurn(
            self._user, self._conversation, self._items, self._context, self._transcripts, self._guesses, self._out
        )
        self._over_us = SpeechOver(
            config.overlap,
            self._user,
            self._overhear,
            lambda: self._replies.saying(self._now),
            lambda: self._replies.heard_s(self._now),
        )
        self._ears = Ears(self._user, self.ids, self._floor, config, self._over_us, self._guesses)
        self._ears.configure(settings.turn_detection)
        self._actions: dict[Action, Callable[[], None]] = {
            Action.START: self._turn.start,
            Action.RESUME_INPUT: self._turn.accept,
            Action.STOP: self._stop,
            Action.COMMIT: self._commit,
            Action.CLEAR: self._turn.clear,
            Action.DROP: self._user.drop,
            Action.REPLY: self._reply,
            Action.CUT: lambda: self._cut("turn_detected"),
            Action.CANCEL: lambda: self._cut("client_cancelled"),
            Action.NUDGE: self._nudge,
            Action.GUESS: lambda: self._turn.guess(self.settings, self._now, transcribe=self._wants_words),
            Action.READ: lambda: self._turn.read(transcribe=self._wants_words),
            Action.UNREAD: self._turn.unread,
            Action.UNGUESS: self._guesses.undo,
            Action.CONFIRM: self._confirm,
            Action.DUCK: self._replies.duck,
            Action.HOLD: lambda: self._replies.hold(self._now),
            Action.UNHOLD: lambda: self._replies.release(self._now),
            Action.SAY_BUSY: self._say_busy,
            Action.SAY_NONE: self._say_none,
        }

    @property
    def epoch(self) -> int:
        return self._replies.epoch

    @property
    def state(self) -> State:
        """Who has the floor."""
        return self._floor.state

    @property
    def deadline(self) -> float | None:
        """When to feed Wake, if nothing comes before; None: not at all."""
        times = [time for time in (self._timer_s(), self._replies.deadline(self._now)) if time is not None]
        return None if self.closed else min(times, default=None)

    def start(self, now: float) -> list[Command]:
        """The session's first commands."""
        self._now = now
        self._out.do(Open(self.session))
        self._out.tell(wire.session_created(session_object(self.settings, f"sess_{self.session:06d}")))
        return self._settled()

    def feed(self, event: Input, now: float) -> list[Command]:
        """Takes one event; gives what is to be done, in order. What a client does wrong becomes an ``error`` event."""
        if self.closed:
            return []
        self._now = now
        try:
            self._take(event)
        except ParleyError as error:
            self._out.tell(error)
        return self._settled()

    def _take(self, event: Input) -> None:
        match event:
            case AudioIn(pcm):
                self._ears.hear(pcm, self._now)
            case FrameIn(pixels):
                self._ears.see(pixels, self._now)
            case ClientEvent(message):
                self._request(parse(message))
            case Played() | RoundTrip():
                self._replies.reported(event, self._now)
            case Wake() | Opened():
                pass
            case Gone():
                self._out.do(Close(self.session))
                self.closed = True
            case Refused(message=message, retry_after_s=seconds):
                self._out.tell(ServerFull(message, retry_after_s=seconds))
                self._hangup(TRY_AGAIN_LATER, "server_full")
            case Failed():
                self._failed(event)
            case Renewed():
                self._rolling.take(event)
            case TranscriptOut():
                if not self._over_us.take(event) and not self._rolling.read(event, self.settings, self.epoch):
                    self._transcripts.take(event)
            case _:
                self._made(event)

    def _settled(self) -> list[Command]:
        """What follows by itself once an event is taken: due audio, the floor's timer, the engine's context."""
        if not self.closed:
            self._flow()
            if self._context.stale and self._guesses.closed:
                self._ears.notice(Event.VOID)
            if (timer_s := self._timer_s()) is not None and self._now >= timer_s:
                self._ears.notice(self._ears.timely())
                self._flow()  # a guess may be the reply now, whole and without a sound: nothing else would wake us
            self._speak_to_engine()
        return self._out.take()

    # --- what the client asks for ---

    def _request(self, message: ClientMessage) -> None:
        try:
            self._answer(message)
        except ClientError as error:
            error.event_id = error.event_id or message.event_id
            raise

    def _answer(self, message: ClientMessage) -> None:
        match message:
            case SessionUpdate():
                self._update(message)
            case CommitAudio():
                self._user_committed()
            case ClearAudio():
                self._ears.notice(Event.CLEAR)
            case CreateItem() | RetrieveItem() | DeleteItem():
                self._context.stale = self._items.handle(message, self.settings) or self._context.stale
            case TruncateItem():
                self._truncate(message)
            case CreateResponse():
                self._create_response(message)
            case CancelResponse(response_id=response_id):
                if response_id is not None and response_id != self._replies.response_id:
                    raise NotActive(
                        f"Cancellation failed: there is no response {response_id!r} in progress", param="response_id"
                    )
                self._ears.notice(Event.CANCEL)
            case ClearOutput():
                if self.state in REPLYING:
                    self._ears.notice(Event.CANCEL)
            case _:
                raise ClientError("the transport decodes this event; it belongs to no session")

    def _update(self, message: SessionUpdate) -> None:
        before, self.settings = self.settings, updated(self.settings, message)
        self._out.dialect = self.settings.dialect
        if self.settings.turn_detection != before.turn_detection:
            self._ears.configure(self.settings.turn_detection)
        self._context.stale = self._context.stale or self.settings.prompt() != before.prompt()
        self._out.tell(wire.session_updated(session_object(self.settings, f"sess_{self.session:06d}")))

    def _user_committed(self) -> None:
        message = self._user.message
        samples = message.audio.length if message is not None else 0
        if samples * 1000 < self._config.least_commit_ms * self._user.rate_hz:
            raise NothingToCommit(
                f"the input audio buffer holds {samples * 1000 // self._user.rate_hz} ms; "
                f"a commit needs {self._config.least_commit_ms} ms"
            )
        self._ears.notice(Event.COMMIT)

    def _create_response(self, message: CreateResponse) -> None:
        settings = response_settings(self.settings, message)
        if message.input is not None:
            self._items.entries(message, settings, [])  # raises for what can't be taken, before anything is promised
        if self.state in REPLYING and self._replies.may_be_followed:
            self._asked = (message, settings)
            self._ears.notice(Event.NEXT)
            return
        if self.state not in REPLYING:
            if self._user.message is None:  # what they are saying will want its answer
                self._items.check_asked(message)
            self._asked = (message, settings)
            self._guesses.barred = True
        self._ears.notice(Event.CREATE)

    def _truncate(self, message: TruncateItem) -> None:
        """Of the running reply: the client says what was played, and that it stopped playing."""
        if self._replies.item_id == message.item_id and self.state in REPLYING:
            samples = message.audio_end_ms * self._spec.output_rate_hz // 1000
            self._replies.report(message.item_id, samples, self._now, stopped=True)
            self._ears.notice(Event.CANCEL)
            return
        self._items.truncate(message)
        self._context.stale = True

    # --- what the engine made ---

    def _made(self, output: ReplyOutput) -> None:
        if self._replies.take(output):
            self._flow()

    def _failed(self, failed: Failed) -> None:
        self._context.stale = True
        self._rolling.drop(self.epoch)
        if failed.code == ContextFull.code:
            self._conversation.make_room()
        if self._replies.fail(failed) is not None:
            self._ears.notice(Event.FAILED)
        if failed.fatal:
            self._hangup(INTERNAL_ERROR, failed.code)

    def _hangup(self, code: int, reason: str) -> None:
        self._out.do(Hangup(code, reason), Close(self.session))
        self.closed = True

    def _flow(self) -> None:
        """Audio and words that are due go out; the floor hears of the first sound and of the end."""
        if self._replies.flow(self._now):
            self._ears.notice(Event.SOUND)
        if self._replies.over(self._now) and not self._ears.undecided:
            self._replies.end()
            self._quiet_since_s = self._now
            self._rolling.reply_over(self._replies.context_share, self.settings, self.epoch)
            self._ears.notice(Event.DONE)

    # --- the floor ---

    def _do(self, action: Action) -> None:
        self._actions[action]()

    def _timer_s(self) -> float | None:
        return self._ears.timer_s(self._quiet_since_s)

    # --- what the floor wants done ---

    def _stop(self) -> None:
        self._eot_delay_s = self._ears.silence_s(self._now)
        self._turn.stop()

    def _commit(self) -> None:
        self._quiet_since_s = None
        self._turn.commit(transcribe=self.settings.transcription is not None)

    def _reply(self) -> None:
        message, settings = self._asked or (CreateResponse({}, {}), self.settings)
        eot_delay_s, self._asked, self._guesses.barred = self._eot_delay_s, None, False
        self._eot_delay_s = self._quiet_since_s = None
        own_context = message.input is not None or settings.prompt() != self.settings.prompt()
        if self._context.stale or own_context or self._context.tail is not None:
            try:
                want = self._items.entries(message, settings, self._context.keys)
            except ClientError as error:  # what it was asked about was deleted before its time came
                self._out.tell(error)
                self._floor.notice(Event.FAILED)
                return
            self._sync(want)
        self._context.stale = own_context or not message.in_conversation
        self._replies.begin(message, settings, self._now, eot_delay_s)

    @property
    def _wants_words(self) -> bool:
        return self.settings.transcription is not None or self._ears.wants_words

    def _overhear(self, name: str, pcm: Pcm16) -> None:
        self._out.do(Overhear(self.session, self.epoch, name, to_float(pcm)))

    def _confirm(self) -> None:
        self._guesses.confirm(self._now, self._eot_delay_s)
        self._eot_delay_s = self._quiet_since_s = None

    def _cut(self, reason: str) -> None:
        if self._replies.over(self._now):  # they heard it all; what they say is a turn like any other
            self._replies.end()
            return
        message, since_s = self._user.message, None
        if message is not None:
            since_s = (self._user.position - message.onset) / self._user.rate_hz
        if not self._replies.cut(self._now, reason, since_s):
            self._context.stale = True

    def _nudge(self) -> None:
        now_ms = self._user.position * 1000 // self._user.rate_hz
        self._out.tell(wire.timeout_triggered(self.ids.item(), now_ms, now_ms))

    def _say_busy(self) -> None:
        raise Conflict("a response is in progress: cancel it, or wait for response.done")

    def _say_none(self) -> None:
        raise NotActive("Cancellation failed: there is no response in progress")

    # --- the engine's context follows the conversation ---

    def _speak_to_engine(self) -> None:
        """While no reply is in it, the context is kept in order, and hears what the user says as they say it."""
        if self.state in REPLYING or self._guesses.closed:
            return
        message = self._user.message
        if message is None and self._context.tail is None:
            self._rolling.between_turns(self.epoch)
        if self._context.stale and (message is None or self._context.tail is None):
            self._sync(self._conversation.render(self.settings.prompt(), self._context.keys))
        if message is not None and message.sure:
            self._out.do(*self._context.stream(message, self.epoch))

    def _sync(self, want: list[Entry]) -> None:
        self._out.do(*self._context.sync(want, self.epoch, self._transcripts.claim_all()))
