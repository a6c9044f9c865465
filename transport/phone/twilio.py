"""Twilio: the webhook that answers a call, and the bidirectional media stream it opens.

    POST /phone/twilio/voice   TwiML: <Connect><Stream url="wss://HOST/phone/twilio">, or <Reject>
    WS   /phone/twilio         JSON text frames; mu-law, 8 kHz, one channel, base64
       in   connected, start, media, dtmf, mark, stop
       out  media, mark, clear

Twilio signs both with the account's auth token: base64(HMAC-SHA1(token, URL + each form field's name and value, sorted
by name)). Without a token on our side, an API key is wanted instead, or, on a server that has none, this machine.
Formats: twilio.com/docs/voice/media-streams/websocket-messages and twilio.com/docs/usage/security.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl
from xml.sax.saxutils import quoteattr

from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket

from realtime.pcm import PCMU
from transport.auth import Denied
from transport.phone.call import Message, PhoneCall, WireError
from transport.phone.line import Line, deny, text_field
from transport.service import Service

log = logging.getLogger(__name__)

SIGNATURE = "x-twilio-signature"
STREAM = "/phone/twilio"
MAX_FORM_BYTES = 64 * 1024
BUSY = {"closed", "model_loading", "server_draining", "engine_failed"}
"""What a caller hears as a busy line: it may be otherwise later."""
_PORTS = {"https": ":443", "http": ":80", "wss": ":443", "ws": ":80"}


def routes() -> list[BaseRoute]:
    """What the app serves."""
    return [WebSocketRoute(STREAM, stream), Route(f"{STREAM}/voice", voice, methods=["POST"])]


# --- the webhook ------------------------------------------------


async def voice(request: Request) -> Response:
    """``POST /phone/twilio/voice``: a call comes in. Raises Denied."""
    service: Service = request.app.state.service
    config = service.config.phone
    form = await _form(request)
    admit(service, request, form)
    fields = dict(form)
    number, caller = fields.get("To", ""), fields.get("From", "")
    objection = config.objection(number, caller, datetime.now(UTC))
    if not objection:
        try:
            service.check_room()
        except Denied as denied:
            objection = denied.code
    if objection:
        log.info("twilio: a call is refused: %s", objection)
        service.metrics.refused(objection)
        return _twiml(f'<Reject reason="{"busy" if objection in BUSY else "rejected"}"/>')
    public = config.public_url.partition("://")[2] or request.headers.get("host", "")
    parameters = "".join(
        f"<Parameter name={quoteattr(name)} value={quoteattr(value)}/>"
        for name, value in (("number", number), ("caller", caller))
    )
    return _twiml(f"<Connect><Stream url={quoteattr(f'wss://{public}{STREAM}')}>{parameters}</Stream></Connect>")


def _twiml(verbs: str) -> Response:
    text = f'<?xml version="1.0" encoding="UTF-8"?><Response>{verbs}</Response>'
    return Response(text, media_type="application/xml")


async def _form(request: Request) -> list[tuple[str, str]]:
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_FORM_BYTES:
            raise Denied(413, "form_too_long", f"a call's form has at most {MAX_FORM_BYTES} bytes")
    return parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True)


# --- who may come in ------------------------------------------------


def admit(service: Service, request: HTTPConnection, form: Iterable[tuple[str, str]] = ()) -> None:
    """Raises Denied unless Twilio signed this, or, where we have no token, unless an API key would do."""
    config = service.config.phone
    if not config.twilio_auth_token:
        service.admit(request.headers)
        return
    given = request.headers.get(SIGNATURE, "").encode()
    urls = _urls(request, config.public_url)
    # Every spelling is compared, each in constant time.
    if sum(hmac.compare_digest(given, signature(config.twilio_auth_token, url, form)) for url in urls) == 0:
        raise Denied(403, "invalid_signature", "this request is not signed by Twilio, or for another URL or account")


def signature(token: str, url: str, form: Iterable[tuple[str, str]] = ()) -> bytes:
    """What ``X-Twilio-Signature`` must say."""
    signed = url + "".join(name + value for name, value in sorted(set(form)))
    return base64.b64encode(hmac.new(token.encode(), signed.encode(), hashlib.sha1).digest())


def _urls(request: HTTPConnection, public_url: str) -> Iterator[str]:
    """How Twilio may have called this URL: a proxy hides the scheme, and the port may be named or not."""
    hosts = {request.headers.get("host", ""), public_url.partition("://")[2]} - {""}
    path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    for scheme in ("wss", "ws") if request.scope["type"] == "websocket" else ("https", "http"):
        for host in hosts:
            bare = host.removesuffix(_PORTS[scheme])
            yield f"{scheme}://{bare}{path}"
            if ":" not in bare:
                yield f"{scheme}://{bare}{_PORTS[scheme]}{path}"


# --- the stream ------------------------------------------------


async def stream(websocket: WebSocket) -> None:
    """``WS /phone/twilio``."""
    service: Service = websocket.app.state.service
    try:
        admit(service, websocket)
        service.check_room()
    except Denied as denied:
        await deny(websocket, service, denied)
        return
    await websocket.accept()
    line = Line(websocket, service, "twilio")
    await line.run(MediaStream(line))


class MediaStream:
    """Twilio's side of one call. It can't hold its playback: what was sent is played or cleared."""

    pauses = False

    def __init__(self, line: Line) -> None:
        self._line = line
        self._sid = ""
        self._strange: set[str] = set()

    # --- in ---

    def take(self, message: Message) -> bool:
        """Raises WireError, ClientError."""
        event = _event(message)
        match event.get("event"):
            case "start":
                self._start(_table(event, "start"), text_field(event, "streamSid"))
            case "media":
                media = _table(event, "media")
                if media.get("track", "inbound") == "inbound":
                    self._call.hear(_payload(media))
            case "dtmf":
                self._call.press(text_field(_table(event, "dtmf"), "digit"))
            case "mark":
                self._call.came_back(text_field(_table(event, "mark"), "name"))
            case "stop":
                return True
            case "connected":
                pass
            case strange:
                self._wonder(str(strange))
        return False

    def _start(self, start: Mapping[str, Any], sid: str) -> None:
        if self._sid:
            raise WireError("start came twice")
        fmt = _table(start, "mediaFormat")
        if fmt.get("encoding") != "audio/x-mulaw" or str(fmt.get("sampleRate")) != "8000":
            raise WireError("the stream must be audio/x-mulaw at 8000 Hz")
        self._sid = sid
        custom = start.get("customParameters")
        named = custom if isinstance(custom, dict) else {}
        number, caller = (str(named.get(name, "")) for name in ("number", "caller"))
        if self._line.begin(number, caller, PCMU, self):
            self._call.start()

    @property
    def _call(self) -> PhoneCall:
        if self._line.call is None:
            raise WireError("the call's start must come first")
        return self._line.call

    def _wonder(self, kind: str) -> None:
        """Twilio adds kinds of events now and then: each is said once."""
        if kind not in self._strange and len(self._strange) < 10:
            self._strange.add(kind)
            log.warning("twilio: an event of an unknown kind: %.40r", kind)

    # --- out ---

    def media(self, frame: bytes, mark: str) -> Iterable[Message]:
        yield self._say("media", media={"payload": base64.b64encode(frame).decode()})
        yield self._say("mark", mark={"name": mark})

    def clear(self) -> Iterable[Message]:
        return [self._say("clear")]

    def pause(self) -> Iterable[Message]:
        return []

    def resume(self) -> Iterable[Message]:
        return []

    def hang_up(self) -> Iterable[Message]:
        return []  # the end of the socket is the end of <Connect>

    def _say(self, event: str, **body: Any) -> str:
        return json.dumps({"event": event, "streamSid": self._sid, **body})


def _event(message: Message) -> dict[str, Any]:
    if isinstance(message, bytes):
        raise WireError("a binary frame: events are JSON in text frames")
    try:
        event = json.loads(message)
    except (ValueError, RecursionError):
        raise WireError("an event that is not JSON") from None
    if not isinstance(event, dict):
        raise WireError("an event that is no object")
    return event


def _table(event: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = event.get(name)
    if not isinstance(value, dict):
        raise WireError(f"{name} must be an object")
    return value


def _payload(media: Mapping[str, Any]) -> bytes:
    try:
        return base64.b64decode(text_field(media, "payload"), validate=True)
    except (binascii.Error, ValueError):
        raise WireError("a payload that is not base64") from None
