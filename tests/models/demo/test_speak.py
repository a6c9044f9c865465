"""The talker's training and speaking against transformers' own generation, with random weights."""

from __future__ import annotations

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from models.demo.codec import FrameIstftConfig
from models.demo.recipe import align, export_speech, speak
from models.demo.recipe import talker as tk
from models.demo.recipe.codec import Trainer as CodecTrainer
from models.demo.recipe.replies import Reply
from models.demo.recipe.say import say
from models.qwen3_omni import layout

WORDS = ["one", "two", "three", "to", "Leeds", ".", "im_start", "assistant", "line", "pad", "bos", "eos"]
CODEC = FrameIstftConfig(groups=4, codebook_size=32)


LONGEST_FRAMES = 16
"""Untrained talkers hardly ever end by themselves."""


@pytest.fixture(autouse=True)
def _short_replies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.demo.recipe.say.LONGEST_FRAMES", LONGEST_FRAMES)


@pytest.fixture(scope="module")
def trainer() -> speak.Trainer:
    tokenizer = Tokenizer(WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="one"))
    tokenizer.pre_tokenizer = Whitespace()
    table = torch.randn(len(WORDS), 24, generator=torch.Generator().manual_seed(0))
    words = tk.Vocabulary(tokenizer, table, role=(6, 7, 8), tts_pad=9, tts_bos=10, tts_eos=11)
    made = speak.Trainer(CodecTrainer(CODEC), words)
    with torch.no_grad():
        made.talker.codec_head.weight[CODEC.codebook_size :] = 0.0  # special ids are hardly ever the best
    return made


def reference_codes(trainer: speak.Trainer, text: str, frames: int, prefix: torch.Tensor) -> torch.Tensor:
    """What transformers' `generate` says, its inputs built as `_get_talker_assistant_parts` builds them."""
    talker, config, words = trainer.talker, trainer.config, trainer.words
    ids = torch.tensor([*words.role, *words.ids(text)])
    spoken = talker.text_projection(words.table[ids])[None]
    pad, bos, eos = talker.text_projection(words.table[[words.tts_pad, words.tts_bos, words.tts_eos]])[None].chunk(3, 1)
    codec_ids = [config[f"codec_{name}_id"] for name in ("nothink", "think_bos", "think_eos")]
    codec_ids += [config["speaker_id"]["slt"], config["codec_pad_id"], config["codec_bos_id"]]
    codec = talker.get_input_embeddings()(torch.tensor([codec_ids]))
    text_side = torch.cat([spoken[:, :3], pad.expand(1, 4, -1), bos, spoken[:, 3:4]], dim=1)
    inputs = text_side + torch.cat([torch.zeros(1, 3, codec.shape[-1]), codec], dim=1)
    inputs = torch.cat([prefix[None], inputs], dim=1)
    vocabulary, end = config["text_config"]["vocab_size"], config["codec_eos_token_id"]
    made = talker.generate(
        inputs_embeds=inputs,
        trailing_text_hidden=torch.cat([spoken[:, 4:], eos], dim=1),
        tts_pad_embed=pad,
        talker_input_ids=torch.full((1, inputs.shape[1]), words.tts_pad),
        attention_mask=torch.ones(1, inputs.shape[1], dtype=torch.long),
        max_new_tokens=frames + 1,
        do_sample=False,
        eos_token_id=end,
        suppress_tokens=[i for i in range(vocabulary - 1024, vocabulary) if i != end],
        output_hidden_states=True,
        return_dict_in_generate=True,
    )
    codes: torch.Tensor = torch.cat([states[-1] for states in made.hidden_states if states[-1] is not None])
    return codes


@pytest.mark.parametrize("text", ["one", "two to Leeds ."])
def test_it_speaks_as_the_reference_does(trainer: speak.Trainer, text: str) -> None:
    prefix = torch.randn(7, trainer.config["text_config"]["hidden_size"], generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        true = reference_codes(trainer, text, 12, prefix)
        mine = say(trainer, [text], prefix=prefix)[0]
    assert len(true) >= 12 or len(mine) == len(true)
    assert mine[: len(true)].tolist() == true[: len(mine)].tolist()


def test_a_batch_says_what_each_row_says_alone(trainer: speak.Trainer) -> None:
    texts = ["one two three", "Leeds .", "to"]
    together = say(trainer, texts)
    for text, codes in zip(texts, together, strict=True):
        assert codes.tolist() == say(trainer, [text])[0].tolist()
        assert len(codes) <= LONGEST_FRAMES


def reply(trainer: speak.Trainer, frames: int, text: str = "two to Leeds .") -> Reply:
    ids = torch.tensor(trainer.words.ids(text))
    codes = torch.randint(CODEC.codebook_size, (frames, CODEC.groups), generator=torch.Generator().manual_seed(frames))
    of_token = torch.tensor(trainer.words.word_of_token(text))
    spoken = (torch.arange(frames) * 4 // frames)[:, None] == of_token[None]
    return Reply(text, ids, codes, spoken)


def test_training_sees_what_speaking_sees(trainer: speak.Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss of what the talker itself would say, greedily, is what its own logits give; padding changes nothing."""
    monkeypatch.setattr(speak, "WRONG_CODE", 0.0)
    monkeypatch.setattr(speak, "WRONG_FRAME", 0.0)
    hidden = trainer.config["text_config"]["hidden_size"]
    monkeypatch.setattr(trainer, "_prefix", lambda rows: torch.zeros(rows, 0, hidden))
    text = "two to Leeds ."
    said = say(trainer, [text])[0][:20]
    own = Reply(text, torch.tensor(trainer.words.ids(text)), said, torch.ones(len(said), 4, dtype=torch.bool))
    end = trainer.config["codec_eos_token_id"]
    with torch.no_grad():
        alone = trainer.losses(speak.Batch([own], trainer.words, end))
        padded = trainer.losses(speak.Batch([own, reply(trainer, 30)], trainer.words, end))
        other = trainer.losses(speak.Batch([reply(trainer, 30)], trainer.words, end))
    assert float(alone["right"]) >= len(said) / (len(said) + 1) - 1e-6  # all but the end id
    n, m = len(said) + 1, 31
    together = (float(alone["head"]) * n + float(other["head"]) * m) / (n + m)
    assert float(padded["head"]) == pytest.approx(together, rel=1e-4)


def test_a_few_steps_learn_one_reply(trainer: speak.Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speak, "BATCH", 4)
    before = {name: value.clone() for name, value in trainer.talker.state_dict().items()}
    data = [reply(trainer, 9)]
    figures = [trainer.update(data, 0.0) for _ in range(25)]
    trainer.talker.load_state_dict(before)
    assert figures[-1]["head"] < 0.5 * figures[0]["head"]
    assert figures[-1]["rest"] < figures[0]["rest"]


def test_the_head_looks_at_tokens_fed_by_then(trainer: speak.Trainer) -> None:
    one = reply(trainer, 9)
    weights = align.attention(trainer, one.codes, one.ids)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(9))
    assert bool((weights.triu(1) == 0).all())
    shorter = align.attention(trainer, one.codes[:2], one.ids)
    torch.testing.assert_close(shorter[:, :2], weights[:2, :2])


def test_words_never_go_back() -> None:
    weights = torch.tensor([[0.9, 0.1, 0.0], [0.1, 0.3, 0.6], [0.8, 0.1, 0.1], [0.0, 0.6, 0.4]])
    assert align.words_at_frames(weights, [0, 1, 1]) == [0, 1, 1, 1]


def test_the_export_has_the_released_names_and_shapes(trainer: speak.Trainer) -> None:
    named = {name: tuple(value.shape) for name, value in export_speech.tensors(trainer).items()}
    talker = {name: shape for name, shape in named.items() if name.startswith("talker.")}
    wanted = {f"talker.{name}": shape for name, shape in layout._talker(trainer.config)}
    assert talker == wanted
    assert {value.dtype for value in export_speech.tensors(trainer).values()} == {torch.float16}
