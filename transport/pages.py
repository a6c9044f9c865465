"""The pages: the web client at ``/``, the kiosk at ``/kiosk/``, laid out as in ``clients/``, so that a static host of
that folder serves the same.

Their scripts may be loaded by anybody's page (one tag is enough to embed the element); whether that page may then talk
to this server is the gate's business.
"""

from __future__ import annotations

from pathlib import Path

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Message, Receive, Scope, Send

HERE = Path(__file__).resolve().parent
CLIENTS = next(
    (found for found in (HERE / "clients", HERE.parent / "clients") if (found / "web").is_dir()),
    HERE.parent / "clients",
)
"""Beside this file in an installed wheel (setup.py), beside the packages in a checkout."""

WITHOUT_CLIENTS = """<!doctype html><html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Parley</title><style>body{font:1.1rem/1.6 system-ui;max-width:40rem;margin:4rem auto;padding:0 1rem}</style>
<h1>Parley</h1><p>A real-time voice and video agent server. It speaks the OpenAI Realtime API at
<code>/v1/realtime</code> (WebSocket) and <code>/v1/realtime/calls</code> (WebRTC).</p><p>Try it from a terminal:
<code>parley call question.wav --out answer.wav</code></p>
<p><a href="/healthz">/healthz</a> &middot; <a href="/metrics">/metrics</a></p></html>"""


class PublicFiles(StaticFiles):
    """Static files that pages of other sites may load."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def shared(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["Access-Control-Allow-Origin"] = "*"
                headers["Cache-Control"] = "no-cache"  # asks whether it has changed: a new server brings a new page
            await send(message)

        await super().__call__(scope, receive, shared)


def routes(clients: Path = CLIENTS) -> list[BaseRoute]:
    """Everything that is not the API; the last of the app's routes."""
    web, kiosk = clients / "web", clients / "kiosk"
    if not (web / "index.html").is_file():
        return [Route("/", few_words)]
    found: list[BaseRoute] = [
        Route("/", lambda _: FileResponse(web / "index.html", headers={"Cache-Control": "no-cache"})),
        Mount("/web", PublicFiles(directory=web, html=True)),
    ]
    if kiosk.is_dir():
        found += [
            Route("/kiosk", lambda _: RedirectResponse("/kiosk/")),
            Mount("/kiosk", PublicFiles(directory=kiosk, html=True)),
        ]
    return [*found, Mount("/", PublicFiles(directory=web))]


async def few_words(_: Request) -> Response:
    """Where the clients are not installed."""
    return HTMLResponse(WITHOUT_CLIENTS)
