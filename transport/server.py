"""The process that serves: uvicorn with Parley's limits, and an end that lets calls finish."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import uvicorn

from transport.app import PING_S, create_app
from transport.service import Service
from transport.websocket import MAX_FRAME_BYTES

log = logging.getLogger(__name__)


def _worth_logging(record: logging.LogRecord) -> bool:
    """uvicorn 0.54 takes a refusal with an HTTP answer for a mistake of the app, and says so at level ERROR."""
    return "without completing handshake" not in record.getMessage()


logging.getLogger("uvicorn.error").addFilter(_worth_logging)


def check_address(host: str, port: int) -> None:
    """Raises OSError, in words for who started the server, where nobody can listen there. Found out now, it costs
    nothing; found out by uvicorn, a model has been loaded for it."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        what = f"nobody can listen on --host {host} --port {port} ({error.strerror})"
        raise OSError(f"{what}: choose another port, 0 for any free one, or an address of this machine") from None


@dataclass(frozen=True)
class Tls:
    """A certificate chain and its key, PEM. Beyond localhost browsers give a microphone to https pages only."""

    cert: Path
    key: Path

    def __post_init__(self) -> None:
        """Raises ValueError where they can't be used."""
        try:
            ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(self.cert, self.key)
        except (OSError, ssl.SSLError) as error:
            raise ValueError(
                f"--tls-cert {self.cert} and --tls-key {self.key} can't be used ({error}): "
                "they must be a certificate and its key, both in PEM, the key without a password"
            ) from None


class Server(uvicorn.Server):
    """SIGTERM drains: no new sessions, those that are there may finish. SIGINT, or a second SIGTERM, ends at once."""

    def __init__(self, service: Service, host: str, port: int, tls: Tls | None = None) -> None:
        self._app = create_app(service)
        config = uvicorn.Config(
            self._app,
            host=host,
            port=port,
            log_config=None,  # logging is the program's business
            access_log=False,
            ws="websockets-sansio",
            ws_max_size=MAX_FRAME_BYTES,
            ws_ping_interval=PING_S,
            ws_ping_timeout=PING_S,
            ws_per_message_deflate=False,  # base64 of speech hardly shrinks, and costs a core
            timeout_graceful_shutdown=10,
            ssl_certfile=tls.cert if tls else None,
            ssl_keyfile=tls.key if tls else None,
        )
        super().__init__(config)
        self._service = service
        self._loop: asyncio.AbstractEventLoop | None = None
        self._told_to_drain = False
        self._draining: asyncio.Task[None] | None = None
        self.listening = asyncio.Event()
        """Set when the port is open; the model may still be loading."""

    async def startup(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        """Listens, and watches the model load: a server whose model can't be loaded stops."""
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)  # type: ignore[arg-type]
        host, port = self.servers[0].sockets[0].getsockname()[:2]
        shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        s = "s" if self.config.is_ssl else ""
        log.info("listening on http%s://%s, sessions on ws%s://%s/v1/realtime", s, shown, s, shown)
        self._watching = asyncio.create_task(self._watch())
        self.listening.set()

    async def _watch(self) -> None:
        await self._service.loaded()
        if self._service.failure:
            self.should_exit = True

    async def shutdown(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        """Sockets close; sessions that wait for theirs to come back end."""
        self._app.state.returns.close()
        await super().shutdown(sockets)  # type: ignore[arg-type]

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal came (in the main thread, between two bytecodes)."""
        if sig == signal.SIGTERM and not self._told_to_drain and self._loop is not None:
            self._told_to_drain = True
            self._loop.call_soon_threadsafe(self._drain)
        else:
            super().handle_exit(sig, frame)

    def _drain(self) -> None:
        log.info("SIGTERM: %d sessions may finish, new ones are refused", self._service.sessions)
        self._draining = asyncio.create_task(self._drain_and_exit())

    async def _drain_and_exit(self) -> None:
        await self._service.drain()
        self.should_exit = True
