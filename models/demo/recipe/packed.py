"""Many clips or pictures at once, for the towers' training.

transformers' towers lay a batch's sequences end to end and, without flash-attn, attend to one after the other: a
hundred small products where one will do. Here they are padded to the longest and attend together. The result is the
same but for rounding. What the audio tower works out of the clips' lengths, clip by clip, is worked out beforehand.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, PreTrainedModel
from transformers.models.qwen3_omni_moe import modeling_qwen3_omni_moe as theirs

from . import shapes

_ATTENTION = "padded_flash"
"""Where "flash" is in the name, transformers hands over where the sequences begin."""
T = TypeVar("T", bound=PreTrainedModel)


def attention(
    _module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None = None,
    *,
    cu_seq_lens_q: Tensor,
    max_length_q: int | Tensor,
    scaling: float | None = None,
    **_unused: Any,
) -> tuple[Tensor, None]:
    """query, key, value [1, heads, tokens, width] of sequences end to end, `cu_seq_lens_q` int [n + 1] where each
    begins -> [1, tokens, heads, width]. There is no mask but that of who belongs together."""
    assert attention_mask is None
    lengths = cu_seq_lens_q.diff().long()
    longest, count = int(max_length_q), len(lengths)
    own = torch.arange(longest, device=query.device) < lengths[:, None]  # [n, longest]
    at = own.flatten().nonzero()[:, 0]

    def padded(flat: Tensor) -> Tensor:
        _, heads, _, width = flat.shape
        rows = flat.new_zeros(count * longest, heads, width).index_copy(0, at, flat[0].transpose(0, 1))
        return rows.view(count, longest, heads, width).transpose(1, 2)

    out = functional.scaled_dot_product_attention(
        padded(query), padded(key), padded(value), own[:, None, None], scale=scaling
    )
    return out.transpose(1, 2).flatten(0, 1)[at][None], None


ALL_ATTENTION_FUNCTIONS.register(_ATTENTION, attention)


def attending_together(tower: T) -> T:
    """The tower, its sequences padded from now on. (At its making transformers would look for a kernel.)"""
    tower.config._attn_implementation = _ATTENTION
    return tower


def token_count(mel_frames: int) -> int:
    """Audio tokens of so many mel frames: 13 for each 100, and one for each 8 begun in the rest."""
    whole, rest = divmod(mel_frames, 100)
    return whole * 13 + (rest + 7) // 8


@dataclass(frozen=True)
class Sounds:
    """Clips as the audio tower takes them: chunks [n, 128, at most 100] of log-mel; valid int64 [tokens], which of the
    chunks' places are none of the padding; starts int32, where attention windows begin; counts, each clip's tokens."""

    chunks: Tensor
    valid: Tensor
    starts: Tensor
    counts: tuple[int, ...]

    def to(self, device: torch.device) -> "Sounds":
        """The same on a device."""
        return Sounds(self.chunks.to(device), self.valid.to(device), self.starts.to(device), self.counts)

    def through(self, tower: theirs.Qwen3OmniMoeAudioEncoder) -> Tensor:
        """[tokens of all clips, hidden]."""
        out = tower(
            padded_feature=self.chunks,
            chunk_lengths=self.valid,  # read by nothing once the rest is given
            valid_indices=self.valid,
            cu_seqlens=self.starts,
            max_seqlen=max(self.counts),
        )
        hidden: Tensor = out.last_hidden_state
        return hidden


def sounds(mels: Sequence[Tensor]) -> Sounds:
    """Log-mels [128, frames] -> what the tower takes."""
    window = shapes.AUDIO["n_window"]
    frames = torch.tensor([one.shape[1] for one in mels])
    chunks, lengths = theirs.chunk_and_pad_features(torch.cat(list(mels), 1), frames, window)
    valid = theirs.get_valid_indices(lengths, window)
    starts = theirs.get_audio_cu_seqlens(lengths, frames, shapes.AUDIO["n_window_infer"], window)
    return Sounds(chunks.contiguous(), valid, starts, tuple(map(token_count, frames.tolist())))


def padded(flat: Tensor, counts: Sequence[int]) -> Tensor:
    """[all rows, width] of sequences end to end -> [longest, n, width], zeros after their ends."""
    lengths = torch.tensor(counts)
    own = torch.arange(max(counts)) < lengths[:, None]
    at = own.flatten().nonzero()[:, 0].to(flat.device)
    rows = flat.new_zeros(own.numel(), flat.shape[1]).index_copy(0, at, flat)
    return rows.view(*own.shape, -1).transpose(0, 1)
