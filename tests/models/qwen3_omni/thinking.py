"""Our thinker and transformers' on one random checkpoint, and a prompt given to both."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import Qwen2VLImageProcessorPil, Qwen3OmniMoeForConditionalGeneration, WhisperFeatureExtractor

from models.base import Audio, Part, Pcm, Pixels
from models.qwen3_omni.config import CAMERA_PIXELS, read_thinker
from models.qwen3_omni.decoder import ThinkerNet
from models.qwen3_omni.thinker import OmniThinker

RATE_HZ = 16_000


def build(folder: Path, slots: int = 8, kv_tokens: int = 40_000, append_chunks: int = 0) -> OmniThinker:
    """Our thinker on the checkpoint in ``folder``, float32 on the CPU; in ``append`` mode with so many chunks."""
    config = read_thinker(folder)
    if append_chunks:
        config = replace(config, audio=config.audio.append_windows(append_chunks))
    with torch.device("meta"):
        net = ThinkerNet(config)
    tensors = {
        name.removeprefix("thinker."): value
        for name, value in load_file(folder / "model.safetensors").items()
        if name.startswith("thinker.")
    }
    net.load_state_dict(_fused(tensors), assign=True)
    top = json.loads((folder / "config.json").read_text())
    return OmniThinker(
        net,
        accept_layer=top["talker_config"]["accept_hidden_layer"],
        eos=frozenset({top["im_end_token_id"]}),
        slots=slots,
        kv_tokens=kv_tokens,
    )


def _fused(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    found = {name: value for name, value in tensors.items() if ".experts." not in name}
    blocks = {match[1] for name in tensors if (match := re.match(r"(.*\.experts)\.\d+\.", name))}
    for block in blocks:
        count = len({name.split(".experts.")[1].split(".")[0] for name in tensors if name.startswith(block + ".")})
        rows = [[tensors[f"{block}.{e}.{p}_proj.weight"] for p in ("gate", "up", "down")] for e in range(count)]
        found[f"{block}.gate_up_proj"] = torch.stack([torch.cat((gate, up)) for gate, up, _ in rows])
        found[f"{block}.down_proj"] = torch.stack([down for _, _, down in rows])
    return found


@dataclass
class Seen:
    """What a slot's prefills gave, position by position."""

    ids: list[int] = field(default_factory=list)
    hidden: list[torch.Tensor] = field(default_factory=list)
    multimodal: list[bool] = field(default_factory=list)


def settle(thinker: OmniThinker, slot: int, seen: Seen | None = None, max_tokens: int = 10_000) -> Seen:
    """Encodes and prefills until nothing is left to do."""
    seen = seen or Seen()
    while thinker.unencoded(slot) or thinker.pending(slot):
        if thinker.unencoded(slot):
            thinker.encode([slot])
        for done in thinker.prefill([slot], max_tokens):
            del seen.ids[done.start :], seen.hidden[done.start :], seen.multimodal[done.start :]
            seen.ids.extend(done.ids.tolist())
            seen.hidden.extend(done.hidden)
            seen.multimodal.extend(done.multimodal.tolist())
    return seen


def logits(thinker: OmniThinker, slot: int) -> torch.Tensor:
    """What the next token will be drawn from, [vocabulary]."""
    hidden = thinker._slots[slot].state.hidden
    assert hidden is not None
    return thinker._net.lm_head(hidden)


def speech(seconds: float, seed: int = 0, silence: bool = True) -> Pcm:
    """Noise that wanders in loudness and pitch like speech, with pauses."""
    random = np.random.default_rng(seed)
    samples = int(seconds * RATE_HZ)
    blocks = samples // 1600 + 1
    loudness = np.repeat(random.uniform(0.002, 0.5, blocks) * (random.random(blocks) > 0.2 * silence), 1600)[:samples]
    tone = np.sin(np.cumsum(np.repeat(random.uniform(0.03, 0.8, blocks), 1600)[:samples]))
    return ((tone + 0.3 * random.standard_normal(samples)) * loudness).clip(-1, 1).astype(np.float32)


def picture(height: int, width: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def in_pieces(pcm: Pcm, cuts: Sequence[int]) -> list[Part]:
    """One stretch of audio cut at ``cuts`` (taken modulo its length)."""
    edges = sorted({0, len(pcm), *(cut % (len(pcm) + 1) for cut in cuts)})
    parts: list[Part] = [Audio(pcm[a:b], final=False) for a, b in pairwise(edges)]
    last = parts[-1]
    assert isinstance(last, Audio)
    return [*parts[:-1], Audio(last.pcm, final=True)]


class Oracle:
    """transformers' thinker, given the whole prompt at once. Build the prompt with ``text``, ``audio`` ... in order."""

    def __init__(self, folder: Path, append_chunks: int = 0) -> None:
        model = Qwen3OmniMoeForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
        self.model = model.eval()
        self.thinker = model.thinker
        if append_chunks:
            self.thinker.model.audio_tower.n_window_infer = 100 * append_chunks
        self.config = model.config.thinker_config
        self.accept = model.config.talker_config.accept_hidden_layer
        self.mel = WhisperFeatureExtractor.from_pretrained(folder)
        self.images = Qwen2VLImageProcessorPil.from_pretrained(folder)

    def prompt(self) -> OraclePrompt:
        return OraclePrompt(self)


class OraclePrompt:
    """A prompt being written; ``run`` gives (logits [n, vocabulary], hidden [n, hidden], positions [3, n])."""

    def __init__(self, oracle: Oracle) -> None:
        self._oracle = oracle
        self.ids: list[int] = []
        self._mels: list[torch.Tensor] = []
        self._images: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._videos: list[tuple[torch.Tensor, torch.Tensor, float]] = []

    def text(self, *ids: int) -> OraclePrompt:
        self.ids.extend(ids)
        return self

    def audio(self, pcm: Pcm) -> OraclePrompt:
        config = self._oracle.config
        self.ids += [config.audio_start_token_id, *[config.audio_token_id] * self._mel(pcm), config.audio_end_token_id]
        return self

    def image(self, pixels: Pixels) -> OraclePrompt:
        config = self._oracle.config
        found = self._oracle.images(Image.fromarray(pixels), return_tensors="pt", size=_size(self._oracle.images, None))
        grid = found["image_grid_thw"]
        self._images.append((found["pixel_values"], grid))
        count = int(grid.prod()) // 4
        self.ids += [config.vision_start_token_id, *[config.image_token_id] * count, config.vision_end_token_id]
        return self

    def video(self, frames: Sequence[Pixels], rate_hz: float, pcm: Pcm | None = None) -> OraclePrompt:
        """Frames at 0, 1 / rate, 2 / rate ...; with ``pcm`` interleaved with it (use_audio_in_video)."""
        config = self._oracle.config
        frames = [*frames, frames[-1]] if len(frames) % 2 else list(frames)
        size = _size(self._oracle.images, CAMERA_PIXELS)
        found = [self._oracle.images(Image.fromarray(frame), return_tensors="pt", size=size) for frame in frames]
        rows, columns = found[0]["image_grid_thw"][0, 1:].tolist()
        # The image processor doubles a frame in time; a grid of two frames takes one half from each.
        values = [f["pixel_values"].view(rows * columns, 3, 2, -1) for f in found]
        grids = [
            torch.stack((a[:, :, 0], b[:, :, 0]), 2).flatten(1) for a, b in zip(values[::2], values[1::2], strict=True)
        ]
        seconds = 2 / rate_hz
        self._videos.append((torch.cat(grids), torch.tensor([[len(grids), rows, columns]]), seconds))
        times = [
            i * seconds * config.position_id_per_seconds for i in range(len(grids)) for _ in range(rows * columns // 4)
        ]
        start, end, audio_start, audio_end, video = (
            config.vision_start_token_id,
            config.vision_end_token_id,
            config.audio_start_token_id,
            config.audio_end_token_id,
            config.video_token_id,
        )
        if pcm is None:
            self.ids += [start, *[video] * len(times), end]
            return self
        order = [(t, 0, video) for t in times] + [(a, 1, config.audio_token_id) for a in range(self._mel(pcm))]
        self.ids += [start, audio_start, *(token for _, _, token in sorted(order)), audio_end, end]
        return self

    def _mel(self, pcm: Pcm) -> int:
        """Adds a clip's features; gives the number of its tokens."""
        found = self._oracle.mel(pcm, sampling_rate=RATE_HZ, padding=True, truncation=False, return_attention_mask=True)
        features = torch.from_numpy(found["input_features"][0][:, : found["attention_mask"][0].sum()])
        self._mels.append(features)
        whole, rest = divmod(features.shape[1], 100)
        return whole * 13 + -(-rest // 8)

    def inputs(self) -> dict[str, torch.Tensor]:
        """Keyword arguments for transformers."""
        made: dict[str, torch.Tensor] = {"input_ids": torch.tensor([self.ids])}
        made["attention_mask"] = torch.ones_like(made["input_ids"])
        if self._mels:
            longest = max(mel.shape[1] for mel in self._mels)
            pad = torch.nn.functional.pad
            made["input_features"] = torch.stack([pad(mel, (0, longest - mel.shape[1])) for mel in self._mels])
            made["feature_attention_mask"] = torch.tensor(
                [[1] * mel.shape[1] + [0] * (longest - mel.shape[1]) for mel in self._mels]
            )
        if self._images:
            made["pixel_values"] = torch.cat([values for values, _ in self._images])
            made["image_grid_thw"] = torch.cat([grid for _, grid in self._images])
        if self._videos:
            made["pixel_values_videos"] = torch.cat([values for values, _, _ in self._videos])
            made["video_grid_thw"] = torch.cat([grid for _, grid, _ in self._videos])
            made["video_second_per_grid"] = torch.tensor([seconds for _, _, seconds in self._videos])
        return made

    def positions(self, in_video: bool) -> torch.Tensor:
        """float32 [3, n]"""
        made = self.inputs()
        mask = made.get("feature_attention_mask")
        found, _ = self._oracle.thinker.model.get_rope_index(
            made["input_ids"],
            made.get("image_grid_thw"),
            made.get("video_grid_thw"),
            made["attention_mask"],
            in_video,
            None if mask is None else mask.sum(1),
            made.get("video_second_per_grid"),
        )
        return found[:, 0]

    @torch.no_grad()
    def run(self, in_video: bool = False) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        out = self._oracle.thinker(**self.inputs(), use_audio_in_video=in_video, output_hidden_states=True)
        return out.logits[0], out.hidden_states[self._oracle.accept][0], self.positions(in_video)


def _size(images: Qwen2VLImageProcessorPil, budget: int | None) -> dict[str, int]:
    size = images.size
    longest = budget or min(1024 * 32 * 32, size["longest_edge"])
    return {"shortest_edge": size["shortest_edge"], "longest_edge": longest}
