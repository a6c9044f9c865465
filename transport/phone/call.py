"""A phone call as a session: what any carrier's call has in common, whatever its wire.

    their audio -> hear  -> AudioIn                Play -> the speaker         Flush -> its cut
    a key       -> press -> a user message         parley.playout.pause / resume -> its pause / resume
    a mark      -> played -> Played                a function of ours that the model calls -> tools

The policy of the number says how it begins and how long it may be. An application may watch: it gets the session's
events and may feed its own (``watch``).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from models.base import Pcm
from realtime.events import AudioIn, ClientEvent, Effect, Flush, Hangup, Play, Played, Send
from realtime.playback import Pacing
from transport.media import Inbound
from transport.phone.answering import Answer, Answering
from transport.phone.hold import HoldMusic
from transport.phone.policy import Policy
from transport.phone.recording import Recorder, open_recorder
from transport.phone.tools import Tools, Unable
from transport.service import Service

log = logging.getLogger(__name__)

DIGITS = frozenset("0123456789*#ABCD")
DIGITS_S = 2.0
"""Keys pressed within so much of each other are one entry; ``#`` ends it at once."""
MAX_DIGITS = 32
NORMAL = 1000  # WebSocket close code (RFC 6455 section 7.4.1)
HUNG_UP = "they hung up"
GOODBYE_S = 0.5
"""From the end of our last words, by our clock, to hanging up: they are still on their way to the ear."""
NO_SOUND_S = 6.0
"""No sound at all from whoever took our call: they are greeted."""
LONG_GREETING_S = 45.0
"""A machine that has found no end by then is spoken to all the same."""
_AUDIO_DONE = {"response.output_audio.done", "response.audio.done"}
_SPEAKING = {
    "output_audio_buffer.started": True,
    "output_audio_buffer.stopped": False,
    "output_audio_buffer.cleared": False,
}


@dataclass(frozen=True)
class About:
    """Which call this is."""

    id: str
    carrier: str
    """``sip``, ``twilio``, ``telnyx`` or ``asterisk``."""
    number: str
    """Ours."""
    caller: str
    """Theirs."""
    outbound: bool = False
    """We called them."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Of the signalling, for the application that decides."""


class Speaker(Protocol):
    """Our voice on one wire. Plain calls, none blocks."""

    pacing: Pacing
    pauses: bool
    """It can hold its playback and go on."""

    @property
    def round_trip_s(self) -> float | None:
        """The network's, where that says more of what they hear than what the wire reports; None: not known."""

    def play(self, effect: Play) -> None:
        """Audio of a reply that is due."""

    def finish(self) -> None:
        """The item's audio is complete."""

    def cut(self) -> None:
        """What was not heard yet is not to be."""

    def pause(self) -> None:
        """Playback stands still."""

    def resume(self) -> None:
        """And goes on."""

    def sound(self, pcm: Pcm, rate_hz: int) -> None:
        """Sound that is part of no reply (music, tones), due now: float32 [n]."""


class Leg(Protocol):
    """What one wire can do to its call."""

    @property
    def speaker(self) -> Speaker: ...

    def hang_up(self, hangup: Hangup) -> None:
        """Ends the call; ``PhoneCall.close`` follows. Twice is once."""

    def send_digits(self, digits: str) -> None:
        """As if they were pressed here. Raises Unable."""

    async def refer(self, target: str) -> None:
        """Sends them on to ``target``; returns once that has worked, then the call ends. Raises Unable."""

    async def join(self, other: Leg) -> None:
        """Sends them on to whom ``other`` reaches; returns once that has worked, then both end. Raises Unable."""

    def hold(self, held: bool) -> None:
        """Tells the far end that its sound is not wanted, where the wire can; music goes on."""


class PhoneCall:
    """One call that was taken."""

    def __init__(self, service: Service, about: About, policy: Policy, session: Mapping[str, Any], leg: Leg) -> None:
        """``session``: what whoever accepted the call wants, over the policy. Raises ClientError."""
        self.about = about
        self._policy = policy
        self._leg = leg
        self._loop = asyncio.get_running_loop()
        self._tools = Tools(policy, self)
        spec = service.spec
        self._rate_hz = spec.input_rate_hz
        self._inbound = Inbound(self._rate_hz)
        self._digits = ""
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._watchers: list[Callable[[dict[str, Any]], None]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._speaking = False
        self._silent = asyncio.Event()
        self._silent.set()
        self._held = False
        self._answering: Answering | None = None  # who took our call is not known yet
        self._last_words = False
        self._music = HoldMusic(leg.speaker.sound, policy.hold_music)
        self._recorder: Recorder | None = None
        speaker = leg.speaker
        config = replace(
            service.config.session, pacing=speaker.pacing, player_pauses=speaker.pauses, output_buffer_events=True
        )
        settings = service.settings(policy.session(self._tools.definitions(session), session))
        settings = replace(settings, echo_canceller=True)  # what a handset or a speakerphone sends back
        self._call = service.open(settings, self._emit, config)
        self._recorder = open_recorder(policy, about, spec.input_rate_hz, spec.output_rate_hz)
        self._over: Hangup | None = None

    @property
    def number(self) -> int:
        """For the log."""
        return self._call.number

    @property
    def settings(self) -> Any:
        """The session's, as they are now."""
        return self._call.session.settings

    def start(self) -> None:
        """The session claims its slot; nothing is said yet."""
        self._call.start()

    async def refused(self) -> str:
        """Why the engine did not let the session in, "" when it did. Waits for its word."""
        await self._call.settled.wait()
        return self._over.reason if self._over is not None else ""

    def answered(self) -> None:
        """Both ends are there: we greet if we are to speak first."""
        self._later("length", 60 * self._policy.max_minutes, self._too_long)
        if self.about.outbound and self._policy.answering_machine:
            self._answering = Answering(self._rate_hz)
            self._later("answering", NO_SOUND_S, lambda: self._answered_by(Answer.PERSON))
        else:
            self._greet()

    def _greet(self) -> None:
        if (greeting := self._policy.first_words()) is not None:
            self.feed(greeting)

    def _answered_by(self, answer: Answer) -> None:
        """It is known who took a call of ours, or that a machine records."""
        self._timers.pop("answering").cancel()
        if answer is Answer.RECORDING:
            self._last_words, self._answering = True, None
            self.feed(self._policy.message_left())
            return
        log.info("session %d: a %s answered", self.number, answer.name.lower())
        self._tell({"type": "parley.call.answered", "call_id": self.about.id, "by": answer.name.lower()})
        if answer is Answer.PERSON:
            self._answering = None
            self._greet()
        elif self._policy.answering_machine == "hang_up":
            self.hang_up("an answering machine took the call")
        else:
            self._later("answering", LONG_GREETING_S, lambda: self._answered_by(Answer.RECORDING))

    def _later(self, name: str, delay_s: float, do: Callable[[], None]) -> None:
        """One timer a name."""
        if (timer := self._timers.pop(name, None)) is not None:
            timer.cancel()
        self._timers[name] = self._loop.call_later(delay_s, do)

    def close(self, reason: str) -> None:
        """The line is gone, ``reason`` is why. Once."""
        for timer in self._timers.values():
            timer.cancel()
        for task in self._tasks:
            task.cancel()
        self._music.stop()
        self._call.close()
        self._tell({"type": "parley.call.ended", "call_id": self.about.id, "reason": reason})
        if self._recorder is not None:
            self._recorder.close(self._loop.time())

    # --- in ------------------------------------------------

    def hear(self, pcm: Pcm, rate_hz: int) -> None:
        """The caller's audio, float32 [n]."""
        heard = self._inbound.push(pcm, rate_hz)
        if not len(heard):
            return
        if self._recorder is not None:
            self._recorder.caller(heard, self._loop.time())
        if self._answering is not None:
            if (answer := self._answering.hear(heard)) is not None:
                self._answered_by(answer)
        elif not (self._held or self._last_words):
            self._call.is_away(self._leg.speaker.round_trip_s)
            self._call.feed(AudioIn(heard))

    def played(self, item_id: str, samples: int) -> None:
        """The far end reports playout."""
        self._call.feed(Played(item_id, samples))

    def feed(self, event: Mapping[str, Any]) -> None:
        """A client event of an application's, or of our own making."""
        self._call.feed(ClientEvent(event))

    def press(self, digit: str) -> None:
        """A key: we fall silent; once all are pressed, they are a message of the caller's. Raises ValueError."""
        if digit not in DIGITS:
            raise ValueError(f"{digit[:20]!r} is no key of a telephone")
        self.silence()
        self._digits += digit
        self._tell({"type": "parley.call.dtmf", "call_id": self.about.id, "digit": digit})
        self._later("digits", DIGITS_S, self._pressed)
        if digit == "#" or len(self._digits) >= MAX_DIGITS:
            self._timers.pop("digits").cancel()
            self._pressed()

    def silence(self) -> None:
        """Whatever is being said is cut where they have heard it."""
        self.feed({"type": "output_audio_buffer.clear"})

    def _pressed(self) -> None:
        text, self._digits = f"[The caller pressed {self._digits} on the telephone's keypad.]", ""
        item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}
        self.feed({"type": "conversation.item.create", "item": item})
        self.silence()  # a reply may have begun since the key
        self.feed({"type": "response.create"})

    def _too_long(self) -> None:
        log.info("session %d: its %g minutes are over", self.number, self._policy.max_minutes)
        self.hang_up("the call's time is over")

    # --- what the model and applications may do to it ------------------------------------------------

    def hang_up(self, reason: str = "hung up") -> None:
        """Now."""
        self._end(Hangup(NORMAL, reason))

    async def spoken(self) -> None:
        """Waits until what is being said has been heard."""
        await self._silent.wait()
        await asyncio.sleep(GOODBYE_S)

    async def transfer(self, target: str) -> None:
        """Sends the caller on to ``target``; then this call is over. Raises Unable."""
        await self._leg.refer(self._policy.transfer_target(target))

    async def join(self, other: PhoneCall) -> None:
        """Sends the caller on to whom we talk to in ``other``; then both calls are over. Raises Unable."""
        await self._leg.join(other._leg)

    def send_digits(self, digits: str) -> None:
        """Raises Unable."""
        if not digits or len(digits) > MAX_DIGITS or not set(digits) <= DIGITS:
            raise Unable(f"digits are 1 to {MAX_DIGITS} of 0-9 * # A-D, not {digits[:40]!r}")
        self._leg.send_digits(digits)

    def hold(self, held: bool) -> None:
        """They hear music and we hear nothing, or everything is as before."""
        if held == self._held:
            return
        self._held = held
        self._leg.hold(held)
        if held:
            self.silence()
            self._music.start()
        else:
            self._music.stop()
        self._tell({"type": "parley.call.held" if held else "parley.call.resumed", "call_id": self.about.id})

    def watch(self, watcher: Callable[[dict[str, Any]], None]) -> Callable[[], None]:
        """``watcher`` gets every event of the session from now on; gives what ends that."""
        self._watchers.append(watcher)
        return lambda: self._watchers.remove(watcher)

    # --- out ------------------------------------------------

    def _emit(self, effect: Effect) -> None:
        match effect:
            case Send(event):
                self._notice(event)
            case Play():
                if self._recorder is not None:
                    self._recorder.ours(effect.pcm, self._loop.time())
                self._leg.speaker.play(effect)
            case Flush():
                if self._recorder is not None:
                    self._recorder.cut(self._loop.time())
                self._leg.speaker.cut()
            case Hangup():
                self._end(effect)

    def _notice(self, event: dict[str, Any]) -> None:
        kind = str(event.get("type"))
        if kind in _AUDIO_DONE:
            self._leg.speaker.finish()
        elif kind == "parley.playout.pause":
            self._leg.speaker.pause()
        elif kind == "parley.playout.resume":
            self._leg.speaker.resume()
        elif kind in _SPEAKING:
            self._speak(_SPEAKING[kind])
        elif kind == "response.done" and (doing := self._tools.asked(event)) is not None:
            task = self._loop.create_task(doing)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        self._tell(event)

    def _speak(self, speaking: bool) -> None:
        self._speaking = speaking
        if speaking:
            self._silent.clear()
        else:
            self._silent.set()
            if self._last_words:
                self._later("goodbye", GOODBYE_S, lambda: self.hang_up("the message is left"))

    def _tell(self, event: dict[str, Any]) -> None:
        if self._recorder is not None:
            self._recorder.note(event, self._loop.time())
        for watcher in [*self._watchers]:
            watcher(event)

    def _end(self, hangup: Hangup) -> None:
        self._over = self._over or hangup
        self._leg.hang_up(hangup)
