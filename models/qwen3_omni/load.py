"""A checkpoint folder -> a Model on its device."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from models import registry, threads
from models.base import GREEDY, CheckpointError, Codec, LoadOptions, Model, Sampling, Spec, Tokens
from models.nn.attention import set_up_cuda
from models.nn.kernels import has_triton
from models.nn.moe import has_grouped
from models.nn.replay import CudaCapture
from models.nn.weights import Weights
from models.processor import computes_bf16
from models.qwen3_omni.codec import SAMPLE_RATE_HZ, Code2Wav, Code2WavConfig
from models.qwen3_omni.config import Fields, ThinkerConfig
from models.qwen3_omni.decoder import ThinkerNet
from models.qwen3_omni.ending import Ending
from models.qwen3_omni.prompt import ChatMl
from models.qwen3_omni.saying import AlignmentHead
from models.qwen3_omni.talker import OWN_SAMPLING, Header, OmniTalker
from models.qwen3_omni.talker_config import TalkerConfig
from models.qwen3_omni.talker_net import TalkerNet
from models.qwen3_omni.thinker import OmniThinker
from models.qwen3_omni.wave import Code2WavCodec
from models.registry import CodecSpec

log = logging.getLogger(__name__)

VIDEO_RATE_HZ = 2.0
"""Camera frames a second: two make a grid, and the reference samples video at this rate."""

USUAL_TOKENS = 8192
"""Positions of a usual conversation: ten minutes of a user's audio."""

APPEND_CHUNKS = 2
"""``audio_mode`` append: windows of this many seconds, instead of eight."""

_CODEC_TYPES = ("", "qwen3_omni_moe_code2wav")
_TEXT_ONLY = CodecSpec(SAMPLE_RATE_HZ, 1920, 1)
"""What a Spec says where nothing is rendered."""


def load(folder: Path, options: LoadOptions, weights_of: Callable[[Path], Weights] = Weights) -> Model:
    """Loads a checkpoint folder of this family. Raises CheckpointError, which names the file, field or tensor.

    ``weights_of`` opens the folder's weights; benchmarks make them up."""
    device = _device(options.device)
    dtype = _dtype(options.dtype, device, folder)
    if device.type == "cuda":
        set_up_cuda()
    before = _memory(device)
    whole = Fields.read(folder / "config.json")
    config = ThinkerConfig.of(whole.sub("thinker_config"), Fields.read(folder / "preprocessor_config.json"))
    if options.audio_mode == "append":
        config = replace(config, audio=config.audio.append_windows(APPEND_CHUNKS))
    speech = TalkerConfig.of(whole) if whole.flag("enable_audio_output", True) else None
    eos = _eos(folder, whole)
    prompt = ChatMl.load(folder, eos)
    kv_tokens = options.kv_tokens or options.slots * min(config.text.context, USUAL_TOKENS)
    with weights_of(folder) as weights:
        thinker = OmniThinker(
            weights.fill("thinker", lambda: ThinkerNet(config), device, dtype, options.weights),
            accept_layer=speech.accept_layer if speech else 0,
            eos=eos,
            slots=options.slots,
            kv_tokens=kv_tokens,
        )
        thinker.ending = Ending.read(folder, config.text.hidden, device)
        talker: OmniTalker | None = None
        codec: Codec | None = None
        sound = _TEXT_ONLY
        if speech:
            net = weights.fill("talker", lambda: TalkerNet(speech), device, dtype)
            alignment = AlignmentHead.read(folder, speech.text)
            talker = OmniTalker(net, _header(thinker, prompt, speech), kv_tokens=kv_tokens, alignment=alignment)
            resolved = replace(options, device=str(device), dtype=str(dtype).removeprefix("torch."))
            codec, sound = _codec(folder, whole, weights, resolved)
            _check_codes(folder, speech, sound)
    _use_steps(thinker, talker, codec, options, device)
    if device.type == "cuda":
        # What is left to the host is small (mel, packing), and threads spend longer meeting than computing.
        threads.use(options.threads or 1)
    log.info("loaded %s on %s as %s; memory before: %s, after: %s", folder, device, dtype, before, _memory(device))
    spec = Spec(
        family="qwen3_omni_moe",
        input_rate_hz=16000,
        output_rate_hz=sound.output_rate_hz,
        frame_samples=sound.frame_samples,
        groups=sound.groups,
        voices=tuple(speech.voices) if speech else (),
        context_tokens=config.text.context,
        video_rate_hz=VIDEO_RATE_HZ,
        audio_token=config.audio_id,
        text_sampling=_text_sampling(folder),
        talker_sampling=_talker_sampling(folder) if speech else None,
    )
    return Model(spec, prompt, thinker, talker, codec)


def _use_steps(
    thinker: OmniThinker, talker: OmniTalker | None, codec: Codec | None, options: LoadOptions, device: torch.device
) -> None:
    """Decodes with one replay a step, as CUDA graphs where the device has them."""
    cuda = device.type == "cuda"
    if options.graphs == "off" or (options.graphs == "auto" and not cuda):
        return
    if cuda and not (has_triton() or has_grouped(thinker.dtype)):
        log.warning("no CUDA graphs: without Triton there are no experts here that one can hold; install triton")
        return
    capture = CudaCapture(device) if cuda else None
    thinker.use_step(capture)
    if talker is not None:
        talker.use_step(options.slots, codec if isinstance(codec, Code2WavCodec) else None, capture)


def _header(thinker: OmniThinker, prompt: ChatMl, config: TalkerConfig) -> Header:
    role = [token for part in prompt.reply() if isinstance(part, Tokens) for token in part.ids]
    if len(role) != 3 or role[:2] != [config.marks.im_start, config.assistant_id]:
        raise CheckpointError(f"config.json says that a reply begins as {config.assistant_id}, the tokenizer {role}")
    tts = [config.tts_pad_id, config.tts_bos_id, config.tts_eos_id]
    return Header(thinker.embedding(role), thinker.embedding(tts))


def _codec(folder: Path, whole: Fields, weights: Weights, options: LoadOptions) -> tuple[Codec, CodecSpec]:
    """The checkpoint's codec: Qwen's, or one that another family brings."""
    fields = whole.sub("code2wav_config")
    kind = fields.text("model_type", "")
    if kind not in _CODEC_TYPES:
        return registry.load_codec(kind, folder, options)
    config = Code2WavConfig.of(fields)
    dtype: torch.dtype = getattr(torch, options.dtype)
    net = weights.fill("code2wav", lambda: Code2Wav(config), torch.device(options.device), dtype)
    spec = CodecSpec(SAMPLE_RATE_HZ, config.frame_samples, config.num_quantizers)
    return Code2WavCodec(net, options.slots), spec


def _check_codes(folder: Path, speech: TalkerConfig, sound: CodecSpec) -> None:
    if speech.predictor.groups != sound.groups:
        raise CheckpointError(
            f"{folder / 'config.json'}: the talker makes {speech.predictor.groups} codes a frame, "
            f"the codec takes {sound.groups}"
        )


def _text_sampling(folder: Path) -> Sampling | None:
    """Greedy where generation_config.json says ``do_sample: false``; else nothing is said."""
    return GREEDY if _generation(folder).get("do_sample") is False else None


def _generation(folder: Path) -> dict[str, Any]:
    file = folder / "generation_config.json"
    return dict(Fields.read(file).values) if file.is_file() else {}


def _talker_sampling(folder: Path) -> Sampling:
    """How the talker draws: the reference's defaults, or what generation_config.json says under the names that the
    reference's ``generate`` takes (``talker_temperature`` and so on)."""
    file = folder / "generation_config.json"
    said = _generation(folder)
    own = {
        name: said[f"talker_{name}"]
        for name in ("temperature", "top_k", "top_p", "repetition_penalty")
        if f"talker_{name}" in said
    }
    if said.get("talker_do_sample") is False:
        own["temperature"] = 0.0
    try:
        return replace(OWN_SAMPLING, **own)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{file}: the talker can't draw like that: {error}") from error


def _eos(folder: Path, whole: Fields) -> frozenset[int]:
    """Ids that end a reply: ``<|im_end|>``, and what generation_config.json adds."""
    ids = {whole.integer("im_end_token_id")}
    file = folder / "generation_config.json"
    if file.is_file():
        more: Any = Fields.read(file).values.get("eos_token_id")
        ids |= {int(i) for i in (more if isinstance(more, list) else [more] if isinstance(more, int) else [])}
    return frozenset(ids)


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise CheckpointError(f"device {name!r} is asked for, but torch finds no CUDA: use --device cpu")
    return device


def _dtype(name: str, device: torch.device, folder: Path) -> torch.dtype:
    if name == "auto":  # a small model on a CPU is bound by neither weights nor products
        half = device.type == "cuda" or (not threads.is_small(folder) and computes_bf16())
        return torch.bfloat16 if half else torch.float32
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if name not in known:
        raise CheckpointError(f"dtype is one of auto, {', '.join(known)}, not {name!r}")
    return known[name]


def _memory(device: torch.device) -> str:
    """What the process holds, in words for the log."""
    text = f"{_resident_bytes() / 2**30:.2f} GiB of RAM"
    if device.type == "cuda":
        text += f", {torch.cuda.memory_allocated(device) / 2**30:.2f} GiB on {device}"
    return text


def _resident_bytes() -> int:
    """Resident memory without mapped files (a checkpoint's pages count as soon as they are read). 0 where the system
    doesn't say."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:")), 0)
