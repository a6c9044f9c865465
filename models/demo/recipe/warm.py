"""Goes on from a checkpoint that was exported, where no work folder is left.

A checkpoint holds what serves. What only training needs (the codec's encoder and the quantizer's averages) lies in its
folder `training`, which no loader looks into: `keep` writes it, `restore` reads it. Optimizers begin anew.
"""

import shutil
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..codec import PREFIX, FrameIstftConfig
from . import codec, see, speak, think
from . import talker as tk
from .reference import TALKER, own_names
from .work import save_state

KEPT = "training/kept.safetensors"


def keep(work: Path, checkpoint: Path) -> Path:
    """Writes what training needs and the exported `checkpoint` lacks."""
    _, thought = think.open_student(work, averaged=True)
    speaker = speak.train(0)
    voice = speaker.codec
    encoder = {f"encoder.{name}": value for name, value in voice.encoder.state_dict().items()}
    half = {name: value.detach().to(torch.float16).contiguous() for name, value in encoder.items()}
    averages = {"quantizer.counts": voice.quantizer.counts, "quantizer.sums": voice.quantizer.sums}
    file = checkpoint / KEPT
    file.parent.mkdir(exist_ok=True)
    steps = {"think": thought, "codec": voice.step, "speak": speaker.step}
    save_file(half | averages, file, metadata={name: str(step) for name, step in steps.items()})
    return file


def restore(work: Path, checkpoint: Path) -> bool:
    """Fills an empty work folder (`$PARLEY_DEMO_WORK`) from a checkpoint. False, and nothing done, where training has
    begun or there is nothing to go on from."""
    file = checkpoint / KEPT
    begun = any(
        (work / name).exists() for name in ("hear.pt", "couple.pt", "see.pt", "think.pt", "codec.pt", "speak.pt")
    )
    if begun or not (checkpoint / "config.json").exists() or not file.exists():
        return False
    weights = {name: value for part in checkpoint.glob("model*.safetensors") for name, value in load_file(part).items()}
    _tokenizer(work / "tokenizer", checkpoint, weights)
    kept = load_file(file)
    with safe_open(file, "pt") as opened:
        steps = {name: int(step) for name, step in opened.metadata().items()}
    _thinker(work, weights, steps["think"])
    _codec(weights, kept, steps["codec"])
    _talker(weights, steps["speak"])
    return True


def _tokenizer(folder: Path, checkpoint: Path, weights: dict[str, Tensor]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("tokenizer.json", "vocab.json", "merges.txt", "tokenizer_config.json"):
        shutil.copy(checkpoint / name, folder / name)
    table = "thinker.model.embed_tokens.weight"
    save_file({table: weights[table].to(torch.bfloat16)}, folder / "embed.safetensors")


def _thinker(work: Path, weights: dict[str, Tensor], step: int) -> None:
    model = think.Thinking(weights["thinker.model.embed_tokens.weight"].float())
    missing = model.load_state_dict(own_names(weights), strict=False).missing_keys
    _begin_as_nothing(model, missing)
    taught = think.own(model.state_dict())
    save_state(work / "think.pt", {"model": taught, "average": taught, "step": step})
    save_state(work / "couple.pt", {"model": model.hearing.state_dict(), "step": step})
    seeing, _ = see.opened(work)
    seeing.tower.load_state_dict(model.visual.state_dict())
    save_state(work / "see.pt", {"model": seeing.state_dict(), "step": step})


def _begin_as_nothing(model: think.Thinking, missing: list[str]) -> None:
    """Layers of the audio tower that the checkpoint lacks, because it was made when the tower was smaller, add nothing
    to what flows through them before they have learnt."""
    with torch.no_grad():
        for name, value in model.named_parameters():
            if name in missing and ("out_proj" in name or "fc2" in name):
                value.zero_()


def _codec(weights: dict[str, Tensor], kept: dict[str, Tensor], step: int) -> None:
    trainer = codec.Trainer(FrameIstftConfig())
    decoder = {name.removeprefix(PREFIX): value.float() for name, value in weights.items() if name.startswith(PREFIX)}
    trainer.decoder.load_state_dict(decoder)
    encoder = {n.removeprefix("encoder."): value.float() for n, value in kept.items() if n.startswith("encoder.")}
    trainer.encoder.load_state_dict(encoder)
    trainer.quantizer.counts.copy_(kept["quantizer.counts"])
    trainer.quantizer.sums.copy_(kept["quantizer.sums"])
    trainer.step = trainer.encoder_step = step
    trainer.save()


def _talker(weights: dict[str, Tensor], step: int) -> None:
    trainer = speak.Trainer(codec.train(0), tk.Vocabulary.load())
    trainer.talker.load_state_dict(own_names(weights, TALKER))
    trainer.step = step
    trainer.save()
