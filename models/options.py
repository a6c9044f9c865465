"""How a checkpoint is brought onto a device."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LoadOptions:
    """How a checkpoint is brought onto a device."""

    device: str = "auto"
    """``auto``, ``cpu``, ``cuda`` or ``cuda:N``."""
    dtype: str = "auto"
    """``auto`` (bf16 on CUDA, and for a large model on a CPU that computes with it; else float32), ``float32``,
    ``bfloat16`` or ``float16``."""
    slots: int = 8
    """Conversations that may be open at once, forks included."""
    kv_tokens: int = 0
    """KV budget over all slots, in tokens; 0 = slots x a family's usual conversation."""
    audio_mode: str = "exact"
    """``exact`` or ``append`` (FACTS: fixed short windows, append-only)."""
    threads: int = 0
    """CPU threads of one operation; 0 = one for a small model (see models.threads), else torch's own choice."""
    graphs: str = "auto"
    """One launch a step over buffers that stay: ``auto`` (CUDA graphs on CUDA), ``off``, or ``on`` (on a CPU the same
    step without a graph: what tests compare)."""
    weights: str = "full"
    """The thinker's experts in ``full`` precision (``dtype``), ``int8`` or ``fp8``: half their memory, a little off."""

    def __post_init__(self) -> None:
        if self.threads < 0:
            raise ValueError(f"threads must be 0 (choose for me) or more, not {self.threads}")
        if self.audio_mode not in ("exact", "append"):
            raise ValueError(f"audio_mode is 'exact' or 'append', not {self.audio_mode!r}")
        if self.graphs not in ("auto", "on", "off"):
            raise ValueError(f"graphs is 'auto', 'on' or 'off', not {self.graphs!r}")
        if self.weights not in ("full", "int8", "fp8"):
            raise ValueError(f"weights is 'full', 'int8' or 'fp8', not {self.weights!r}")
        if self.slots < 1:
            raise ValueError(f"slots must be at least 1, not {self.slots}")
