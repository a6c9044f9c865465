"""The codec of a checkpoint with code2wav: a row of state a slot."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from models.base import SlotsExhausted
from models.qwen3_omni.codec import CHUNK_FRAMES, Code2Wav, Code2WavConfig, State


class Code2WavCodec:
    """``models.base.Codec`` over one ``Code2Wav``: a row of state a slot."""

    def __init__(self, model: Code2Wav, slots: int) -> None:
        self._model = model.eval().requires_grad_(False)
        self._state = State(model, slots + 1)
        self.nobody = (slots, model.config.withheld_samples)
        """A row that is nobody's, past its undefined beginning."""
        self._row: dict[int, int] = {}
        self._free = list(range(slots))[::-1]

    @property
    def config(self) -> Code2WavConfig:
        """Rates and sizes, for the Spec."""
        return self._model.config

    def open(self, slot: int) -> None:
        """State for ``slot``, before an utterance. Opening an open slot is our own bug: ValueError."""
        if slot in self._row:
            raise ValueError(f"codec slot {slot} is open already")
        if not self._free:
            raise SlotsExhausted(f"all {len(self._row)} codec slots are taken: close a session")
        self._row[slot] = self._free.pop()
        self.reset(slot)

    def close(self, slot: int) -> None:
        """Frees the slot; KeyError if it isn't open."""
        self._free.append(self._row.pop(slot))

    def reset(self, slot: int) -> None:
        """A new utterance starts."""
        self._state.reset(self._row[slot])

    @torch.inference_mode()
    def render(self, slots: Sequence[int], codes: torch.Tensor) -> list[torch.Tensor]:
        """codes int64 [len(slots), frames, groups] -> float32 [samples] each, on the model's device."""
        config = self._model.config
        if codes.ndim != 3 or codes.shape[0] != len(slots) or codes.shape[2] != config.num_quantizers:
            raise ValueError(f"codes must be [{len(slots)}, frames, {config.num_quantizers}], not {list(codes.shape)}")
        if not slots or not codes.shape[1]:
            return [torch.zeros(0) for _ in slots]
        if bool(((codes < 0) | (codes >= config.codebook_size)).any()):
            raise ValueError(f"codes must lie in 0..{config.codebook_size - 1}: marks don't belong in the codec")
        rows = [self._row[slot] for slot in slots]
        starts = [self._state.frames[row] for row in rows]
        device = self._model.code_embedding.weight.device
        pieces = [self._frames(piece, rows) for piece in torch.split(codes.to(device), CHUNK_FRAMES, dim=1)]
        pcm = (pieces[0] if len(pieces) == 1 else torch.cat(pieces, 1)).float()
        missing = [max(0, config.withheld_samples - start * config.frame_samples) for start in starts]
        return [row[skip:] for row, skip in zip(pcm, missing, strict=True)]

    def _frames(self, codes: torch.Tensor, rows: list[int]) -> torch.Tensor:
        """At most CHUNK_FRAMES frames of ``rows``."""
        frames = self._state.frames
        pcm: torch.Tensor = self._model(codes, self._state, rows, [frames[row] for row in rows])
        for row in rows:
            frames[row] += codes.shape[1]
        return pcm

    # --- frames that are made together with their codes (speech_step.py)

    def place(self, slot: int) -> tuple[int, int]:
        """The slot's row, and the frames that it has had: what ``step`` is given of it."""
        row = self._row[slot]
        return row, self._state.frames[row]

    def step(self, codes: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        """The next frame of some rows without the host: codes int64 [rows, groups] and ``places`` [rows, 2] ->
        [rows, frame samples]. What is no code of ours, the end for one, sounds like one."""
        valid = codes.clamp(0, self._model.config.codebook_size - 1).unsqueeze(1)
        pcm: torch.Tensor = self._model(valid, self._state, places[:, 0], places[:, 1])
        return pcm.float()

    def made(self, slot: int, pcm: torch.Tensor) -> torch.Tensor:
        """``slot`` is a frame further on: of ``pcm`` [frame samples], which ``step`` made, what is defined."""
        config, row = self._model.config, self._row[slot]
        missing = max(0, config.withheld_samples - self._state.frames[row] * config.frame_samples)
        self._state.frames[row] += 1
        return pcm[missing:]

    def flush(self, slot: int) -> torch.Tensor:
        """Always empty: a whole decode gives nothing more either."""
        self._row[slot]
        return torch.zeros(0)

    def memory_bytes(self) -> int:
        """State of the rows in use."""
        return self._state.row_bytes() * len(self._row)
