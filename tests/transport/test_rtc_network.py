"""Calls over bad networks, by bad callers, and very many of them."""

from __future__ import annotations

import asyncio
import os
import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from aiortc import RTCSessionDescription

from models.base import Pcm
from tests import soak
from tests.transport.bad_network import Impaired, Network, impair, protocols
from tests.transport.live import PATIENCE_S, LiveServer
from tests.transport.rtc_peer import CALLS, Peer, Voice, post
from transport import rtc_call, rtc_line
from transport.inbox import Inbox
from transport.rtc_audio import OPUS_HZ, Microphone, RtpPacket

RATE = 16000


async def wait_for(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.02)


class RecordingMicrophone(Microphone):
    """Knows what came, and what of it was heard."""

    made: list[RecordingMicrophone]

    def __init__(self, rate_hz: int, hear: Callable[[Pcm], None]) -> None:
        super().__init__(rate_hz, hear)
        self.packets: list[tuple[int, int]] = []  # sequence number, timestamp
        self.samples = 0
        RecordingMicrophone.made.append(self)

    def add(self, packet: RtpPacket) -> tuple[bool, None]:
        self.packets.append((packet.sequence_number, packet.timestamp))
        return super().add(packet)

    def _give(self, pcm: Pcm) -> None:
        self.samples += len(pcm)
        super()._give(pcm)


NETWORKS = [Network(0.01), Network(0.05), Network(0.10), Network(0.0, 0.05), Network(0.05, 0.05)]


@pytest.mark.parametrize("network", NETWORKS, ids=str)
async def test_a_question_over_a_bad_network_is_heard_and_answered(
    server: LiveServer, question: Path, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    RecordingMicrophone.made = []
    monkeypatch.setattr(rtc_line, "Microphone", RecordingMicrophone)
    voice = Voice(question)
    voice.begin_on = asyncio.Event()
    async with Peer.call(server, voice) as peer:
        ways = impair(peer.peer, network)
        voice.begin_on.set()
        await peer.until("response.done")
        await wait_for(lambda: voice.count > 300)
    (microphone,) = RecordingMicrophone.made
    lost = sum(way.lost for way in ways) / sum(way.sent for way in ways)
    numbers = [number for number, _ in microphone.packets]
    if network.jitter_s:
        assert numbers != sorted(numbers), "packets overtook each other"
    # Time in the stream is time at the microphone, whatever was lost...
    last = max(microphone.packets)[1] - microphone.packets[0][1]
    assert abs(microphone.samples - last) <= 0.1 * OPUS_HZ
    # ...and hardly more is concealed than was lost (a machine that stalls sends bursts; test_rtc_audio.py is exact).
    assert microphone.concealed_samples / microphone.samples <= lost + 0.03


async def test_how_far_away_they_are_is_measured(server: LiveServer, question: Path) -> None:
    """What they hear lies half of the round trip behind what is sent; their reports say how long that is."""
    async with Peer.call(server, Voice(question)) as peer:
        *_, call = server.server.config.app.state.calls._calls.values()  # type: ignore[union-attr]
        replies = call._call.session._replies
        assumed_ms = replies._pacing.way_ms
        impair(peer.peer, Network(delay_s=0.4))
        await wait_for(lambda: (call._line.round_trip_s or 0.0) > 0.2)
        await wait_for(lambda: replies._pacing.way_ms > 100 > assumed_ms)


async def test_absurd_candidates(server: LiveServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever can't be reached is answered, and forgotten after a while; nobody else notices."""
    monkeypatch.setattr(rtc_call, "CONNECT_S", 0.3)
    absurd = ["999.1.1.1 5000", "nowhere.invalid 5000", "0.0.0.0 5000", "127.0.0.1 0", "127.0.0.1 99999", "::1 1"]
    absurd += ["x.local 5000", "255.255.255.255 9", "224.0.0.1 9"]
    for where in absurd:
        peer = Peer(server)
        peer.peer.addTransceiver("audio")
        await peer.peer.setLocalDescription(await peer.peer.createOffer())
        offer = re.sub(r"(a=candidate:\S+ \d udp \d+ )\S+ \d+", rf"\g<1>{where}", peer.peer.localDescription.sdp)
        answer = await post(server, CALLS, offer)
        assert answer.status_code in (201, 400), answer.text
        if answer.status_code == 400:
            assert answer.json()["error"]["param"] == "sdp"
        await peer.close()
        await wait_for(lambda: not server.service.sessions)  # there are more of them than slots


async def test_a_data_channel_that_floods(server: LiveServer, question: Path) -> None:
    """Garbage, faster than anybody can answer it: each gets its error, and another caller's turn goes on."""
    rng = random.Random(0)
    async with Peer.call(server) as flooding, Peer.call(server, Voice(question)) as other:
        for n in range(300):
            junk = "{" * rng.randrange(50) if n % 2 else f'{{"type": "nonsense", "pad": "{"x" * 200}"}}'
            flooding.channel.send(junk)
        await other.until("response.done")
        for _ in range(300):
            await flooding.until("error")
    await wait_for(lambda: not server.service.sessions)


async def test_who_sends_faster_than_it_is_taken_is_hung_up_on(
    server: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(Inbox, "take", never)
    monkeypatch.setattr(rtc_call, "MAX_INCOMING_BYTES", 100_000)
    monkeypatch.setattr(rtc_call, "LAST_WORDS_S", 0.1)
    async with Peer.call(server) as peer:
        for _ in range(20):
            peer.channel.send("x" * 10_000)
        await wait_for(lambda: not server.service.sessions)


@pytest.mark.slow
async def test_many_calls_leave_nothing_behind(server: LiveServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forty, or two hundred; half of them vanish without a word. Sockets, tasks, calls and slots before and after."""
    monkeypatch.setattr(rtc_call, "GRACE_S", 0.1)
    monkeypatch.setattr("aioice.ice.CONSENT_INTERVAL", 0.05)  # seconds; 5 by RFC 7675
    calls = server.server.config.app.state.calls  # type: ignore[union-attr]

    def counts() -> tuple[int, int, int, int, float]:
        tasks = asyncio.run_coroutine_threadsafe(_tasks(), server.loop).result(PATIENCE_S)
        free = server.service._host.stats().get("sessions", 0.0)
        return len(os.listdir("/proc/self/fd")), tasks, len(calls), server.service.sessions, free

    await _call(server, vanish=False)  # what is made once is made
    await asyncio.sleep(0)
    await wait_for(lambda: not server.service.sessions and not len(calls))
    before = await asyncio.to_thread(counts)
    for _ in range(soak.times(25, 5)):
        await asyncio.gather(*(_call(server, vanish=n % 2 == 0) for n in range(8)))
    await wait_for(lambda: not server.service.sessions and not len(calls))
    async with asyncio.timeout(PATIENCE_S):
        while (after := await asyncio.to_thread(counts)) > before and any(
            now > then for now, then in zip(after, before, strict=True)
        ):
            await asyncio.sleep(0.2)
    assert all(now <= then for now, then in zip(after, before, strict=True)), (before, after)


async def _tasks() -> int:
    return len(asyncio.all_tasks())


async def _call(server: LiveServer, vanish: bool) -> None:
    peer = Peer(server)
    try:
        while True:
            await peer.peer.setLocalDescription(await peer.peer.createOffer())
            answer = await post(server, CALLS, peer.peer.localDescription.sdp)
            if answer.status_code == 201:
                break
            assert answer.json()["error"]["code"] == "server_full"  # those who vanished are still waited for
            await asyncio.sleep(0.1)
        await peer.peer.setRemoteDescription(RTCSessionDescription(answer.text, "answer"))
        await peer.until("session.created")
        if vanish:
            for protocol in protocols(peer.peer):
                protocol.transport.abort()
    finally:
        await peer.close()


def test_the_impaired_network_is_what_it_says() -> None:
    class Sink:
        def __init__(self) -> None:
            self.got = 0

        def is_closing(self) -> bool:
            return False

        def sendto(self, data: bytes, address: object) -> None:
            self.got += 1

    sink = Sink()
    way = Impaired(sink, Network(0.1), random.Random(0))
    for _ in range(5000):
        way.sendto(b"x")
    assert way.sent == 5000
    assert sink.got == 5000 - way.lost
    assert abs(way.lost / way.sent - 0.1) < 0.02
