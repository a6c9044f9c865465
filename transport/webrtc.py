"""``/v1/realtime/calls``: the OpenAI Realtime API over WebRTC.

    POST /v1/realtime/calls              an SDP offer (application/sdp), or multipart: ``sdp`` and ``session``
                                         -> 201, the SDP answer, ``Location: /v1/realtime/calls/{id}``
    POST /v1/realtime/calls/{id}         an extension: another offer for a call that goes on. Of the same peer
                                         connection: a renegotiation (another track). Of a new one: the network
                                         changed; the session waits for `service.GRACE_S`, and the id resumes it
    POST /v1/realtime/calls/{id}/hangup  200

The data channel ``oai-events`` carries the events that a WebSocket carries, without audio in them: speech goes over
RTP, and ``output_audio_buffer.started / stopped / cleared`` say when. What a caller says before the channel is open is
heard: the session begins with the offer.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from typing import Any

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from realtime.errors import InvalidField
from realtime.protocol import load
from realtime.settings import Dialect
from transport.auth import Denied
from transport.rtc_call import RtcCall
from transport.rtc_line import MAX_SDP_BYTES
from transport.service import Service

CALLS = "/v1/realtime/calls"
MAX_SESSION_BYTES = 1024 * 1024


class RtcCalls:
    """The calls that go on, by id."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._calls: dict[str, RtcCall] = {}
        self._running: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._calls)

    async def begin(self, offer: str, session: Mapping[str, Any]) -> tuple[str, str]:
        """(id, SDP answer). Raises Denied when there is no room, ClientError for a bad offer or session."""
        self._service.check_room()
        settings = self._service.settings(session, Dialect.GA)
        id_ = "rtc_" + secrets.token_urlsafe(18)
        call = RtcCall(id_, self._service, settings, lambda: self._forget(id_))
        try:
            answer = await call.answer(offer)
            if reason := await call.refused():
                raise Denied(503, reason, "no session can be opened now: every slot is taken", 5)
        except BaseException:
            call.hang_up()
            self._run(call)
            raise
        self._calls[id_] = call
        self._run(call)
        return id_, answer

    def find(self, id_: str) -> RtcCall:
        """Raises Denied (404)."""
        if id_ not in self._calls:
            raise Denied(404, "call_not_found", "there is no such call: it has ended, or never was")
        return self._calls[id_]

    async def stop(self) -> None:
        """Hangs up on everybody, and waits until all is released."""
        for call in list(self._calls.values()):
            call.hang_up()
        await asyncio.gather(*self._running, return_exceptions=True)

    def _forget(self, id_: str) -> None:
        self._calls.pop(id_, None)

    def _run(self, call: RtcCall) -> None:
        task = asyncio.create_task(call.run())
        self._running.add(task)
        task.add_done_callback(self._running.discard)


def routes() -> list[BaseRoute]:
    """Over ``app.state.service`` and ``app.state.calls``."""
    return [
        Route(CALLS, create, methods=["POST"]),
        Route(CALLS + "/{id}", reconnect, methods=["POST"]),
        Route(CALLS + "/{id}/hangup", hangup, methods=["POST"]),
    ]


async def create(request: Request) -> Response:
    """``POST /v1/realtime/calls``."""
    service: Service = request.app.state.service
    calls: RtcCalls = request.app.state.calls
    try:
        caller = service.admit(request.headers)
        offer, session = await _offer(request)
        id_, answer = await calls.begin(offer, {**(caller.session or {}), **session})
    except Denied as denied:
        service.metrics.refused(denied.code)
        raise
    return _answered(answer, 201, {"Location": f"{CALLS}/{id_}"})


async def reconnect(request: Request) -> Response:
    """``POST /v1/realtime/calls/{id}``: the same session, on the same peer connection or a new one."""
    call = _call(request)
    offer, _ = await _offer(request)
    return _answered(await call.answer(offer), 200, {"Location": f"{CALLS}/{call.id}"})


async def hangup(request: Request) -> Response:
    """``POST /v1/realtime/calls/{id}/hangup``."""
    _call(request).hang_up()
    return Response(status_code=200)


def _call(request: Request) -> RtcCall:
    """Whose id is known to the caller alone; a key or secret is needed as well."""
    service: Service = request.app.state.service
    service.admit(request.headers)
    calls: RtcCalls = request.app.state.calls
    return calls.find(request.path_params["id"])


def _answered(answer: str, status: int, headers: dict[str, str]) -> Response:
    return PlainTextResponse(answer, status, headers, media_type="application/sdp")


# --- what was posted ------------------------------------------------


async def _offer(request: Request) -> tuple[str, dict[str, Any]]:
    """(SDP, session configuration). Raises InvalidField."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return await _form(request)
    if kind not in ("application/sdp", "text/plain", ""):
        raise InvalidField(f"send the offer as application/sdp or multipart/form-data, not {kind[:100]}", param="sdp")
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_SDP_BYTES:
            raise InvalidField(f"an SDP offer is at most {MAX_SDP_BYTES} bytes long", param="sdp")
    return body.decode(errors="replace"), {}


async def _form(request: Request) -> tuple[str, dict[str, Any]]:
    try:
        async with request.form(max_files=2, max_fields=4, max_part_size=MAX_SESSION_BYTES) as form:
            parts = {name: await _text(part) for name, part in form.items()}
    except HTTPException as error:  # starlette's word for a malformed or too large form
        raise InvalidField(f"this form can't be read: {error.detail}") from None
    if "sdp" not in parts:
        raise InvalidField("the form has no part named sdp", param="sdp")
    session = parts.get("session", "").strip()
    return parts["sdp"], load(session) if session else {}


async def _text(part: UploadFile | str) -> str:
    if isinstance(part, str):
        return part
    return (await part.read(MAX_SESSION_BYTES)).decode(errors="replace")
