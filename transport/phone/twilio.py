"""Twilio: the webhook that answers a call with a media stream, and who may come in. The stream is ``media_stream``'s.

    POST /phone/twilio/voice   TwiML: <Connect><Stream url="wss://HOST/phone/twilio">, or <Reject>
    WS   /phone/twilio         the stream

Twilio signs both with the account's auth token: base64(HMAC-SHA1(token, URL + each form field's name and value, sorted
by name)). Without a token on our side, an API key is wanted instead, or, on a server that has none, this machine.
Formats: twilio.com/docs/voice/twiml/stream and twilio.com/docs/usage/security.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
from collections.abc import Iterable, Iterator
from urllib.parse import parse_qsl
from xml.sax.saxutils import quoteattr

from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket

from transport.auth import Denied
from transport.phone.call import About
from transport.phone.calls import PhoneCalls, Turned
from transport.phone.line import Line, deny
from transport.phone.media_stream import TWILIO, MediaStream
from transport.service import Service

log = logging.getLogger(__name__)

SIGNATURE = "x-twilio-signature"
STREAM = "/phone/twilio"
MAX_FORM_BYTES = 64 * 1024
BUSY = {"closed", "too_many_calls", "model_loading", "server_draining", "engine_failed"}
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
    calls: PhoneCalls = request.app.state.phone
    about = About(fields.get("CallSid", ""), "twilio", number, caller)
    try:
        calls.policy(about)
    except Turned as turned:
        calls.refused(about, turned.code)
        return _twiml(f'<Reject reason="{"busy" if turned.code in BUSY else "rejected"}"/>')
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
    calls: PhoneCalls = websocket.app.state.phone
    try:
        admit(service, websocket)
        service.check_room()
    except Denied as denied:
        await deny(websocket, service, denied)
        return
    await websocket.accept()
    line = Line(websocket, service, calls, "twilio")
    await line.run(MediaStream(line, TWILIO))
