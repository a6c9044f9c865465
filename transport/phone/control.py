"""Calls under an application's control, over HTTP.

    POST /v1/realtime/calls/{id}/accept    the session it shall have, {} for the policy's own
    POST /v1/realtime/calls/{id}/reject    {"status_code": 603}
    POST /v1/realtime/calls/{id}/refer     {"target_uri": "tel:+4930123456"}, or {"call_id": ...}: an attended transfer
                                           to whom we talk to in another call
    POST /v1/realtime/calls/{id}/hangup
    POST /v1/realtime/calls/{id}/dtmf      {"digits": "123#"}
    POST /v1/realtime/calls/{id}/hold      {"hold": true}
    POST /v1/phone/calls                   {"to": ..., "number": ..., "session": {...}} -> 201, {"id": ...}

The first four as in the OpenAI Realtime API; the others are additions.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from realtime.errors import InvalidField
from realtime.protocol import load
from transport.auth import Denied
from transport.phone.calls import DECLINED, PhoneCalls, Turned
from transport.phone.tools import Unable
from transport.service import Service

CALLS = "/v1/realtime/calls"
MAX_BODY_BYTES = 1024 * 1024
Endpoint = Callable[[Request], Awaitable[Response]]


def routes(webrtc_hangup: Endpoint) -> list[BaseRoute]:
    """Over ``app.state.phone``; a call that isn't the telephone's is hung up by ``webrtc_hangup``."""

    async def hangup(request: Request) -> Response:
        if request.path_params["id"] not in _calls(request):
            return await webrtc_hangup(request)
        return await _hangup(request)

    actions = {
        "accept": accept, "reject": reject, "refer": refer, "hangup": hangup, "dtmf": dtmf, "hold": hold,
    }  # fmt: skip
    return [
        *(Route(f"{CALLS}/{{id}}/{name}", action, methods=["POST"]) for name, action in actions.items()),
        Route("/v1/phone/calls", create, methods=["POST"]),
    ]


async def accept(request: Request) -> Response:
    """The call is answered, with this session."""
    calls, body = await _admitted(request)
    calls.accept(request.path_params["id"], body)
    return Response(status_code=200)


async def reject(request: Request) -> Response:
    """The call is not answered."""
    calls, body = await _admitted(request)
    status = body.get("status_code", DECLINED)
    if type(status) is not int or not 400 <= status <= 699:
        raise InvalidField("status_code must be a SIP status from 400 to 699", param="status_code")
    calls.reject(request.path_params["id"], status)
    return Response(status_code=200)


async def refer(request: Request) -> Response:
    """The caller is sent on; 200 once that has worked."""
    calls, body = await _admitted(request)
    call = calls.find(request.path_params["id"])
    if "call_id" in body:
        return await _able(call.join(calls.find(_string(body, "call_id"))))
    target = _string(body, "target_uri")
    if not target.startswith(("sip:", "sips:", "tel:")):
        raise InvalidField("target_uri must be a sip: or tel: address", param="target_uri")
    return await _able(call.transfer(target))


async def _hangup(request: Request) -> Response:
    calls, _ = await _admitted(request)
    id_ = request.path_params["id"]
    if calls.rings(id_):
        calls.reject(id_, DECLINED)
    else:
        calls.find(id_).hang_up()
    return Response(status_code=200)


async def dtmf(request: Request) -> Response:
    """Keys are pressed."""
    calls, body = await _admitted(request)
    call = calls.find(request.path_params["id"])
    digits = _string(body, "digits")

    async def press() -> None:
        call.send_digits(digits)

    return await _able(press())


async def hold(request: Request) -> Response:
    """Music, or on with the conversation."""
    calls, body = await _admitted(request)
    call = calls.find(request.path_params["id"])
    held = body.get("hold", True)
    if type(held) is not bool:
        raise InvalidField("hold must be true or false", param="hold")
    call.hold(held)
    return Response(status_code=200)


async def create(request: Request) -> Response:
    """We call somebody; answered at once, while it rings."""
    calls, body = await _admitted(request)
    session = body.get("session") or {}
    if not isinstance(session, dict):
        raise InvalidField("session must be an object", param="session")
    number = body.get("number", "")
    if not isinstance(number, str):
        raise InvalidField("number must be a string", param="number")
    _service(request).check_room()
    _service(request).settings(session)
    try:
        id_ = calls.dial(_string(body, "to"), number, session)
    except Turned as turned:
        status, text = _TURNED.get(turned.code, (503, "this call can't be made now"))
        raise Denied(status, turned.code, text) from None
    return JSONResponse({"id": id_, "status": "ringing"}, 201, {"Location": f"{CALLS}/{id_}"})


_TURNED = {
    "callee_not_allowed": (403, "this number may not be called: name it in [outbound] of the phone configuration"),
    "number_not_served": (404, "there is no such number of ours, and no [default], in the phone configuration"),
    "no_sip": (501, "this server has no SIP endpoint: add [sip] to the phone configuration"),
    "no_trunk": (501, "a number needs a trunk: add [trunk] to the phone configuration, or call a sip: address"),
    "bad_address": (400, "to must be a number (+4930123456) or an address (sip:USER@HOST)"),
    "too_many_calls": (429, "as many calls as the number's policy allows go on"),
}


# --- what all have in common ------------------------------------------------


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


def _calls(request: Request) -> PhoneCalls:
    calls: PhoneCalls = request.app.state.phone
    return calls


async def _admitted(request: Request) -> tuple[PhoneCalls, Mapping[str, Any]]:
    """The calls and the JSON object that was posted, for those who hold an API key. Raises Denied, ClientError."""
    if not _service(request).admit(request.headers).with_key:
        raise Denied(403, "api_key_needed", "a client secret opens sessions only; this needs an API key")
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_BODY_BYTES:
            raise InvalidField(f"the body is longer than {MAX_BODY_BYTES} bytes")
    return _calls(request), load(body) if body.strip() else {}


def _string(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str) or not value:
        raise InvalidField(f"{name} must be a string", param=name)
    return value


async def _able(doing: Awaitable[None]) -> Response:
    try:
        await doing
    except Unable as error:
        raise Denied(409, "not_possible", str(error)) from None
    return Response(status_code=200)
