"""The command ``parley``: serve, call, models. The only place that reads argv and the environment, and the place where
the parts are put together."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console

from models import registry
from models.base import CheckpointError, LoadOptions
from realtime.endings import Endings
from realtime.endings_onnx import SoundEndings
from realtime.endpoint import EndOfTurn, model_ends_turn, words_end_turn
from realtime.host import EngineThread, Host
from realtime.host_process import EngineProcess
from realtime.schedule import EngineConfig
from realtime.session_config import SessionConfig
from transport import checkpoints
from transport.auth import Exposed, Gate, check_exposure
from transport.call import CallError, CallOptions, call, read_question, write_wav
from transport.call_report import Bar, as_json, show
from transport.caller import side_by_side
from transport.phone.config import PhoneConfig
from transport.phone.config import read as read_phones
from transport.rtc_line import ice_server as ice_server_of
from transport.rtc_ports import port_range
from transport.server import Server, Tls, check_address
from transport.service import Service, ServiceConfig

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Parley: a real-time voice and video agent server.")
log = logging.getLogger("parley")


class EngineKind(StrEnum):
    """Where the model runs."""

    process = "process"
    thread = "thread"


def _stop(problem: Exception | str) -> NoReturn:
    """One line on stderr and exit status 1: what went wrong, and what to do."""
    Console(stderr=True, soft_wrap=True, highlight=False).print(f"[red]parley:[/red] {_plain(str(problem))}")
    raise typer.Exit(1)


def _plain(text: str) -> str:
    return text.replace("[", "\\[")


@app.command()
def serve(
    model: Annotated[
        str, typer.Option(help="demo, tiny, a checkpoint folder or a hub id. Default: demo, else tiny.")
    ] = "",
    host: Annotated[
        str, typer.Option(help="Address to listen on. Beyond this machine an API key is needed.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 = any free one.")] = 8000,
    api_key: Annotated[
        list[str] | None,
        typer.Option(envvar="PARLEY_API_KEY", help="Clients must send it. May be given several times."),
    ] = None,
    allow_origin: Annotated[
        list[str] | None, typer.Option(help="A web site whose pages may use this server, like https://app.example.")
    ] = None,
    ice_server: Annotated[
        list[str] | None,
        typer.Option(envvar="PARLEY_ICE_SERVER", help="For WebRTC: stun:HOST:PORT or turn:USER:PASSWORD@HOST:PORT."),
    ] = None,
    udp_ports: Annotated[
        str, typer.Option(envvar="PARLEY_UDP_PORTS", help="For WebRTC, FIRST-LAST: what a firewall must let in.")
    ] = "",
    tls_cert: Annotated[
        Path | None, typer.Option(help="Serve https: a PEM certificate. Browsers want it beyond localhost.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its PEM key.")] = None,
    slots: Annotated[int, typer.Option(min=1, help="Conversations at once.")] = 8,
    kv_tokens: Annotated[int, typer.Option(min=0, help="Memory for all conversations, in tokens. 0 = the usual.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = "auto",
    audio_mode: Annotated[str, typer.Option(help="exact, or append (short windows; cheaper).")] = "exact",
    threads: Annotated[int, typer.Option(min=0, help="CPU threads of the model. 0 = choose for me.")] = 0,
    weights: Annotated[
        str, typer.Option(help="The thinker's experts: full, int8 or fp8 (half their memory, a little off).")
    ] = "full",
    lead_ms: Annotated[
        float,
        typer.Option(
            min=80, help="Speech made ahead of what is heard. More outlives a machine that stutters; a cut wastes it."
        ),
    ] = EngineConfig.lead_ms,
    engine: Annotated[EngineKind, typer.Option(help="thread is for debugging.")] = EngineKind.process,
    drain: Annotated[float, typer.Option(min=0, help="Seconds that calls may go on after SIGTERM.")] = 30.0,
    log_transcripts: Annotated[bool, typer.Option(help="Write what is said into the log.")] = False,
    typical: Annotated[
        Path | None, typer.Option(help="Sentences callers say, one a line: semantic_vad learns where they end.")
    ] = None,
    end_of_turn: Annotated[
        str,
        typer.Option(
            help="Who tells under semantic_vad that they are done: model (its own opinion, where it has one), words, "
            "silence, or the path of an ONNX model that hears it (Smart Turn v3)."
        ),
    ] = "model",
    phone: Annotated[Path | None, typer.Option(help="Telephone numbers, SIP and trunk: a TOML file.")] = None,
    twilio_auth_token: Annotated[
        str, typer.Option(envvar="PARLEY_TWILIO_AUTH_TOKEN", help="What Twilio signs its requests with.")
    ] = "",
) -> None:
    """Serve a model: the OpenAI Realtime API on ws://HOST:PORT/v1/realtime."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)  # the rest of it we say ourselves
    keys = tuple(key for key in api_key or () if key)
    name = model or checkpoints.default_name()
    try:
        check_exposure(host, keys)
        checkpoints.check_name(name)
        for url in ice_server or ():
            ice_server_of(url)
        ports = port_range(udp_ports) if udp_ports else None
        tls = _tls(tls_cert, tls_key)
        phones = replace(read_phones(phone) if phone else PhoneConfig(), twilio_auth_token=twilio_auth_token)
        session = _session(end_of_turn, typical)
        options = LoadOptions(
            device, dtype, slots + transcript_slots(slots), kv_tokens, audio_mode, threads, weights=weights
        )
        check_address(host, port)
    except (Exposed, CheckpointError, ValueError, OSError) as error:
        _stop(error)
    if name == "tiny":
        log.warning("--model tiny: random weights. It speaks noise; everything else is real.")
    service = Service(
        _engine(engine, name, options, EngineConfig(max_sessions=slots, lead_ms=lead_ms)),
        Gate(keys, tuple(allow_origin or ())),
        ServiceConfig(Path(name).name, drain, log_transcripts, tuple(ice_server or ()), ports, phones, session),
    )
    log.info("loading %s", name)
    try:
        Server(service, host, port, tls).run()
    except KeyboardInterrupt:
        log.info("stopped")
    if service.failure:
        _stop(service.failure)


def _session(end_of_turn: str, typical: Path | None) -> SessionConfig:
    """Who judges the ends of turns. Raises ValueError, OSError."""
    judges: dict[str, EndOfTurn | None] = {"model": model_ends_turn, "words": words_end_turn, "silence": None}
    if end_of_turn == "silence" and typical:
        raise ValueError("--end-of-turn silence asks for no words: leave --typical out")
    session = SessionConfig(end_of_turn=judges.get(end_of_turn, model_ends_turn))
    if end_of_turn not in judges:
        session = replace(session, sound_of_end=SoundEndings(Path(end_of_turn)))
    return replace(session, end_of_turn=Endings.read(typical)) if typical else session


def _tls(cert: Path | None, key: Path | None) -> Tls | None:
    if cert is None and key is None:
        return None
    if cert is None or key is None:
        raise ValueError("--tls-cert and --tls-key go together: give both")
    return Tls(cert, key)


def _engine(kind: EngineKind, name: str, options: LoadOptions, config: EngineConfig) -> Host:
    load = partial(checkpoints.load_named, name, options)
    return EngineProcess(load, config) if kind is EngineKind.process else EngineThread(load, config)


def transcript_slots(sessions: int) -> int:
    """Slots beside those of the sessions, for the forks that transcribe what users said."""
    return max(1, sessions // 4)


@app.command("call")
def call_(
    questions: Annotated[list[Path], typer.Argument(help="WAV files: any sample rate, mono or stereo.")],
    url: Annotated[str, typer.Option(envvar="PARLEY_URL", help="The server.")] = "ws://127.0.0.1:8000/v1/realtime",
    out: Annotated[Path | None, typer.Option(help="Write the answers to this WAV file.")] = None,
    api_key: Annotated[str, typer.Option(envvar="PARLEY_API_KEY", help="The server's key.")] = "",
    image: Annotated[Path | None, typer.Option(help="A picture to show before the first question.")] = None,
    speed: Annotated[float, typer.Option(help="Pace of the questions; 1 = as fast as somebody speaks.")] = 1.0,
    push_to_talk: Annotated[bool, typer.Option(help="End each turn by hand, not by the silence after it.")] = False,
    instructions: Annotated[str, typer.Option(help="System prompt.")] = "",
    voice: Annotated[str, typer.Option(help="One of the model's voices.")] = "",
    patience: Annotated[float, typer.Option(help="Seconds of nothing at all after which to give up.")] = 60.0,
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")] = False,
) -> None:
    """Call a server: say the files in real time, hear the answers, measure."""
    console = Console(stderr=True)
    try:
        clips = [read_question(path) for path in questions]
        options = CallOptions(url, api_key, image, speed, patience, push_to_talk, instructions, voice)
        with Bar(console, clips) as bar:
            conversation = asyncio.run(call(clips, options, bar.update))
        if out is not None:
            write_wav(out, side_by_side([turn.player.audio() for turn in conversation.turns]))
    except CallError as error:
        _stop(error)
    except OSError as error:
        _stop(f"{error.filename or out}: {error.strerror or error}")
    except KeyboardInterrupt:
        _stop("hung up")
    if json_:
        print(as_json(conversation, out))
    else:
        show(Console(), conversation, out)
    if any(turn.status in ("failed", "") for turn in conversation.turns):
        raise typer.Exit(1)


@app.command()
def models(
    folder: Annotated[Path | None, typer.Argument(help="A checkpoint folder to look into.")] = None,
) -> None:
    """List the families that can be served and what is installed, or say what a folder holds."""
    console = Console(highlight=False)
    if folder is None:
        for kind, package in sorted(registry.families().items()):
            about = (package.__doc__ or "").strip().splitlines()[0]
            console.print(f"[bold]{kind}[/bold]  {_plain(about)}", soft_wrap=True)
        demo = "installed" if checkpoints.default_name() == "demo" else "not installed"
        console.print(f"\n--model demo   the small checkpoint that ships: {demo}")
        console.print("--model tiny   random weights, made on the fly: speaks noise")
        console.print("--model FOLDER or HUB_ID   a checkpoint of one of the families above")
        return
    try:
        contents = checkpoints.inspect(folder)
    except CheckpointError as error:
        _stop(error)
    console.print(f"[bold]{contents.model_type}[/bold], loaded by {contents.family}")
    console.print(f"{contents.files} weight files, {contents.bytes / 1e6:,.1f} MB, {', '.join(contents.dtypes) or '-'}")
    for stage, count in sorted(contents.parameters.items()):
        console.print(f"  {stage:<12} {count / 1e6:>12,.1f} M parameters")
    if contents.missing or not contents.files:
        _stop(f"{folder} is incomplete: {', '.join(contents.missing) or 'every .safetensors file'} is missing")


def main() -> None:
    """Entry point of the console script."""
    app()
