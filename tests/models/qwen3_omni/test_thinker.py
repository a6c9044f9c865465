"""The thinker, fed as a conversation goes, against transformers given the whole prompt at once."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.base import GREEDY, Audio, Frame, InvalidPart, Part, Sampling, Tokens
from models.qwen3_omni.context import back_to
from models.qwen3_omni.thinker import OmniThinker
from tests.models.qwen3_omni.thinking import (
    RATE_HZ,
    Oracle,
    OraclePrompt,
    Seen,
    build,
    in_pieces,
    logits,
    picture,
    settle,
    speech,
)

TOLERANCE = 1e-4
CUTS = st.lists(st.integers(0, 400_000), max_size=8)
QUICK = settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def thinker(checkpoint: Path) -> OmniThinker:
    return build(checkpoint)


def fed(thinker: OmniThinker, parts: Sequence[Part], max_tokens: int = 10_000) -> tuple[int, Seen]:
    """A slot that was given ``parts``, encoded and prefilled after each as far as possible."""
    slot, seen = thinker.open(), Seen()
    for part in parts:
        thinker.append(slot, part)
        settle(thinker, slot, seen, max_tokens)
    return slot, seen


def agree(thinker: OmniThinker, parts: Sequence[Part], prompt: OraclePrompt, *, in_video: bool = False) -> None:
    """Same ids, positions, hidden states and logits."""
    slot, seen = fed(thinker, parts)
    wanted, hidden, positions = prompt.run(in_video)
    assert seen.ids == prompt.ids
    runs = back_to(thinker._slots[slot].state.tail, None)
    torch.testing.assert_close(torch.cat([run.piece.positions for run in runs], 1), positions.float(), atol=0, rtol=0)
    torch.testing.assert_close(torch.stack(seen.hidden), hidden, atol=TOLERANCE, rtol=TOLERANCE)
    torch.testing.assert_close(logits(thinker, slot), wanted[-1], atol=TOLERANCE, rtol=TOLERANCE)
    config = thinker.config
    assert seen.multimodal == [i in (config.audio_id, config.image_id, config.video_id) for i in seen.ids]
    thinker.close(slot)


def camera(frames: int, rate_hz: float, pcm: np.ndarray, cuts: Sequence[int] = ()) -> list[Part]:
    """Frames at 0, 1 / rate ... and audio, as they come in: a frame before the audio of its moment."""
    edges = sorted({0, len(pcm), *(int(i / rate_hz * RATE_HZ) for i in range(frames)), *(c % len(pcm) for c in cuts)})
    edges = [edge for edge in edges if edge <= len(pcm)]
    parts: list[Part] = []
    shown = 0
    for begin, end in pairwise(edges):
        while shown < frames and int(shown / rate_hz * RATE_HZ) <= begin:
            parts.append(Frame(picture(64, 96, shown), shown / rate_hz))
            shown += 1
        parts.append(Audio(pcm[begin:end], final=end == len(pcm)))
    return parts


@pytest.mark.parametrize("seconds", [0.37, 3, 9, 21])
def test_audio(thinker: OmniThinker, oracle: Oracle, seconds: float) -> None:
    pcm = speech(seconds)
    prompt = oracle.prompt().text(5, 6).audio(pcm).text(9, 8)

    @QUICK
    @given(CUTS)
    def check(cuts: list[int]) -> None:
        agree(thinker, [Tokens((5, 6)), *in_pieces(pcm, cuts), Tokens((9, 8))], prompt)

    check()


@given(CUTS)
@QUICK
def test_rising_loudness_goes_back_to_the_first_changed_window(
    thinker: OmniThinker, oracle: Oracle, cuts: list[int]
) -> None:
    pcm = speech(19, seed=2) * np.geomspace(1e-4, 1, 19 * RATE_HZ).astype(np.float32)
    agree(thinker, [Tokens((5, 6)), *in_pieces(pcm, cuts), Tokens((9,))], oracle.prompt().text(5, 6).audio(pcm).text(9))


def test_append_mode(checkpoint: Path) -> None:
    """Windows of two seconds for server and reference: what was encoded is final after two seconds."""
    thinker, oracle = build(checkpoint, append_chunks=2), Oracle(checkpoint, append_chunks=2)
    pcm = speech(7.3, silence=False)
    agree(thinker, [*in_pieces(pcm, [33_000, 70_000]), Tokens((9,))], oracle.prompt().audio(pcm).text(9))
    slot, seen = fed(thinker, in_pieces(pcm, [33_000])[:1])
    assert seen.ids.count(thinker.config.audio_id) == 26
    thinker.close(slot)


@pytest.mark.parametrize("size", [(100, 150), (31, 700), (1, 1), (1500, 1100)])
def test_image(thinker: OmniThinker, oracle: Oracle, size: tuple[int, int]) -> None:
    image = picture(*size)
    prompt = oracle.prompt().text(5, 6).image(image).text(9, 8)
    agree(thinker, [Tokens((5, 6)), Frame(image), Tokens((9, 8))], prompt)


def test_audio_and_images(thinker: OmniThinker, oracle: Oracle) -> None:
    pcm, one, other = speech(2.2), picture(90, 70), picture(64, 200)
    prompt = oracle.prompt().text(5, 6).image(one).audio(pcm).image(other).text(9, 8)
    parts = [Tokens((5, 6)), Frame(one), *in_pieces(pcm, [9000]), Frame(other), Tokens((9, 8))]
    agree(thinker, parts, prompt)


def test_camera_alone(thinker: OmniThinker, oracle: Oracle) -> None:
    frames = [picture(64, 96, i) for i in range(5)]
    parts: list[Part] = [Frame(frame, i / 2) for i, frame in enumerate(frames)]
    agree(thinker, [Tokens((5,)), *parts, Tokens((9, 8))], oracle.prompt().text(5).video(frames, 2.0).text(9, 8))


@pytest.mark.parametrize(
    ("seconds", "frames", "rate_hz"), [(0.37, 1, 2.0), (3, 6, 2.0), (4.1, 3, 1.0), (2.3, 7, 3.0), (9.3, 18, 2.0)]
)
def test_audio_and_camera(thinker: OmniThinker, oracle: Oracle, seconds: float, frames: int, rate_hz: float) -> None:
    pcm = speech(seconds, seed=1)
    shown = [picture(64, 96, i) for i in range(frames)]
    prompt = oracle.prompt().text(5, 6).video(shown, rate_hz, pcm).text(9, 8)

    @QUICK
    @given(CUTS)
    def check(cuts: list[int]) -> None:
        parts = [Tokens((5, 6)), *camera(frames, rate_hz, pcm, cuts), Tokens((9, 8))]
        agree(thinker, parts, prompt, in_video=True)

    check()


def test_half_a_pair_holds_back_only_what_follows_it(thinker: OmniThinker) -> None:
    """A window that ends between two frames of a pair: audio before the pair goes on, nothing is prefilled twice."""
    pcm, starts, slot = speech(9, silence=False), [], thinker.open()
    head = int(8.1 * RATE_HZ)
    for part in (
        Frame(picture(64, 96), 7.5),
        Audio(pcm[:head]),
        Frame(picture(64, 96), 8.25),
        Audio(pcm[head:], final=True),
    ):
        thinker.append(slot, part)
        while thinker.unencoded(slot) or thinker.pending(slot):
            thinker.encode([slot])
            starts.extend((done.start, len(done.ids)) for done in thinker.prefill([slot], 1000))
    assert [start for start, _ in starts] == [0, *np.cumsum([count for _, count in starts])[:-1]]
    assert starts[0] == (0, 2 + 98)
    thinker.close(slot)


def test_a_late_frame_takes_its_place(thinker: OmniThinker, oracle: Oracle) -> None:
    """A pair of frames that comes after the audio window it belongs into was prefilled."""
    pcm, shown = speech(9.3, seed=1), [picture(64, 96, i) for i in range(4)]
    prompt = oracle.prompt().text(5).video(shown, 0.5, pcm).text(9)
    head = [Frame(shown[0], 0.0), Frame(shown[1], 2.0), Frame(shown[2], 4.0)]
    parts = [Tokens((5,)), *head, Audio(pcm[: 9 * RATE_HZ]), Frame(shown[3], 6.0), Audio(pcm[9 * RATE_HZ :], True)]
    agree(thinker, [*parts, Tokens((9,))], prompt, in_video=True)


def test_a_camera_turned_on_in_mid_utterance(thinker: OmniThinker, oracle: Oracle) -> None:
    """The prompt is that of a video from the beginning with the first grids left out, positions kept."""
    pcm, shown = speech(9.3, seed=1), [picture(64, 96, i) for i in range(18)]
    prompt = oracle.prompt().text(5, 6).video(shown, 2.0, pcm).text(9, 8)
    video, missing = oracle.config.video_token_id, 4 * 6  # four grids of 2 x 3 tokens
    places = [i for i, token in enumerate(prompt.ids) if token == video]
    kept = torch.tensor([i for i in range(len(prompt.ids)) if i not in places[:missing]])
    # transformers, on the whole prompt's embeddings and positions without those of the grids left out
    inputs = prompt.inputs()
    model = oracle.thinker.model
    with torch.no_grad():
        x = model.get_input_embeddings()(inputs["input_ids"])[0]
        heard = model.get_audio_features(inputs["input_features"], inputs["feature_attention_mask"])
        x[inputs["input_ids"][0] == oracle.config.audio_token_id] = heard.last_hidden_state
        seen = model.get_video_features(inputs["pixel_values_videos"], inputs["video_grid_thw"])
        x[inputs["input_ids"][0] == video] = torch.cat(seen.pooler_output)
        out = model.language_model(
            inputs_embeds=x[kept][None],
            position_ids=prompt.positions(True)[:, None, kept],
            attention_mask=torch.ones(1, len(kept), dtype=torch.long),
            visual_pos_masks=(inputs["input_ids"][0] == video)[kept][None],
            deepstack_visual_embeds=[torch.cat(layer)[missing:] for layer in seen.deepstack_features],
        )
        wanted = oracle.thinker.lm_head(out.last_hidden_state[0, -1])
    parts = [part for part in camera(18, 2.0, pcm) if not (isinstance(part, Frame) and (part.t_s or 0) < 4.0)]
    slot, done = fed(thinker, [Tokens((5, 6)), *parts, Tokens((9, 8))])
    assert done.ids == [prompt.ids[i] for i in kept]
    torch.testing.assert_close(logits(thinker, slot), wanted, atol=TOLERANCE, rtol=TOLERANCE)
    thinker.close(slot)


def test_three_turns(thinker: OmniThinker, oracle: Oracle) -> None:
    """Greedy replies are transformers', each turn on top of what the cache holds of the turns before."""
    slot, prompt = thinker.open(), oracle.prompt()
    for turn in range(3):
        pcm = speech(1.5 + turn, seed=turn)
        image = picture(64, 64, turn)
        for part in (Tokens((5, turn)), *in_pieces(pcm, [8000]), Frame(image), Tokens((7, 8))):
            thinker.append(slot, part)
            settle(thinker, slot)
        prompt.text(5, turn).audio(pcm).image(image).text(7, 8)
        thinker.begin(slot, GREEDY)
        reply = [thinker.decode([slot])[0] for _ in range(6)]
        with torch.no_grad():
            made = oracle.thinker.generate(
                **prompt.inputs(), max_new_tokens=6, min_new_tokens=6, do_sample=False, eos_token_id=[511]
            )
        assert reply == made[0, -6:].tolist()
        keep = (6, 6, 2)[turn]  # the last one is cut off after two tokens
        thinker.end(slot, keep)
        prompt.text(*reply[:keep])
    settle(thinker, slot)
    wanted, _, _ = prompt.run()
    torch.testing.assert_close(logits(thinker, slot), wanted[-1], atol=TOLERANCE, rtol=TOLERANCE)
    thinker.close(slot)


def test_a_reply_is_ended_without_its_end(thinker: OmniThinker) -> None:
    """An end id that was drawn is no part of the context."""
    slot, _ = fed(thinker, [Tokens((5, 6, 7))])
    thinker.begin(slot, GREEDY)
    drawn = 1
    while thinker.decode([slot])[0] not in thinker._eos:
        drawn += 1
        assert drawn < 60
    thinker.end(slot)
    assert thinker.length(slot) + thinker.pending(slot) == 3 + drawn - 1
    thinker.close(slot)


def test_repetition_penalty_counts_the_context(thinker: OmniThinker) -> None:
    slot, _ = fed(thinker, [Tokens(tuple(range(5, 60)))])
    thinker.begin(slot, Sampling(temperature=0, repetition_penalty=1e6))
    drawn = [thinker.decode([slot])[0] for _ in range(4)]
    assert len(set(drawn)) == 4
    assert not set(drawn) & set(range(5, 60))
    thinker.close(slot)


@pytest.mark.parametrize(
    "part",
    [
        Audio(np.array([0.0, np.nan], np.float32)),
        Audio(np.zeros(0, np.float32)),
        Audio(np.zeros((2, 2), np.float32)),
        Audio(np.zeros(4, np.float64)),
        Frame(np.zeros((0, 4, 3), np.uint8)),
        Frame(np.zeros((4, 4), np.uint8)),
        Frame(np.zeros((4, 4, 3), np.float32)),
        Frame(np.zeros((1, 300, 3), np.uint8)),
        Frame(np.broadcast_to(np.zeros((1, 1, 3), np.uint8), (20_000, 20_000, 3))),
        Frame(picture(8, 8), t_s=float("nan")),
        Frame(picture(8, 8), t_s=-1.0),
        Frame(picture(8, 8), t_s=1.0),
        Frame(picture(8, 8)),
        Tokens((10_000_000,)),
        Tokens((-1,)),
        Tokens((5,)),
    ],
    ids=str,
)
def test_what_cannot_be_taken_leaves_the_slot_as_it_was(thinker: OmniThinker, part: Part) -> None:
    slot, _ = fed(thinker, [Tokens((5, 6)), Frame(picture(32, 32), 2.0), Audio(speech(0.5))])
    before = thinker._slots[slot].state
    with pytest.raises(InvalidPart):
        thinker.append(slot, part)
    assert thinker._slots[slot].state is before
    thinker.close(slot)


def test_too_short_to_have_a_frame(thinker: OmniThinker) -> None:
    slot, seen = fed(thinker, [Tokens((5, 6)), Audio(np.zeros(150, np.float32), final=True), Tokens((7,))])
    assert seen.ids == [5, 6, 7]
    assert not thinker.unencoded(slot)
    thinker.close(slot)
