"""Pages of other sites (the Fetch standard's CORS): who may is ``Gate``'s business, this only tells browsers.

A browser asks first (a preflight OPTIONS without any key) and shows an answer to its page only when the server says so.
"""

from __future__ import annotations

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from transport.auth import Denied, Gate

API = ("/v1/", "/healthz")
ALLOWED = {
    "Access-Control-Allow-Methods": "GET, POST, OPTIONS",
    "Access-Control-Allow-Headers": "authorization, content-type",
    "Access-Control-Max-Age": "600",
}


class CrossOrigin:
    """Answers preflights for the API and marks its answers, for pages that ``gate`` lets use this server."""

    def __init__(self, app: ASGIApp, gate: Gate) -> None:
        self._app = app
        self._gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope) if scope["type"] == "http" else Headers()
        origin = headers.get("origin")
        if origin is None or not scope["path"].startswith(API) or not self._allows(headers):
            await self._app(scope, receive, send)
            return
        shown = {"Access-Control-Allow-Origin": origin, "Vary": "Origin"}
        if scope["method"] == "OPTIONS" and "access-control-request-method" in headers:
            asked = headers.get("access-control-request-headers")
            allowed = ALLOWED | ({"Access-Control-Allow-Headers": asked} if asked else {})
            await Response(status_code=204, headers=shown | allowed)(scope, receive, send)
            return

        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                answer = MutableHeaders(scope=message)
                answer.update(shown | {"Access-Control-Expose-Headers": "Location, Retry-After"})
            await send(message)

        await self._app(scope, receive, marked)

    def _allows(self, headers: Headers) -> bool:
        try:
            self._gate.check_origin(headers)
        except Denied:
            return False
        return True
