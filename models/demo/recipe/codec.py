"""Trains the demo's codec: encoder, residual quantizer and decoder, on the voice that the model speaks with.

The decoder is trained on the spectrum of the sound it makes (several resolutions, no adversary), its pitch on the
voice's. Continuous for `WARM_STEPS`, then quantized. The encoder stays here: a served model only decodes.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..codec import Decoder, FrameIstftConfig
from . import analysis, script
from .flite import RATE_HZ, speak
from .quantizer import ResidualQuantizer
from .work import Progress, in_threads, load_state, save_state, work_folder

VOICE = "slt"
WARM_STEPS = 400
FRAMES = 20
"""Code frames of one training excerpt."""
SKIPPED = 3
"""Frames at its beginning that aren't judged where their left context was cut off."""
BATCH = 16
RATE = 1e-3
SENTENCES = 350


@dataclass
class Sounds:
    """Features of every training sentence. Lists over sentences; pcm float32 [samples], the rest [hops, ...]."""

    pcm: list[Tensor]
    mel: list[Tensor]
    f0_hz: list[Tensor]
    voiced: list[Tensor]


class EncoderBlock(nn.Module):
    """A ConvNeXt block that sees both sides."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(channels, channels, kernel, padding=kernel // 2, groups=channels)
        self.norm = nn.LayerNorm(channels)
        self.up = nn.Linear(channels, 2 * channels)
        self.down = nn.Linear(2 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """x [rows, channels, hops]."""
        y = self.norm(self.depthwise(x).transpose(1, 2))
        y = self.down(nn.functional.gelu(self.up(y)))
        summed: Tensor = x + y.transpose(1, 2)
        return summed


class Encoder(nn.Module):
    """Log-mel and pitch to one latent a code frame. It sees 50 ms beyond each side of a frame and no more, so that a
    sound's codes depend little on its neighbours: the talker has to predict them."""

    def __init__(self, config: FrameIstftConfig) -> None:
        super().__init__()
        self.config = config
        self.enter = nn.Conv1d(analysis.MELS + 2, config.fine_size, 3, padding=1)
        self.blocks = nn.ModuleList(EncoderBlock(config.fine_size, 5) for _ in range(2))
        self.gather = nn.Conv1d(config.fine_size, config.hidden_size, config.hops, stride=config.hops)
        self.leave = nn.Linear(config.hidden_size, config.code_dim)

    def forward(self, mel: Tensor, f0_hz: Tensor, voiced: Tensor) -> Tensor:
        """mel [rows, hops, mels], f0_hz and voiced [rows, hops] -> [rows, hops / config.hops, code_dim]."""
        pitch = torch.log(f0_hz / 170.0) * 4.0
        x = torch.cat([(mel + 5.0) / 2.0, pitch[..., None], voiced[..., None]], dim=2).transpose(1, 2)
        x = self.enter(x)
        for block in self.blocks:
            x = block(x)
        latent: Tensor = self.leave(nn.functional.gelu(self.gather(x).transpose(1, 2)))
        return latent


def features(pcm: Tensor, config: FrameIstftConfig) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """pcm [samples], padded here to whole code frames -> pcm, mel, f0_hz, voiced."""
    padded = nn.functional.pad(pcm, (0, -len(pcm) % config.frame_samples))
    f0_hz, voiced = analysis.pitch(padded.numpy(), RATE_HZ, config.hop, config.f0_min_hz, config.f0_max_hz)
    mel = analysis.log_mel(padded[None], RATE_HZ, config.hop)[0]
    return padded, mel, torch.from_numpy(f0_hz), torch.from_numpy(voiced)


def sounds(config: FrameIstftConfig, count: int, seed: int) -> Sounds:
    """Synthesizes `count` training sentences."""

    def one(text: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return features(torch.from_numpy(np.array(speak(text, VOICE).pcm)), config)

    made = in_threads(one, script.sentences(seed, count, held_out=False), "codec: sentences")
    return Sounds(*map(list, zip(*made, strict=True)))


def excerpts(
    data: Sounds, config: FrameIstftConfig, generator: torch.Generator, *, beginnings: bool
) -> tuple[Tensor, ...]:
    """A batch: pcm, mel, f0_hz, voiced, each [BATCH, ...] of FRAMES code frames; short sentences are padded.

    `beginnings` True takes the first frames of sentences, False any.
    """
    rows: list[list[Tensor]] = [[], [], [], []]
    for _ in range(BATCH):
        index = int(torch.randint(len(data.pcm), (1,), generator=generator))
        frames = len(data.pcm[index]) // config.frame_samples
        latest = 0 if beginnings else max(frames - FRAMES, 0)
        start = int(torch.randint(latest + 1, (1,), generator=generator))
        for place, (values, size) in enumerate(
            zip(vars(data).values(), (config.frame_samples, *[config.hops] * 3), strict=True)
        ):
            piece = values[index][start * size : (start + FRAMES) * size]
            rows[place].append(_padded(piece, FRAMES * size))
    return tuple(torch.stack(row) for row in rows)


def _padded(piece: Tensor, length: int) -> Tensor:
    """The last value goes on (silence, for these sentences)."""
    missing = length - len(piece)
    return torch.cat([piece, piece[-1:].expand(missing, *piece.shape[1:])]) if missing else piece


def spectral_loss(made: Tensor, true: Tensor) -> Tensor:
    """Mean absolute difference of log magnitudes, three resolutions and mel. [rows, samples] each."""
    loss = (analysis.log_mel(made, RATE_HZ, 160) - analysis.log_mel(true, RATE_HZ, 160)).abs().mean() * 2
    for n_fft in (256, 512, 1024):
        a, b = (analysis.magnitudes(pcm, n_fft, n_fft // 4) for pcm in (made, true))
        loss = loss + (torch.log(a + 1e-3) - torch.log(b + 1e-3)).abs().mean() * 0.5
    return loss


class Trainer:
    """Encoder, quantizer and decoder with their optimizer. Resumes from `codec.pt` in the work folder."""

    def __init__(self, config: FrameIstftConfig, seed: int = 11) -> None:
        torch.manual_seed(seed)
        self.config, self.step = config, 0
        self.encoder_step = 0  # the last that changed codes: what was encoded before it is stale
        self.encoder, self.decoder = Encoder(config), Decoder(config)
        self.decoder.codebooks.requires_grad_(False)
        self.quantizer = ResidualQuantizer(self.decoder.codebooks.data, seed)
        weights = [p for p in (*self.encoder.parameters(), *self.decoder.parameters()) if p.requires_grad]
        self.optimizer = torch.optim.AdamW(weights, lr=RATE, betas=(0.9, 0.98), weight_decay=0.01)
        self.generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():  # start near silence's neighbourhood, not at full scale
            self.decoder.head.bias[1:] = -5.0

    @property
    def path(self) -> Path:
        """Where the state is kept."""
        return work_folder() / "codec.pt"

    def resume(self) -> None:
        """Continues where `save` left off, if it ever did."""
        state = load_state(self.path)
        if state is None:
            return
        self.step = state["step"]
        self.encoder_step = state.get("encoder_step", self.step)
        for name in ("encoder", "decoder", "optimizer", "quantizer"):
            getattr(self, name).load_state_dict(state[name])
        self.generator.set_state(state["random"])

    def save(self) -> None:
        """Writes the whole state."""
        parts = {name: getattr(self, name).state_dict() for name in ("encoder", "decoder", "optimizer", "quantizer")}
        save_state(
            self.path,
            {"step": self.step, "encoder_step": self.encoder_step, "random": self.generator.get_state(), **parts},
        )

    def update(self, data: Sounds, progress: float, *, frozen: bool = False) -> dict[str, float]:
        """One step; progress 0..1 of the time there is sets the learning rate. `frozen`: codes stay what they are."""
        beginnings = self.step % 3 == 0
        skipped = 0 if beginnings else SKIPPED
        pcm, mel, f0_hz, voiced = excerpts(data, self.config, self.generator, beginnings=beginnings)
        with torch.set_grad_enabled(not frozen):
            latent = self.encoder(mel, f0_hz, voiced)
        latent, commitment = self._quantized(latent, data, frozen=frozen)
        blank = self.decoder.state(BATCH)
        made_f0_hz, spectra, _ = self.decoder.parameters_of(latent, blank.contexts)
        made, _ = self.decoder.synthesis(f0_hz, spectra, blank.synthesis)
        first = skipped * self.config.frame_samples
        spectral = spectral_loss(made[:, first:], pcm[:, first:])
        cents = (torch.log(made_f0_hz) - torch.log(f0_hz)).abs()
        tonal = (cents * (voiced + 0.02))[:, skipped * self.config.hops :].mean()
        loss = spectral + 8.0 * tonal + 0.25 * commitment
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_([p for group in self.optimizer.param_groups for p in group["params"]], 1.0)
        for group in self.optimizer.param_groups:
            group["lr"] = RATE * min(1.0, (self.step + 1) / 50) * (0.02 + 0.98 * math.cos(math.pi / 2 * progress))
        self.optimizer.step()
        self.step += 1
        self.encoder_step = self.encoder_step if frozen else self.step
        return {"spectral": spectral.item(), "pitch": tonal.item(), "commitment": commitment.item()}

    def _quantized(self, latent: Tensor, data: Sounds, *, frozen: bool) -> tuple[Tensor, Tensor]:
        """The latent as the decoder gets it, gradients straight through, and how far it was from its codes."""
        flat = latent.detach().reshape(-1, latent.shape[-1])
        if frozen:
            return self.decoder.dequantize(self.quantizer.codes(flat).view(*latent.shape[:2], -1)), torch.zeros(())
        if self.step < WARM_STEPS:
            return latent, torch.zeros(())
        if self.step == WARM_STEPS:
            self._start_codebooks(data)
        quantized = self.quantizer.learn(flat, self._kept(len(flat))).view_as(latent)
        return latent + (quantized - latent).detach(), (latent - quantized).pow(2).mean()

    def _kept(self, count: int) -> Tensor:
        """How many groups each latent keeps: all, or for one excerpt in three any number."""
        some = torch.randint(1, self.config.groups + 1, (BATCH,), generator=self.generator)
        all_of_them = torch.rand(BATCH, generator=self.generator) < 0.67
        return torch.where(all_of_them, self.config.groups, some).repeat_interleave(count // BATCH)

    @torch.no_grad()
    def _start_codebooks(self, data: Sounds) -> None:
        batches = [self.encoder(*excerpts(data, self.config, self.generator, beginnings=False)[1:]) for _ in range(40)]
        self.quantizer.start(torch.cat(batches).reshape(-1, self.config.code_dim))

    @torch.no_grad()
    def encode(self, pcm: Tensor) -> Tensor:
        """pcm [samples] -> codes int64 [frames, groups]; the sound is padded to whole frames."""
        _, mel, f0_hz, voiced = features(pcm, self.config)
        return self.quantizer.codes(self.encoder(mel[None], f0_hz[None], voiced[None])[0])


def train(minutes: float, *, frozen: bool = False) -> Trainer:
    """Trains for `minutes` more, from where it stopped, and saves. The learning rate falls to nothing over the run.

    `frozen` trains the decoder alone: codes mean what they meant, so that a talker that knows them stays right.
    """
    trainer = Trainer(FrameIstftConfig())
    trainer.resume()
    if minutes <= 0:
        return trainer
    data = sounds(trainer.config, SENTENCES, seed=1)
    begin = saved = time.monotonic()
    bar = Progress("codec: training")
    while (passed := time.monotonic() - begin) < minutes * 60:
        figures = trainer.update(data, passed / (minutes * 60), frozen=frozen)
        bar.show(passed / (minutes * 60), step=trainer.step, **figures)
        if time.monotonic() - saved > 60:
            trainer.save()
            saved = time.monotonic()
    trainer.save()
    bar.done()
    return trainer
