"""The wire: the OpenAI Realtime API (GA), both ways. Start reading here.

    text --parse--> ClientMessage --> session --> server events --spell--> what this client is sent

What each file is about:

    protocol_messages   what a client can say: thirteen frozen dataclasses
    protocol_parse      one event of the wire -> one of them, or one error that names the field
    protocol_validate   JSON of sane depth; the API's own pydantic types; the path of a wrong field
    protocol_beta       older spellings (the API's beta, Qwen-Omni-Realtime), in and out
    protocol_events     what the server says: a builder for each event
    protocol_response   the events of one response, in their order
    settings            what ``session.update`` may set, and the session object

Here is what a session and a transport call, and where an error of a later stage (a threshold of 7, half a sample) gets
the name that the client gave to the field.

Extensions, all additive: ``input_image_buffer.append {image}`` (base64 JPEG, one camera frame), ``parley.playback
{item_id, played_ms | samples}`` from the client; ``parley.latency`` and ``parley.heard`` (after a truncation: the words
that are left) from the server; ``parley_rate_hz`` in a format of type audio/pcm, and ``temperature``, ``top_p``,
``top_k``, ``repetition_penalty``, ``seed`` and ``parley_summarise`` in the session object; ``parley_say`` in a
``response.create`` is said word for word, where the model would decide.
"""

from __future__ import annotations

from dataclasses import replace

from models.base import Pcm
from realtime import pcm
from realtime.errors import ClientError
from realtime.pcm import AudioFormat
from realtime.protocol_beta import spell
from realtime.protocol_events import Event, Ids
from realtime.protocol_messages import AppendAudio, ClientMessage, CreateResponse, SessionUpdate
from realtime.protocol_parse import parse
from realtime.protocol_response import ResponseWriter
from realtime.protocol_validate import load, respelled
from realtime.settings import Dialect, Settings, override, session_object, update

__all__ = [
    "ClientMessage",
    "Dialect",
    "Event",
    "Ids",
    "ResponseWriter",
    "Settings",
    "load",
    "parse",
    "response_settings",
    "samples_of",
    "session_object",
    "spell",
    "updated",
]


def updated(settings: Settings, message: SessionUpdate) -> Settings:
    """The settings after ``session.update``. Raises InvalidField with nothing changed.

    A client that spells like the beta is answered like the beta.
    """
    try:
        new = update(settings, message.session)
    except ClientError as error:
        raise _told(error, message) from None
    return replace(new, dialect=Dialect.BETA) if message.beta else new


def response_settings(settings: Settings, message: CreateResponse) -> Settings:
    """The settings of the one response that ``response.create`` asks for. Raises InvalidField."""
    try:
        return override(settings, message.response)
    except ClientError as error:
        raise _told(error, message) from None


def samples_of(message: AppendAudio, fmt: AudioFormat) -> Pcm:
    """float32 [n] at ``fmt.rate_hz``. Raises InvalidAudio for an odd byte count of pcm16."""
    try:
        return pcm.decode(message.audio, fmt)
    except ClientError as error:
        raise type(error)(error.message, param="audio", event_id=message.event_id) from None


def _told(error: ClientError, message: SessionUpdate | CreateResponse) -> ClientError:
    """The error in the client's own words."""
    ga = error.param or ""
    own = respelled(ga, message.spelled)
    return type(error)(error.message.replace(ga, own) if ga else error.message, param=own, event_id=message.event_id)
