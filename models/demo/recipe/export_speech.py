"""Writes the talker and the codec as a checkpoint holds them: released names, 16 bit, sections of config.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from ..codec import PREFIX
from . import align, script
from .codec import VOICE
from .experts import experts_apart
from .flite import speak
from .speak import Trainer
from .work import work_folder

WEIGHTS = "speech.safetensors"
CONFIG = "speech_config.json"
HELD_OUT_SEED = 99


def tensors(trainer: Trainer) -> dict[str, Tensor]:
    """`talker.*` and `code2wav.*`, float16."""
    named: dict[str, Tensor] = {}
    for name, value in trainer.talker.state_dict().items():
        named |= {f"talker.{new}": part for new, part in experts_apart(name, value)}
    named |= {PREFIX + name: value for name, value in trainer.codec.decoder.state_dict().items()}
    largest = max(float(value.abs().max()) for value in named.values())
    if largest > torch.finfo(torch.float16).max:
        raise ValueError(f"a weight of {largest:.3g} does not fit 16 bits: the training went wrong")
    return {name: value.detach().to(torch.float16).contiguous().clone() for name, value in named.items()}


def configs(trainer: Trainer) -> dict[str, Any]:
    """The sections of config.json that are the speech half's."""
    return {"talker_config": trainer.config, "code2wav_config": trainer.codec.config.to_dict()}


def export(trainer: Trainer, folder: Path | None = None, measured: int = 40) -> Path:
    """Writes weights, configs and the alignment's calibration; gives the folder."""
    folder = folder or work_folder() / "speak"
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors(trainer), folder / WEIGHTS, metadata={"format": "pt"})
    (folder / CONFIG).write_text(json.dumps(configs(trainer), indent=1) + "\n")
    texts = script.sentences(HELD_OUT_SEED, measured, held_out=True)
    align.calibrate(trainer, [speak(text, VOICE) for text in texts]).save(folder)
    return folder
