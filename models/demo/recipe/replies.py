"""What the talker learns from: spoken replies as codec frames, with the text and where each word lies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from . import script
from .codec import VOICE, Trainer
from .flite import RATE_HZ, Utterance, speak
from .talker import Vocabulary
from .work import Progress, in_threads, load_state, save_state, work_folder

SEED = 2
COUNT = 1600


@dataclass(frozen=True)
class Reply:
    """One spoken reply.

    ids        int64 [tokens], the thinker's tokens
    codes      int64 [frames, groups]
    spoken     bool [frames, tokens]: the tokens of the word that frame says (in a pause: of the word before it)
    """

    text: str
    ids: Tensor
    codes: Tensor
    spoken: Tensor


def recordings(count: int = COUNT) -> list[Utterance]:
    """The training sentences, spoken: the desk's own and `count` with their slots filled at random. Those once made are
    kept in the work folder."""
    path = work_folder() / "replies.pt"
    known = load_state(path) or {"texts": [], "pcm": [], "words": []}
    made = {
        text: Utterance(text, pcm.numpy().astype(np.float32) / np.float32(32768), (), tuple(map(tuple, words)))
        for text, pcm, words in zip(known["texts"], known["pcm"], known["words"], strict=True)
    }
    texts = list(dict.fromkeys([*script.desk(), *script.sentences(SEED, count, held_out=False)]))
    missing = [text for text in texts if text not in made]
    made |= zip(missing, in_threads(partial(speak, voice=VOICE), missing, "talker: sentences"), strict=True)
    save_state(
        path,
        {
            "texts": list(made),
            "pcm": [torch.from_numpy((u.pcm * 32768.0).astype(np.int16)) for u in made.values()],
            "words": [[list(w) for w in u.words] for u in made.values()],
        },
    )
    return [made[text] for text in texts]


def spoken_words(utterance: Utterance, frames: int, frame_s: float) -> list[int]:
    """For each frame the index of the word it says: the last word that began before the frame's middle."""
    starts = np.array([start for start, _ in utterance.words])
    middles = (np.arange(frames) + 0.5) * frame_s
    return [max(0, int(np.searchsorted(starts, middle, side="right")) - 1) for middle in middles]


def reply(utterance: Utterance, codec: Trainer, words: Vocabulary) -> Reply:
    """Encodes one utterance."""
    codes = codec.encode(torch.from_numpy(np.array(utterance.pcm)))
    of_frame = torch.tensor(spoken_words(utterance, len(codes), codec.config.frame_samples / RATE_HZ))
    of_token = torch.tensor(words.word_of_token(utterance.text))
    ids = torch.tensor(words.ids(utterance.text))
    return Reply(utterance.text, ids, codes, of_frame[:, None] == of_token[None, :])


def replies(codec: Trainer, words: Vocabulary, utterances: Sequence[Utterance]) -> list[Reply]:
    """Encodes all, but for what was encoded before with the same encoder. The codec must have been trained."""
    path = work_folder() / "codes.pt"
    known = load_state(path)
    made: dict[str, Reply] = {}
    if known is not None and known["encoder_step"] == codec.encoder_step:
        made = {text: Reply(text, *values) for text, values in zip(known["texts"], known["values"], strict=True)}
    codec.encoder.eval()
    for utterance in Progress("talker: codes").over([u for u in utterances if u.text not in made]):
        made[utterance.text] = reply(utterance, codec, words)
    values = [[one.ids, one.codes, one.spoken] for one in made.values()]
    save_state(path, {"encoder_step": codec.encoder_step, "texts": list(made), "values": values})
    return [made[utterance.text] for utterance in utterances]
