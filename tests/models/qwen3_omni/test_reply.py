"""Row 6: a greedy reply is transformers' greedy reply, token for token and frame for frame."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models import registry
from models.base import Audio, Begin, End, Frame, Instructions, LoadOptions, Model, Pcm, Text, Tokens
from tests.models.qwen3_omni.thinking import Oracle, OraclePrompt, in_pieces, picture, speech
from tests.models.speaking import Conversation, Said, conversations

NEAR = 1e-4


@pytest.fixture(scope="module")
def model(checkpoint) -> Model:
    return registry.load(checkpoint, LoadOptions(device="cpu", slots=4, kv_tokens=20_000))


@dataclass
class Answer:
    """The reference's reply."""

    tokens: list[int]
    codes: torch.Tensor
    pcm: torch.Tensor
    margins: list[float] = field(repr=False)
    """Of every choice that was made, token, code or expert: how far the best was before the next."""


@contextmanager
def watched(oracle: Oracle) -> Iterator[tuple[list[torch.Tensor], list[float]]]:
    """Writes down the codes that are decoded, and the margins of all choices."""
    whole = oracle.model
    heads = [whole.thinker.lm_head, whole.talker.codec_head, *whole.talker.code_predictor.lm_head]
    routers = [m for m in whole.modules() if type(m).__name__.endswith("TopKRouter")]
    codes: list[torch.Tensor] = []
    margins: list[float] = []

    def chosen(_: Any, __: Any, out: torch.Tensor) -> None:
        best = out[0, -1].float().topk(2).values
        margins.append(float(best[0] - best[1]))

    def routed(router: Any, _: Any, out: tuple[torch.Tensor, ...]) -> None:
        best = out[0].float().topk(router.top_k + 1, -1).values
        margins.append(float((best[:, -2] - best[:, -1]).min()))

    hooks = [head.register_forward_hook(chosen) for head in heads]
    hooks += [router.register_forward_hook(routed) for router in routers]
    decode = whole.code2wav.chunked_decode
    whole.code2wav.chunked_decode = lambda found, **how: (codes.append(found), decode(found, **how))[1]
    try:
        yield codes, margins
    finally:
        del whole.code2wav.chunked_decode
        for hook in hooks:
            hook.remove()


def reference(oracle: Oracle, prompt: OraclePrompt, in_video: bool = False, voice: str = "ethan") -> Answer:
    with watched(oracle) as (codes, margins):
        ids, pcm = oracle.model.generate(
            **prompt.inputs(),
            use_audio_in_video=in_video,
            speaker=voice,
            thinker_do_sample=False,
            talker_do_sample=False,
            thinker_eos_token_id=oracle.model.config.im_end_token_id,
        )
    return Answer(ids[0, len(prompt.ids) : -1].tolist(), codes[0][0].T, pcm[0, 0], margins)


def assert_same(said: Said, answer: Answer) -> None:
    """Equal, unless the reference was about to say something else: near-ties flip with the shape of a product."""
    if said.tokens != answer.tokens or said.codes.shape != answer.codes.shape or not said.codes.equal(answer.codes):
        assert min(answer.margins) < NEAR, "the reply differs, and nothing in it was a near-tie"
        pytest.skip(f"near-tie: {min(answer.margins):.1e}")
    torch.testing.assert_close(said.pcm, answer.pcm, rtol=0, atol=1e-4)


def header(model: Model, prompt: OraclePrompt) -> None:
    add(model, prompt, *model.prompt.reply())


def add(model: Model, prompt: OraclePrompt, *parts: Any) -> None:
    for part in parts:
        assert isinstance(part, Tokens)
        prompt.text(*part.ids)


def begin(model: Model, prompt: OraclePrompt, *segments: Any) -> None:
    for segment in segments:
        add(model, prompt, *model.prompt.parts(segment))


@pytest.mark.parametrize("seconds", [0.37, 3.0, 9.0, 21.0])
@given(cuts=st.lists(st.integers(0, 400_000), max_size=8), step=st.integers(7, 300), lead=st.integers(1, 5))
@settings(deadline=None, max_examples=2, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_to_audio_in_any_pieces(model, oracle, seconds, cuts, step, lead):
    pcm = speech(seconds, seed=len(cuts))
    prompt = oracle.prompt()
    begin(model, prompt, Begin("user"))
    prompt.audio(pcm)
    begin(model, prompt, End())
    header(model, prompt)
    with conversations(model, 1) as (conversation,):
        conversation.add(Begin("user"))
        for part in in_pieces(pcm, cuts):
            conversation.append([part])
            conversation.settle(step)
        conversation.add(End())
        said = conversation.answer(lead=lead)
        assert_same(said, reference(oracle, prompt))
        assert said.tokens
        assert said.frames
