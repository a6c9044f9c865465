"""Row 6: a greedy reply is transformers' greedy reply, token for token and frame for frame."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models import registry
from models.base import (
    Audio,
    Begin,
    End,
    Frame,
    FunctionCall,
    FunctionResult,
    Instructions,
    LoadOptions,
    Model,
    Part,
    Pcm,
    Pixels,
    Segment,
    Text,
    Tokens,
)
from tests.models.qwen3_omni.thinking import RATE_HZ, Oracle, OraclePrompt, in_pieces, picture, speech
from tests.models.speaking import Conversation, Said, conversations

NEAR = 1e-4


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> Model:
    return registry.load(checkpoint, LoadOptions(device="cpu", slots=4, kv_tokens=20_000))


@dataclass
class Tally:
    """Replies compared, and those that differ from a near-tie on."""

    replies: int = 0
    ties: int = 0


@pytest.fixture(scope="module")
def tally() -> Iterator[Tally]:
    """Near-ties are rare: a reply makes some thousand choices, one in a thousand of them may be one."""
    tally = Tally()
    yield tally
    assert tally.ties <= max(1, tally.replies // 10), f"{tally.ties} of {tally.replies} replies differ"


@dataclass
class Answer:
    """The reference's reply."""

    tokens: list[int]
    codes: torch.Tensor
    pcm: torch.Tensor
    choices: list[tuple[str, float]] = field(repr=False)
    """Every choice in its order: by whom, and how far the best was before the next."""

    def margin(self, who: str, number: int) -> float:
        """The least margin of all choices up to the ``number``-th of ``who``."""
        least = float("inf")
        for name, margin in self.choices:
            least = min(least, margin)
            number -= name == who
            if number < 0:
                break
        return least


@contextmanager
def watched(oracle: Oracle) -> Iterator[tuple[list[torch.Tensor], list[tuple[str, float]]]]:
    """Writes down the codes that are decoded, and the margins of all choices."""
    whole = oracle.model
    heads = {"token": whole.thinker.lm_head, "code": whole.talker.codec_head}
    heads |= {f"code {i}": head for i, head in enumerate(whole.talker.code_predictor.lm_head, start=1)}
    codes: list[torch.Tensor] = []
    choices: list[tuple[str, float]] = []

    def chosen(name: str, _: Any, __: Any, out: torch.Tensor) -> None:
        best = out[0, -1].float().topk(2).values
        choices.append((name, float(best[0] - best[1])))

    def routed(router: Any, _: Any, out: tuple[torch.Tensor, ...]) -> None:
        best = out[0].float().topk(router.top_k + 1, -1).values
        choices.append(("expert", float((best[:, -2] - best[:, -1]).min())))

    hooks = [head.register_forward_hook(partial(chosen, name)) for name, head in heads.items()]
    routers = [module for module in whole.modules() if type(module).__name__.endswith("TopKRouter")]
    hooks += [router.register_forward_hook(routed) for router in routers]
    decode = whole.code2wav.chunked_decode

    def decoded(found: torch.Tensor, **how: Any) -> Any:
        codes.append(found)
        return decode(found, **how)

    whole.code2wav.chunked_decode = decoded
    try:
        yield codes, choices
    finally:
        del whole.code2wav.chunked_decode
        for hook in hooks:
            hook.remove()


def reference(oracle: Oracle, prompt: OraclePrompt, in_video: bool = False, voice: str = "ethan") -> Answer:
    # transformers 5.23 forgot this field: with audio beside a picture its talker looks for it in vain.
    oracle.model.talker.config.audio_config = oracle.config.audio_config
    with watched(oracle) as (codes, choices):
        ids, pcm = oracle.model.generate(
            **prompt.inputs(),
            use_audio_in_video=in_video,
            speaker=voice,
            thinker_do_sample=False,
            talker_do_sample=False,
            thinker_eos_token_id=oracle.model.config.im_end_token_id,
        )
    return Answer(ids[0, len(prompt.ids) : -1].tolist(), codes[0][0].T, pcm[0, 0], choices)


def compare(said: Said, answer: Answer, tally: Tally) -> None:
    """Equal, unless the reference was about to say something else: near-ties flip with the shape of a product."""
    tally.replies += 1
    assert said.tokens
    assert said.frames
    if said.tokens != answer.tokens:
        margin = answer.margin("token", first_difference(said.tokens, answer.tokens))
    elif not said.codes.equal(answer.codes):
        margin = answer.margin("code", 1 + first_difference(said.codes.tolist(), answer.codes.tolist()))
    else:
        torch.testing.assert_close(said.pcm, answer.pcm, rtol=0, atol=1e-4)
        return
    assert margin < NEAR, f"the reply differs, and nothing before that was nearer than {margin:.1e}"
    tally.ties += 1


def first_difference(ours: list[Any], theirs: list[Any]) -> int:
    same = [a == b for a, b in zip(ours, theirs, strict=False)]
    return same.index(False) if False in same else len(same)


class Both:
    """One conversation, said to us and written for the reference."""

    def __init__(self, ours: Conversation, oracle: Oracle) -> None:
        self.ours = ours
        self.prompt = oracle.prompt()
        self._oracle = oracle
        self.in_video = False

    def add(self, *segments: Segment) -> Both:
        """Segments that are text."""
        for segment in segments:
            self.ours.add(segment)
            self._write(self.ours.model.prompt.parts(segment))
        return self

    def hear(self, pcm: Pcm, cuts: Sequence[int] = (), step: int = 1000) -> Both:
        self.prompt.audio(pcm)
        for part in in_pieces(pcm, cuts):
            self.ours.append([part])
            self.ours.settle(step)
        return self

    def see(self, pixels: Pixels) -> Both:
        self.prompt.image(pixels)
        self.ours.append([Frame(pixels)])
        return self

    def watch(self, frames: Sequence[Pixels], rate_hz: float, pcm: Pcm | None = None) -> Both:
        """Camera frames from the beginning, as they come among the audio."""
        self.prompt.video(frames, rate_hz, pcm)
        self.in_video |= pcm is not None
        for i, pixels in enumerate(frames):
            if pcm is not None:
                edges = [int(at * RATE_HZ / rate_hz) for at in (i, i + 1)]
                self.ours.append([Frame(pixels, i / rate_hz)])
                piece = pcm[edges[0] : edges[1] if i + 1 < len(frames) else None]
                self.ours.append([Audio(piece, final=i + 1 == len(frames))])
                self.ours.settle()
            else:
                self.ours.append([Frame(pixels, i / rate_hz)])
        return self

    def answer(self, tally: Tally, lead: int = 1, voice: str = "ethan") -> Said:
        """Both answer; the answers are the same and become part of the conversation."""
        self._write(self.ours.model.prompt.reply())
        said = self.ours.answer(lead=lead, voice=voice)
        compare(said, reference(self._oracle, self.prompt, self.in_video, voice), tally)
        self.prompt.text(*said.tokens)
        self._write(self.ours.model.prompt.end_reply(None))
        return said

    def _write(self, parts: Sequence[Part]) -> None:
        for part in parts:
            assert isinstance(part, Tokens)
            self.prompt.text(*part.ids)


@pytest.fixture
def both(model: Model, oracle: Oracle) -> Iterator[Both]:
    with conversations(model, 1) as (ours,):
        yield Both(ours, oracle)


@pytest.mark.parametrize("seconds", [0.37, 3.0, 9.0, 21.0])
@given(cuts=st.lists(st.integers(0, 400_000), max_size=8), step=st.integers(7, 300), lead=st.integers(1, 5))
@settings(deadline=None, max_examples=3)
def test_to_audio_in_any_pieces(
    model: Model, oracle: Oracle, tally: Tally, seconds: float, cuts: list[int], step: int, lead: int
) -> None:
    with conversations(model, 1) as (ours,):
        both = Both(ours, oracle).add(Begin("user")).hear(speech(seconds, seed=len(cuts)), cuts, step).add(End())
        both.answer(tally, lead)


def test_to_text_alone(both: Both, tally: Tally) -> None:
    both.add(Instructions("Be kind."), Begin("user"), Text("How are you?"), End()).answer(tally, voice="aiden")


def test_to_audio_and_an_image(both: Both, tally: Tally) -> None:
    both.add(Begin("user"), Text("Look at this")).see(picture(96, 160)).hear(speech(2.3)).add(End())
    said = both.answer(tally)
    other = both.add(Begin("user")).hear(speech(1.1)).see(picture(64, 64, 1)).add(Text("and this"), End())
    assert other.answer(tally).tokens != said.tokens


def test_to_audio_and_video(both: Both, tally: Tally) -> None:
    frames = [picture(64, 96, seed) for seed in range(7)]
    both.add(Begin("user")).watch(frames, 2.0, speech(3.7)).add(End()).answer(tally)


def test_to_video_without_audio(both: Both, tally: Tally) -> None:
    frames = [picture(64, 64, seed) for seed in range(4)]
    both.add(Begin("user")).watch(frames, 2.0).add(Text("What was that?"), End()).answer(tally)


def test_in_three_turns(both: Both, tally: Tally) -> None:
    both.add(Instructions("You answer the phone."))
    for turn in range(3):
        both.add(Begin("user")).hear(speech(1.5 + 4 * turn, seed=turn), [16_000]).add(End())
        both.answer(tally, lead=turn + 1)


def test_after_a_function_was_called(both: Both, tally: Tally) -> None:
    both.add(Instructions("", ('{"type": "function", "name": "now", "parameters": {}}',)))
    both.add(Begin("user")).hear(speech(1.2)).add(End(), FunctionCall("now", "{}"), FunctionResult("noon"))
    both.answer(tally)


def test_what_is_heard_is_answered(model: Model) -> None:
    """The random model listens: otherwise equal replies would prove little."""
    replies = []
    for seed in range(4):
        with conversations(model, 1) as (ours,):
            ours.add(Begin("user")).append([Audio(speech(4.0, seed), final=True)])
            said = ours.add(End()).answer()
            replies.append((said.tokens, said.codes.tolist()))
    assert len({str(reply) for reply in replies}) == len(replies)
