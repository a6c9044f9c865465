"""The demo's own codec: residual codes to speech, causal, at frame rate, with an inverse-STFT head.

    codes [frames, groups] -> sum of codebook vectors          12.5 a second
                           -> causal ConvNeXt blocks
                           -> 8 hops a frame, ConvNeXt blocks   100 a second
                           -> pitch and two smooth spectra      (synthesis.py)
                           -> samples                           16 kHz

ConvNeXt blocks as in Vocos (Siuzdak, 2023), residual codes as in SoundStream (Zeghidour et al., 2021). The network
holds no state; each convolution's left context lies in a `DecoderState`, a row a slot, so that rows out of step share
a batch. Nothing looks ahead: frame g gives its `frame_samples` samples at once and streamed equals whole.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from models.base import CheckpointError
from models.demo.synthesis import Synthesis, SynthesisState

MODEL_TYPE = "frame_istft"
_PITCH_STEPS = 4.0
"""Pitches in a hertz."""
PREFIX = "code2wav."
"""Where a checkpoint's tensor names of this part begin."""


@dataclass(frozen=True)
class FrameIstftConfig:
    """`code2wav_config` of a checkpoint whose `model_type` is `frame_istft`."""

    model_type: str = MODEL_TYPE
    sample_rate_hz: int = 16000
    hop: int = 160
    """Samples between two sets of voice parameters."""
    hops: int = 8
    """Sets of voice parameters in one code frame."""
    n_fft: int = 512
    bands: int = 48
    """Points of each smooth spectrum, equally spaced in mel."""
    groups: int = 4
    codebook_size: int = 256
    code_dim: int = 64
    hidden_size: int = 192
    """Channels at code frame rate."""
    blocks: int = 2
    kernel: int = 3
    fine_size: int = 128
    """Channels at hop rate."""
    fine_blocks: int = 3
    fine_kernel: int = 7
    f0_min_hz: float = 70.0
    f0_max_hz: float = 400.0

    def __post_init__(self) -> None:
        if self.model_type != MODEL_TYPE:
            raise ValueError(f"model_type is {MODEL_TYPE!r}, not {self.model_type!r}")
        for item in fields(self):
            value = getattr(self, item.name)
            if not isinstance(value, str) and not value > 0:
                raise ValueError(f"{item.name} must be positive, not {value}")
        if self.f0_min_hz >= self.f0_max_hz:
            raise ValueError(f"f0_min_hz {self.f0_min_hz} must be below f0_max_hz {self.f0_max_hz}")

    @property
    def frame_samples(self) -> int:
        """Samples of one code frame."""
        return self.hop * self.hops

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> FrameIstftConfig:
        """Reads a `code2wav_config`; raises CheckpointError on a field it doesn't know or a value that can't be."""
        known = {item.name for item in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise CheckpointError(f"code2wav_config has fields that {MODEL_TYPE} doesn't know: {', '.join(unknown)}")
        try:
            return cls(**values)
        except (TypeError, ValueError) as error:
            raise CheckpointError(f"code2wav_config: {error}") from error

    def to_dict(self) -> dict[str, Any]:
        """What `from_dict` reads."""
        return asdict(self)


class CausalConv(nn.Module):
    """A convolution along time that sees the past only; its left context is passed in and out."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv1d(channels_in, channels_out, kernel, groups=groups)
        self.context = kernel - 1

    def forward(self, x: Tensor, left: Tensor) -> tuple[Tensor, Tensor]:
        """x [rows, channels, time], left [rows, channels, context] -> the same time, and the next left context."""
        joined = torch.cat([left, x], dim=2)
        return self.conv(joined), joined[:, :, joined.shape[2] - self.context :]


class Block(nn.Module):
    """ConvNeXt: depthwise convolution, norm, two pointwise layers, scaled residual."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.depthwise = CausalConv(channels, channels, kernel, groups=channels)
        self.norm = nn.LayerNorm(channels)
        self.up = nn.Linear(channels, 2 * channels)
        self.down = nn.Linear(2 * channels, channels)
        self.scale = nn.Parameter(torch.full((channels,), 0.3))

    def forward(self, x: Tensor, left: Tensor) -> tuple[Tensor, Tensor]:
        """x [rows, channels, time], left as in CausalConv."""
        y, left = self.depthwise(x, left)
        y = self.down(nn.functional.gelu(self.up(self.norm(y.transpose(1, 2)))))
        return x + (self.scale * y).transpose(1, 2), left


@dataclass
class DecoderState:
    """Left contexts of every convolution, [rows, channels, context] each, and the synthesis' own state."""

    contexts: list[Tensor]
    synthesis: SynthesisState

    def select(self, rows: Tensor) -> DecoderState:
        """A copy of some rows."""
        return DecoderState([context[rows] for context in self.contexts], self.synthesis.select(rows))

    def put(self, rows: Tensor, new: DecoderState) -> None:
        """Overwrites some rows."""
        for mine, other in zip(self.contexts, new.contexts, strict=True):
            mine[rows] = other
        self.synthesis.put(rows, new.synthesis)

    def memory_bytes(self) -> int:
        """What the rows take."""
        tensors = [*self.contexts, *vars(self.synthesis).values()]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


class Decoder(nn.Module):
    """Codes to voice parameters and samples. Holds weights only."""

    def __init__(self, config: FrameIstftConfig) -> None:
        super().__init__()
        self.config = config
        c = config
        self.codebooks = nn.Parameter(torch.zeros(c.groups, c.codebook_size, c.code_dim))
        self.enter = CausalConv(c.code_dim, c.hidden_size, c.kernel)
        self.blocks = nn.ModuleList(Block(c.hidden_size, c.kernel) for _ in range(c.blocks))
        self.spread = nn.Linear(c.hidden_size + c.code_dim, c.hops * c.fine_size)
        self.fine_blocks = nn.ModuleList(Block(c.fine_size, c.fine_kernel) for _ in range(c.fine_blocks))
        self.norm = nn.LayerNorm(c.fine_size)
        self.head = nn.Linear(c.fine_size, 1 + 2 * c.bands)
        self.synthesis = Synthesis(c.sample_rate_hz, c.hop, c.n_fft, c.bands)

    def state(self, rows: int) -> DecoderState:
        """The state before an utterance."""
        weight = self.head.weight
        contexts = [
            torch.zeros(rows, conv.conv.in_channels, conv.context, device=weight.device, dtype=weight.dtype)
            for conv in self._convolutions()
        ]
        return DecoderState(contexts, self.synthesis.state(rows))

    def _convolutions(self) -> Iterator[CausalConv]:
        return (module for module in self.modules() if isinstance(module, CausalConv))

    def dequantize(self, codes: Tensor) -> Tensor:
        """codes int64 [rows, frames, groups] -> [rows, frames, code_dim], the sum of the codebooks' vectors."""
        groups = torch.arange(self.config.groups, device=codes.device)
        vectors: Tensor = self.codebooks[groups, codes]
        return vectors.sum(dim=2)

    def parameters_of(self, latent: Tensor, contexts: Sequence[Tensor]) -> tuple[Tensor, Tensor, list[Tensor]]:
        """latent [rows, frames, code_dim] -> f0_hz [rows, hops], spectra [rows, hops, 2, bands], new contexts."""
        c, rows, frames = self.config, latent.shape[0], latent.shape[1]
        left, after = iter(contexts), []
        x, context = self.enter(latent.transpose(1, 2), next(left))
        after.append(context)
        for block in self.blocks:
            x, context = block(x, next(left))
            after.append(context)
        wide = self.spread(torch.cat([x.transpose(1, 2), latent], dim=2))
        y = wide.view(rows, frames * c.hops, c.fine_size).transpose(1, 2)
        for block in self.fine_blocks:
            y, context = block(y, next(left))
            after.append(context)
        out = self.head(self.norm(y.transpose(1, 2))).float()
        low, high = math.log(c.f0_min_hz), math.log(c.f0_max_hz)
        f0_hz = torch.exp(low + (high - low) * torch.sigmoid(out[..., 0]))
        if not self.training:  # phase adds up: keep what rounding of a differently shaped product does out of it
            f0_hz = torch.round(f0_hz * _PITCH_STEPS) / _PITCH_STEPS
        spectra = out[..., 1:].view(rows, frames * c.hops, 2, c.bands).clamp(-16.0, 4.0)
        return f0_hz, spectra, after

    def forward(self, codes: Tensor, state: DecoderState) -> tuple[Tensor, DecoderState]:
        """codes int64 [rows, frames, groups] -> float32 [rows, frames * frame_samples] and the state after them."""
        f0_hz, spectra, contexts = self.parameters_of(self.dequantize(codes), state.contexts)
        pcm, synthesis = self.synthesis(f0_hz, spectra, state.synthesis)
        return pcm, DecoderState(contexts, synthesis)


class FrameIstftCodec:
    """`models.base.Codec` of the demo checkpoint: slots over one `Decoder`."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder.eval().requires_grad_(False)
        self._rows: dict[int, int] = {}
        self._free: list[int] = []
        self._state = decoder.state(0)
        self._fresh = decoder.state(1)

    @property
    def config(self) -> FrameIstftConfig:
        """Rates and sizes, for the Spec."""
        return self._decoder.config

    def open(self, slot: int) -> None:
        """State for `slot`, before an utterance. Opening an open slot is our own bug: ValueError."""
        if slot in self._rows:
            raise ValueError(f"codec slot {slot} is open already")
        if not self._free:
            self._grow()
        self._rows[slot] = self._free.pop()
        self.reset(slot)

    def close(self, slot: int) -> None:
        """Frees the slot; KeyError if it isn't open."""
        self._free.append(self._rows.pop(slot))

    def reset(self, slot: int) -> None:
        """A new utterance starts: silence, no context."""
        self._state.put(self._index([slot]), self._fresh)

    @torch.inference_mode()
    def render(self, slots: Sequence[int], codes: Tensor) -> list[Tensor]:
        """codes int64 [len(slots), frames, groups] -> float32 [frames * frame_samples] each."""
        config = self.config
        if codes.ndim != 3 or codes.shape[0] != len(slots) or codes.shape[2] != config.groups:
            raise ValueError(f"codes must be [{len(slots)}, frames, {config.groups}], not {list(codes.shape)}")
        if not slots or not codes.shape[1]:
            return [torch.zeros(0) for _ in slots]
        if int(codes.min()) < 0 or int(codes.max()) >= config.codebook_size:
            raise ValueError(f"codes must lie in 0..{config.codebook_size - 1}: special ids don't belong in the codec")
        rows = self._index(slots)
        pcm, state = self._decoder(codes.to(rows.device), self._state.select(rows))
        self._state.put(rows, state)
        return list(pcm.clamp(-1.0, 1.0))

    def flush(self, slot: int) -> Tensor:
        """Always empty: nothing is withheld."""
        self._rows[slot]
        return torch.zeros(0)

    def memory_bytes(self) -> int:
        """State of the rows in use."""
        return self._fresh.memory_bytes() * len(self._rows)

    def _index(self, slots: Sequence[int]) -> Tensor:
        return torch.tensor([self._rows[slot] for slot in slots], device=self._decoder.head.weight.device)

    def _grow(self) -> None:
        """Doubles the rows; those in use keep theirs."""
        used = len(self._rows) + len(self._free)
        rows = max(4, 2 * used)
        state = self._decoder.state(rows)
        if used:
            kept = torch.arange(used, device=self._decoder.head.weight.device)
            state.put(kept, self._state.select(kept))
        self._state = state
        self._free.extend(range(used, rows))


def load(folder: Path, device: str = "cpu") -> FrameIstftCodec:
    """Reads `config.json` and the `code2wav.*` tensors of a checkpoint folder. Raises CheckpointError.

    Weights are kept as float32 whatever the file holds: they are small and phase accumulates.
    """
    try:
        config = FrameIstftConfig.from_dict(json.loads((folder / "config.json").read_text())["code2wav_config"])
    except (OSError, KeyError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{folder / 'config.json'} has no readable code2wav_config: {error!r}") from error
    weights: dict[str, Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        named = load_file(path)
        weights |= {
            name.removeprefix(PREFIX): value.float() for name, value in named.items() if name.startswith(PREFIX)
        }
    decoder = Decoder(config)
    try:
        decoder.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError(f"{folder}: {PREFIX}* tensors don't fit the config: {error}") from error
    return FrameIstftCodec(decoder.to(device))
