"""The small checkpoint that ships with Parley: its own codec, and how all of it was made."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from models.base import Codec, LoadOptions
    from models.registry import CodecSpec

CODEC_TYPES = ("frame_istft",)


def load_codec(folder: Path, options: LoadOptions) -> tuple[Codec, CodecSpec]:
    """Loads the frame-rate codec of a checkpoint folder. Raises CheckpointError."""
    from models.demo.codec import load
    from models.registry import CodecSpec

    codec = load(folder, options.device)
    config = codec.config
    return codec, CodecSpec(config.sample_rate_hz, config.frame_samples, config.groups)
