"""A server of the toy model in a process of its own, for tests of signals: prints its port when it is ready."""

from __future__ import annotations

import asyncio
import sys

from realtime.host import EngineThread
from tests.realtime.doubles import toy_model
from tests.transport.live import PATIENCE_S
from transport.auth import Gate
from transport.server import Server
from transport.service import Service, ServiceConfig


async def announce(server: Server, service: Service) -> None:
    await server.listening.wait()
    await service.loaded()
    print(server.servers[0].sockets[0].getsockname()[1], flush=True)


async def main() -> None:
    service = Service(EngineThread(toy_model), Gate(), ServiceConfig("toy", drain_s=PATIENCE_S))
    server = Server(service, "127.0.0.1", 0)
    told = asyncio.create_task(announce(server, service))
    await server.serve()
    await told


asyncio.run(main())
sys.exit(0)
