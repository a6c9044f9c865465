"""Qwen3-Omni (arXiv 2509.17765): MoE thinker that hears and sees, MoE talker with a code predictor, causal code2wav.

Light on purpose: importing this loads no torch (the registry imports every family to learn its model types). Its
functions are not named as its modules are: importing ``qwen3_omni.load`` sets ``load`` here.
"""

from __future__ import annotations

from pathlib import Path

from models.base import LoadOptions, Model

MODEL_TYPES = ("qwen3_omni_moe",)


def load_model(folder: Path, options: LoadOptions) -> Model:
    """Loads a checkpoint folder. Raises CheckpointError."""
    from models.qwen3_omni.load import load

    return load(folder, options)


def write_tiny(folder: Path, seed: int = 0) -> Path:
    """Writes a random checkpoint in the released layout into ``folder``, in seconds; gives ``folder``."""
    from models.qwen3_omni.tiny import tiny

    return tiny(folder, seed)
