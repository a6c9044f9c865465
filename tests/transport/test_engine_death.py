"""The engine is killed in the middle of eight calls: each is told once, /healthz tells the truth, all may come back."""

from __future__ import annotations

import asyncio
import os
import signal

from realtime.host_process import EngineProcess
from realtime.schedule import EngineConfig
from tests.realtime.doubles import load_toy
from tests.transport.live import PATIENCE_S, LiveServer, RawClient

CALLS = 8


class Watch:
    """Asks /healthz over and over, and whether the engine lived before and after each answer."""

    def __init__(self, server: LiveServer, host: EngineProcess) -> None:
        self.server, self.host = server, host
        self.said: list[tuple[bool, int, str, bool]] = []

    async def run(self) -> None:
        while True:
            before = self.host.alive
            answer = await asyncio.to_thread(self.server.get, "/healthz")
            self.said.append((before, answer.status_code, answer.json()["status"], self.host.alive))
            await asyncio.sleep(0.01)

    def lies(self) -> list[tuple[bool, int, str, bool]]:
        """Answers that say something else than what was so all the while it was asked."""
        return [
            line for line in self.said if line[0] == line[3] and (line[1], line[2]) != (
                (200, "alive") if line[0] else (503, "dead")
            )
        ]  # fmt: skip


async def in_a_reply(client: RawClient) -> None:
    """Asks for something to be said, and hears it begin."""
    content = [{"type": "input_text", "text": "Tell me something long."}]
    await client.send("conversation.item.create", item={"type": "message", "role": "user", "content": content})
    await client.send("response.create")
    await client.until("response.output_audio.delta")


async def fate(client: RawClient) -> tuple[list[str], tuple[int, str]]:
    """The errors that follow, and how the socket is closed."""
    began = len(client.seen)
    ending = await client.closed()
    return [event["error"]["code"] for event in client.seen[began:] if event["type"] == "error"], ending


async def test_eight_calls_are_told_once_and_may_come_back() -> None:
    host = EngineProcess(load_toy, EngineConfig(speaking_share=0.01))
    with LiveServer(host=host) as server:
        watch = Watch(server, host)
        watching = asyncio.create_task(watch.run())
        async with asyncio.timeout(PATIENCE_S):
            entered = [RawClient.connect(server) for _ in range(CALLS)]
            clients = [await client.__aenter__() for client in entered]
            await asyncio.gather(*(in_a_reply(client) for client in clients))
            assert host.pid is not None
            os.kill(host.pid, signal.SIGKILL)
            fates = await asyncio.gather(*(fate(client) for client in clients))
            for errors, (code, _) in fates:
                assert (errors, code) == (["engine_failed"], 1011)
            for client in entered:
                await client.__aexit__(None, None, None)
            while (await asyncio.to_thread(server.get, "/healthz")).status_code != 200:
                await asyncio.sleep(0.05)
            for _ in range(2):
                async with RawClient.connect(server) as client:
                    assert (await client.ask("Where were we?"))["response"]["status"] == "completed"
            while (await asyncio.to_thread(server.get, "/healthz")).json()["sessions"]:
                await asyncio.sleep(0.05)
        watching.cancel()
        assert not watch.lies()
        told = {status for _, _, status, _ in watch.said}
        assert {"alive", "dead"} <= told
        assert host.stats()["restarts"] == 1
