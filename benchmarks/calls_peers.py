"""What a WebRTC call costs here and in two frameworks that build on aiortc too: FastRTC's and Pipecat's echo.

    python -m benchmarks.calls_peers --python ENV/bin/python [--calls N] [--json FILE]

ENV: an environment of its own with `fastrtc` and `pipecat-ai[webrtc]`, which is none of ours. The same callers, from
processes of their own, call each server in turn and say a clip; each server's audio flows both ways. Ours does more: it
decides about turns and answers with a toy model's speech; theirs send back what they get.

cpu_ms_a_tick     processor time of the server's process for each 20 ms of audio that a caller got from it; ours without
                  the engine, which is a process of its own. Load on the machine changes it little.
calls_per_core    20 / cpu_ms_a_tick
heard_share       of the loud 20 ms that the caller's clip has, how many came back (echoes only): 1 if nothing was lost
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
import time
from pathlib import Path

import httpx

from benchmarks.calls import Served, measure, question
from benchmarks.phone import free_port
from benchmarks.report import report

FASTRTC = """
import asyncio, sys, uvicorn
from fastapi import FastAPI
from fastrtc import AsyncStreamHandler, Stream, wait_for_item

class Echo(AsyncStreamHandler):
    def __init__(self):
        super().__init__()
        self.queue = asyncio.Queue()
    async def start_up(self): pass
    async def receive(self, frame): self.queue.put_nowait(frame)
    async def emit(self): return await wait_for_item(self.queue)
    def copy(self): return Echo()
    async def shutdown(self): pass

app = FastAPI()
Stream(Echo(), modality="audio", mode="send-receive", concurrency_limit=100).mount(app)
uvicorn.run(app, port=int(sys.argv[1]), log_level="error")
"""
PIPECAT = """
import asyncio, sys, uvicorn
from fastapi import FastAPI, Request
from loguru import logger
from pipecat.frames.frames import InputAudioRawFrame, OutputAudioRawFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.runner import PipelineRunner
from pipecat.pipeline.task import PipelineTask
from pipecat.processors.frame_processor import FrameProcessor
from pipecat.transports.base_transport import TransportParams
from pipecat.transports.smallwebrtc.connection import SmallWebRTCConnection
from pipecat.transports.smallwebrtc.transport import SmallWebRTCTransport

logger.remove()

class Echo(FrameProcessor):
    async def process_frame(self, frame, direction):
        await super().process_frame(frame, direction)
        if isinstance(frame, InputAudioRawFrame):
            frame = OutputAudioRawFrame(frame.audio, frame.sample_rate, frame.num_channels)
        await self.push_frame(frame, direction)

app, running = FastAPI(), set()

@app.post("/api/offer")
async def offer(request: Request):
    body = await request.json()
    connection = SmallWebRTCConnection()
    await connection.initialize(sdp=body["sdp"], type=body["type"])
    params = TransportParams(audio_in_enabled=True, audio_out_enabled=True)
    transport = SmallWebRTCTransport(webrtc_connection=connection, params=params)
    task = PipelineTask(Pipeline([transport.input(), Echo(), transport.output()]))
    job = asyncio.create_task(PipelineRunner(handle_sigint=False).run(task))
    running.add(job)
    job.add_done_callback(running.discard)
    return connection.get_answer()

uvicorn.run(app, port=int(sys.argv[1]), log_level="error")
"""
PEERS = {"fastrtc": FASTRTC, "pipecat": PIPECAT}


class PeerServed(Served):
    """Somebody else's server, in a process of its own."""

    def __init__(self, python: Path, source: str) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.process = subprocess.Popen([python, "-c", source, str(port)], stderr=subprocess.DEVNULL)
        self.wait()

    def up(self) -> bool:
        try:
            httpx.get(self.url, timeout=5, trust_env=False)
        except httpx.HTTPError:
            return False
        return True


def run(python: Path, calls: int, talk_s: float) -> dict[str, float]:
    """One after the other, each alone on the machine with its callers."""
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        clip = question(Path(folder))
        for name in ("parley", *PEERS):
            served = Served("echo") if name == "parley" else PeerServed(python, PEERS[name])
            time.sleep(2.0)  # what a start leaves to do
            try:
                heard, cost = measure(served, "rtc" if name == "parley" else name, clip, calls, talk_s)
            finally:
                served.stop()
            ticks = sum(each.packets for each in heard)
            tick_ms = 1000 * cost.server_s / ticks if ticks else float("nan")
            figures |= {
                f"{name}_cpu_ms_a_tick@{calls}": tick_ms,
                f"{name}_calls_per_core@{calls}": 20 / tick_ms,
                f"{name}_ticks@{calls}": float(ticks),
                f"{name}_calls_failed@{calls}": float(sum(not each.connected or not each.loud_s for each in heard)),
            }
            if name == "parley":
                figures[f"parley_engine_cpu_share@{calls}"] = cost.engine_share
            else:
                came = [len(each.loud_s) / each.loud_said for each in heard if each.loud_said]
                figures[f"{name}_heard_share@{calls}"] = sum(came) / len(came) if came else float("nan")
    for name in PEERS:
        ours, theirs = figures[f"parley_cpu_ms_a_tick@{calls}"], figures[f"{name}_cpu_ms_a_tick@{calls}"]
        figures[f"{name}_over_parley@{calls}"] = theirs / ours
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--python", type=Path, required=True, help="of an environment with fastrtc and pipecat-ai[webrtc]"
    )
    parser.add_argument("--calls", type=int, default=4)
    parser.add_argument("--talk-s", type=float, default=15.0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    report("calls_peers", run(options.python, options.calls, options.talk_s), options.json)


if __name__ == "__main__":
    main()
