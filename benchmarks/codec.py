"""Code2wav streamed frame by frame, against transformers' re-decoding of a window, both at one frame a packet.

transformers streams by decoding the newest frame together with 25 frames before it and keeping the new samples: an
approximation, since the decoder sees 577 frames back. Ours keeps state and computes every frame once.

    streamed_frame_ms_p50, windowed_frame_ms_p50   processor time of one packet, one core
    windowed_over_streamed_time                    ratio of the two, same run
    windowed_over_streamed_flops                   ratio of the arithmetic, counted and not timed: at least 8 is wanted
    streamed_error_max, windowed_error_max         furthest from the whole decode, full scale is 1
    missing_samples                                of the streamed speech, against the whole decode: 0 is wanted
    realtime_factor                                seconds of computing in a second of streamed speech

Weights are random. The decoder has the released sizes, with --quick half of them.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers.models.qwen3_omni_moe.configuration_qwen3_omni_moe import Qwen3OmniMoeCode2WavConfig
from transformers.models.qwen3_omni_moe.modeling_qwen3_omni_moe import Qwen3OmniMoeCode2Wav

from benchmarks.report import report
from models.qwen3_omni.codec import SAMPLE_RATE_HZ, Code2Wav, Code2WavConfig
from models.qwen3_omni.config import Fields
from models.qwen3_omni.tiny import random_tensor
from models.qwen3_omni.wave import Code2WavCodec

RELEASED: dict[str, Any] = {
    "codebook_size": 2048,
    "decoder_dim": 1536,
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_attention_heads": 16,
    "num_hidden_layers": 8,
    "num_key_value_heads": 16,
    "num_quantizers": 16,
    "rms_norm_eps": 1e-05,
    "rope_theta": 10000,
    "sliding_window": 72,
    "upsample_rates": [8, 5, 4, 3],
    "upsampling_ratios": [2, 2],
}
HALF = RELEASED | {"decoder_dim": 768, "hidden_size": 512, "intermediate_size": 1536, "num_attention_heads": 8}
HALF["num_key_value_heads"] = 8

CONTEXT_FRAMES = 25
WANTED = 8.0
EXACT = 1e-4

T = TypeVar("T")


def decoders(sizes: dict[str, Any]) -> tuple[Any, Code2Wav]:
    """transformers' decoder and ours, with the same random weights in the same memory."""
    config = Code2WavConfig.of(Fields("code2wav_config", sizes))
    with torch.device("meta"):
        ours = Code2Wav(config)
    generator = torch.Generator().manual_seed(0)
    weights = {
        name: random_tensor(f"code2wav.{name}", tuple(value.shape), generator)
        for name, value in ours.state_dict().items()
    }
    ours.load_state_dict(weights, assign=True)
    rope = {"rope_type": "default", "rope_theta": sizes["rope_theta"]}
    with torch.device("meta"):
        reference = Qwen3OmniMoeCode2Wav._from_config(Qwen3OmniMoeCode2WavConfig(**sizes, rope_parameters=rope))
    reference.load_state_dict(weights, assign=True)
    # What is no weight was made on the meta device with the rest.
    reference.code_offset = torch.arange(config.num_quantizers).view(1, -1, 1) * config.codebook_size
    rotary = reference.pre_transformer.rotary_emb
    rotary.inv_freq = rotary.compute_default_rope_parameters(reference.config)[0]
    return reference.eval(), ours.requires_grad_(False)


def timed(call: Callable[[], T]) -> tuple[T, float]:
    """What ``call`` gives, and milliseconds of processor time, which a machine that others use changes little."""
    begun = time.process_time()
    return call(), (time.process_time() - begun) * 1000


def flops(call: Callable[[], object]) -> float:
    """Multiplications and additions of matrix products, convolutions and attention."""
    with FlopCounterMode(display=False) as counter:
        call()
    return float(counter.get_total_flops())


@torch.no_grad()
def figures(sizes: dict[str, Any], frames: int, packets: int) -> dict[str, float]:
    """Streams ``frames`` frames; the last ``packets`` of them are also re-decoded in windows."""
    reference, ours = decoders(sizes)
    codec = Code2WavCodec(ours, slots=2)
    samples = codec.config.frame_samples
    codes = torch.randint(
        0, sizes["codebook_size"], (1, frames, sizes["num_quantizers"]), generator=torch.Generator().manual_seed(1)
    )
    whole = reference(codes.transpose(1, 2))[0, 0]

    codec.open(0)
    streamed = [timed(partial(codec.render, [0], codes[:, [i]])) for i in range(frames)]
    speech = torch.cat([*(pieces[0] for pieces, _ in streamed), codec.flush(0)])

    def window(end: int) -> torch.Tensor:
        start = max(0, end - 1 - CONTEXT_FRAMES)
        pcm: torch.Tensor = reference(codes[:, start:end].transpose(1, 2))[0, 0, (end - 1 - start) * samples :]
        return pcm

    window(frames)  # the first call of a size pays for its plans
    windowed = [timed(partial(window, end)) for end in range(frames - packets + 1, frames + 1)]
    # A window's samples begin where its frame begins in the whole decode.
    begins = range((frames - packets) * samples, frames * samples, samples)
    far = [
        float((pcm - whole[begin : begin + len(pcm)]).abs().max())
        for (pcm, _), begin in zip(windowed, begins, strict=True)
    ]
    streamed_ms = statistics.median(ms for _, ms in streamed[1:])
    windowed_ms = statistics.median(ms for _, ms in windowed)
    codec.open(1)
    for i in range(2):  # the second frame is like all that follow
        streamed_flops = flops(partial(codec.render, [1], codes[:, [i]]))
    return {
        "streamed_frame_ms_p50": streamed_ms,
        "windowed_frame_ms_p50": windowed_ms,
        "windowed_over_streamed_time": windowed_ms / streamed_ms,
        "windowed_over_streamed_flops": flops(partial(window, frames)) / streamed_flops,
        "streamed_error_max": float((speech - whole).abs().max()) if len(speech) == len(whole) else float("inf"),
        "windowed_error_max": max(far),
        "missing_samples": float(len(whole) - len(speech)),
        "realtime_factor": streamed_ms / 1000 / (samples / SAMPLE_RATE_HZ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="half the released sizes, fewer packets")
    parser.add_argument("--json", type=Path, default=None)
    options = parser.parse_args()
    torch.set_num_threads(1)  # threads that wait for each other spin, and that would count
    sizes, packets = (HALF, 2) if options.quick else (RELEASED, 5)
    found = figures(sizes, frames=CONTEXT_FRAMES + packets + 5, packets=packets)
    report("codec", found, options.json)
    if found["missing_samples"] or found["streamed_error_max"] > EXACT:
        raise SystemExit("the streamed speech is not the whole decode")
    if found["windowed_over_streamed_flops"] < WANTED:
        raise SystemExit(f"less than {WANTED:g} times less compute than re-decoding a window")


if __name__ == "__main__":
    main()
