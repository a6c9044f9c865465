"""The ASGI app: routes over one ``Service``. Composition happens in ``cli``; importing this never loads torch."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute

from realtime.errors import ClientError, InvalidField
from realtime.protocol import load
from realtime.protocol_beta import session_to_beta
from realtime.settings import Dialect, session_object
from transport import metrics, pages, webrtc
from transport.auth import SECRET_DEFAULT_SECONDS, Denied, Secret
from transport.cors import CrossOrigin
from transport.phone import asterisk, control, sip_endpoint, telnyx, twilio
from transport.phone.calls import PhoneCalls
from transport.resume import Returns
from transport.service import Service
from transport.webrtc import RtcCalls
from transport.websocket import Connection, realtime

PING_S = 20.0
"""Interval of WebSocket pings, and how long an answer may take."""
MAX_BODY_BYTES = 1024 * 1024


def create_app(service: Service) -> Starlette:
    """The app; its lifespan starts and stops the service."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        service.start()
        app.state.sip = await sip_endpoint.started(service, app.state.phone)
        yield
        if app.state.sip is not None:
            await app.state.sip.stop()
        await app.state.calls.stop()
        await service.stop()

    app = Starlette(
        routes=_routes(),
        lifespan=lifespan,
        middleware=[Middleware(CrossOrigin, service.gate)],
        exception_handlers={Denied: _denied, ClientError: _refused},
    )
    app.state.service, app.state.calls, app.state.phone = service, RtcCalls(service), PhoneCalls(service)
    returns: Returns[Connection] = Returns()
    app.state.returns = returns
    return app


def _routes() -> list[BaseRoute]:
    return [
        WebSocketRoute("/v1/realtime", realtime),
        Route("/v1/realtime/client_secrets", _guarded(client_secrets), methods=["POST"]),
        Route("/v1/realtime/sessions", _guarded(beta_sessions), methods=["POST"]),
        *control.routes(webrtc.hangup),
        *webrtc.routes(),
        *twilio.routes(),
        *telnyx.routes(),
        *asterisk.routes(),
        Route("/v1/models", _guarded(list_models)),
        Route("/metrics", _guarded(show_metrics)),
        Route("/healthz", healthz),
        *pages.routes(),
    ]


def _guarded(endpoint: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """Only for those who hold an API key: a client secret opens sessions and nothing else."""

    async def guarded(request: Request) -> Response:
        if not _service(request).admit(request.headers).with_key:
            raise Denied(403, "api_key_needed", "a client secret opens sessions only; this needs an API key")
        return await endpoint(request)

    return guarded


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


async def _denied(_: Request, error: Exception) -> Response:
    assert isinstance(error, Denied)
    headers = {"Retry-After": str(error.retry_after_s)} if error.retry_after_s else None
    return JSONResponse(error.as_error(), error.status, headers)


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, ClientError)
    return JSONResponse({"error": error.as_error()}, 400)


# --- client secrets ------------------------------------------------


async def client_secrets(request: Request) -> Response:
    """``POST /v1/realtime/client_secrets``: something a browser may hold, bound to a session configuration."""
    body = await _body(request)
    session = body.get("session") or {}
    life = body.get("expires_after") or {}
    if not isinstance(session, dict):
        raise InvalidField("session must be an object", param="session")
    seconds = life.get("seconds", SECRET_DEFAULT_SECONDS) if isinstance(life, dict) else None
    if type(seconds) is not int:  # true is an int, and no number of seconds
        raise InvalidField("expires_after must be an object with whole seconds", param="expires_after")
    secret, effective = _issue(_service(request), session, seconds, Dialect.GA)
    return JSONResponse({"value": secret.value, "expires_at": int(secret.expires_at_s), "session": effective})


async def beta_sessions(request: Request) -> Response:
    """``POST /v1/realtime/sessions``, the beta's way: the body is the session, the answer too."""
    secret, effective = _issue(_service(request), await _body(request), SECRET_DEFAULT_SECONDS, Dialect.BETA)
    client_secret = {"value": secret.value, "expires_at": int(secret.expires_at_s)}
    return JSONResponse({**session_to_beta(effective), "client_secret": client_secret})


def _issue(service: Service, session: dict[str, Any], seconds: int, dialect: Dialect) -> tuple[Secret, dict[str, Any]]:
    """Raises ClientError for a session that could not be opened with it."""
    service.check_room()
    settings = service.settings(session, dialect)
    try:
        secret = service.gate.secrets.issue(session, seconds, time.time())
    except ValueError as error:
        raise InvalidField(str(error), param="expires_after.seconds") from None
    return secret, session_object(settings, "", int(secret.expires_at_s))


async def _body(request: Request) -> dict[str, Any]:
    """The JSON object that was posted; an empty body is an empty object. Raises InvalidField."""
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_BODY_BYTES:
            raise InvalidField(f"the body is longer than {MAX_BODY_BYTES} bytes")
    return load(body) if body.strip() else {}


# --- what is here ------------------------------------------------


async def list_models(request: Request) -> Response:
    """``GET /v1/models``: the one that is served."""
    model = {"id": _service(request).config.model, "object": "model", "created": 0, "owned_by": "parley"}
    return JSONResponse({"object": "list", "data": [model]})


async def healthz(request: Request) -> Response:
    """The truth: 200 when a session could be opened now."""
    service = _service(request)
    body: dict[str, Any] = {"status": service.state, "model": service.config.model, "sessions": service.sessions}
    if service.failure:
        body["failure"] = service.failure
    return JSONResponse(body, 200 if service.state == "alive" else 503)


async def show_metrics(request: Request) -> Response:
    """For Prometheus; ``Authorization: Bearer KEY`` where the server has a key."""
    return Response(_service(request).metrics.page(), media_type=metrics.CONTENT_TYPE)
