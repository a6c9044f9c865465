"""Replies made as one replay a step are the replies made the plain way, whoever shares the batch."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from itertools import chain
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch

from models import registry
from models.base import GREEDY, Audio, Frame, LoadOptions, Model, Sampling, Segment, SlotsExhausted, Text
from models.qwen3_omni.audio import MelWindow
from models.qwen3_omni.audio_step import AudioStep
from models.qwen3_omni.talker import OWN_SAMPLING, OmniTalker
from models.qwen3_omni.thinker import OmniThinker
from models.qwen3_omni.wave import Code2WavCodec
from tests.models.nn.replaying import CopyingCapture
from tests.models.speaking import Conversation, Said, speak, think

SAMPLINGS = [GREEDY, Sampling(seed=3), Sampling(seed=4, top_k=0, repetition_penalty=1.1), Sampling(seed=5, top_k=2)]


class Raising:
    def __init__(self, error: type[Exception]) -> None:
        self.error = error

    def __call__(self, *_: object) -> None:
        raise self.error("no")


def load(folder: Path, graphs: str) -> Model:
    return registry.load(folder, LoadOptions(device="cpu", slots=6, graphs=graphs, kv_tokens=8000))


@pytest.fixture(scope="module")
def plain(checkpoint: Path) -> Model:
    return load(checkpoint, "off")


@pytest.fixture(scope="module")
def stepped(checkpoint: Path) -> Model:
    return load(checkpoint, "on")


@pytest.fixture(scope="module")
def captured(checkpoint: Path) -> tuple[Model, CopyingCapture]:
    """As on CUDA: buffers at fixed addresses, results that the next replay overwrites."""
    model, capture = load(checkpoint, "off"), CopyingCapture()
    assert isinstance(model.thinker, OmniThinker)
    assert isinstance(model.talker, OmniTalker)
    assert isinstance(model.codec, Code2WavCodec)
    model.thinker.use_step(capture)
    model.talker.use_step(6, model.codec, capture)
    return model, capture


def opened(model: Model) -> Conversation:
    slot = model.thinker.open()
    conversation = Conversation(model, slot)
    conversation.talker.open(slot)
    conversation.codec.open(slot)
    return conversation


def story(model: Model, seed: int) -> list[Said]:
    """Callers out of step with each other: one is cut, one goes on with a second turn."""
    random = Random(seed)
    callers = [opened(model) for _ in range(4)]
    for caller in callers:
        pcm = (np.sin(np.arange(random.randrange(3000, 20000)) * random.uniform(0.02, 0.4)) * 0.3).astype(np.float32)
        caller.user(Text("hello " * random.randrange(1, 30)), Audio(pcm, final=True))
    said = [caller.begin(sampling) for caller, sampling in zip(callers, SAMPLINGS, strict=True)]
    done: list[Said] = []
    for _ in range(90):
        here = list(zip(callers, said, strict=True))
        awake = [pair for pair in here if random.random() < 0.7]
        if texts := [pair for pair in awake if not pair[1].text_over]:
            think([c for c, _ in texts], [s for _, s in texts])
        if speaking := [pair for pair in awake if pair[0].talker.ready(pair[0].slot)]:
            speak([c for c, _ in speaking], [s for _, s in speaking])
        for place, (caller, reply) in enumerate(here):
            cut = place == 1 and len(reply.frames) == 3 and not done
            if cut or (reply.text_over and not caller.talker.ready(caller.slot)):
                caller.end(reply)
                done.append(reply)
                caller.user(Text("and then?"))
                said[place] = caller.begin(SAMPLINGS[(place + len(done)) % 4])
    for caller in callers:
        caller.close()
    return done


def same(one: list[Said], other: list[Said]) -> None:
    assert len(one) == len(other) > 2
    for a, b in zip(one, other, strict=True):
        assert a.tokens == b.tokens
        assert torch.equal(a.codes, b.codes)
        torch.testing.assert_close(a.pcm, b.pcm, atol=2e-5, rtol=0)


def test_replies_are_the_same(plain: Model, stepped: Model, captured: tuple[Model, CopyingCapture]) -> None:
    model, capture = captured
    wanted = story(plain, 0)
    same(wanted, story(stepped, 0))
    same(wanted, story(model, 0))
    assert capture.replayed > 3 * capture.captured, "sizes are captured once and replayed from then on"
    for each in (stepped, model):
        assert each.thinker.memory_bytes() == 0


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
def test_with_the_kernels_of_a_card_they_are_the_same(checkpoint: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.models.qwen3_omni.interpreted", str(checkpoint)],
        cwd=Path(__file__).resolve().parents[3],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip().endswith("right"), done.stderr[-3000:]


def pictured(shade: int) -> Frame:
    return Frame(np.full((64, 96, 3), shade, np.uint8))


@pytest.mark.parametrize(
    ("sizes", "most_read"),
    [((8, 512), 1 << 22), ((4, 16), 1 << 22), ((4, 16), 1500)],
    ids=["one part", "parts", "long"],
)
def test_prefills_are_the_same(
    plain: Model,
    captured: tuple[Model, CopyingCapture],
    sizes: tuple[int, ...],
    most_read: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Text, audio and pictures of several slots in a batch, the second round on what the first has left."""
    monkeypatch.setattr("models.nn.packed.SIZES", sizes)
    monkeypatch.setattr("models.nn.packed.MOST_READ", most_read)
    pcm = (np.sin(np.arange(9000) * 0.1) * 0.3).astype(np.float32)
    rounds: list[list[tuple[Segment, ...]]] = [
        [(Text("hello " * 9), pictured(90)), (Audio(pcm, final=True),), (Text("so"),)],
        [(Audio(pcm[:4000], final=True),), (pictured(200), Text("what is it?")), (Text("and " * 20),)],
    ]
    found = []
    for model in (plain, captured[0]):
        callers = [opened(model) for _ in rounds[0]]
        slots = [caller.slot for caller in callers]
        chunks = []
        for said in rounds:
            for caller, segments in zip(callers, said, strict=True):
                caller.user(*segments)
            model.thinker.encode(slots)
            for most in (50, 1000):  # cut in the middle of something
                chunks.append(model.thinker.prefill(slots, most))
                callers[0].talker.prefill(chunks[-1])
        replies = [caller.begin(GREEDY) for caller in callers]
        for _ in range(5):
            think(callers, replies)
            speak(callers, replies)
        found.append((chunks, replies))
        for caller in callers:
            caller.close()
    (wanted, replies), (got, others) = found
    for one, other in zip(chain(*wanted), chain(*got), strict=True):
        assert (one.slot, one.start, one.ids.tolist()) == (other.slot, other.start, other.ids.tolist())
        assert torch.equal(one.multimodal, other.multimodal)
        assert torch.equal(one.positions, other.positions)
        torch.testing.assert_close(other.embeddings, one.embeddings, atol=2e-5, rtol=1e-4)
        torch.testing.assert_close(other.hidden, one.hidden, atol=2e-4, rtol=1e-3)
    same(replies, others)


def test_pictures_leave_nothing_for_those_who_come_after(plain: Model, stepped: Model) -> None:
    hidden = []
    for model in (plain, stepped):
        thinker, held = model.thinker, []
        for segment in (pictured(90), Text("word " * 5)):
            caller = opened(model)
            caller.user(segment)
            thinker.encode([caller.slot])
            (chunk,) = thinker.prefill([caller.slot], 1000)
            held.append(chunk.hidden.clone())
            caller.close()
        hidden.append(held)
    for one, other in zip(*hidden, strict=True):
        torch.testing.assert_close(other, one, atol=2e-4, rtol=1e-3)


def test_windows_side_by_side_are_encoded_as_they_are_alone(plain: Model) -> None:
    assert isinstance(plain.thinker, OmniThinker)
    tower = plain.thinker._net.audio_tower
    config = tower.config
    generator = torch.Generator().manual_seed(0)
    lengths = [30, config.window_frames, 101, 99, 100, *([300] * 20)]
    windows = [
        MelWindow(torch.randn(config.mel_bins, n, generator=generator), lone=number == 0)
        for number, n in enumerate(lengths)
    ]
    capture = CopyingCapture()
    step = AudioStep(tower, torch.device("cpu"), capture)
    with torch.inference_mode():
        for some in (windows, windows[:1], windows[3:5], windows[::-1]):
            for one, other in zip(step(some), tower(some), strict=True):
                torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
    assert capture.captured < capture.replayed


def test_the_talkers_own_way_of_drawing(plain: Model, stepped: Model) -> None:
    for seed in range(2):
        replies = []
        for model in (plain, stepped):
            caller = opened(model)
            caller.user(Text("how are you"))
            said = caller.begin(GREEDY)
            caller.talker.end(caller.slot)
            how = Sampling(**{**vars(OWN_SAMPLING), "seed": seed})
            caller.talker.begin(caller.slot, model.spec.voices[1], how)
            while not said.text_over or caller.talker.ready(caller.slot):
                if not said.text_over:
                    think([caller], [said])
                if caller.talker.ready(caller.slot):
                    speak([caller], [said])
            replies.append(said)
            caller.close()
        same([replies[0]] * 5, [replies[1]] * 5)


def test_a_frame_that_fails_leaves_the_slot_as_it_was(
    plain: Model, stepped: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes = []
    for model in (plain, stepped):
        caller = opened(model)
        caller.user(Text("hi"))
        said = caller.begin(GREEDY)
        think([caller], [said])
        talker = model.talker
        assert isinstance(talker, OmniTalker)
        if talker._step is not None:
            before = talker._slots[caller.slot].table.length
            for error in (RuntimeError, SlotsExhausted):
                with monkeypatch.context() as patch:
                    patch.setattr(talker._step, "run", Raising(error))
                    with pytest.raises(error):
                        talker.frame([caller.slot])
                assert talker._slots[caller.slot].table.length == before
                assert talker.ready(caller.slot)
        codes.append(talker.frame([caller.slot])[0].codes)
        caller.close()
    assert torch.equal(*codes)


def test_samples_come_with_the_frame_and_nothing_is_left_to_render(plain: Model, stepped: Model) -> None:
    heard = []
    for model in (plain, stepped):
        caller = opened(model)
        caller.user(Text("hi"))
        said = caller.begin(GREEDY)
        think([caller], [said])
        (frame,) = caller.talker.frame([caller.slot])
        assert (frame.samples is None) == (model is plain)
        assert frame.codes is not None
        if frame.samples is None:
            (samples,) = caller.codec.render([caller.slot], frame.codes[None, None])
        else:
            samples = frame.samples
        heard.append(samples)
        caller.close()
    assert len(heard[0]) == 1920 - 555
    torch.testing.assert_close(heard[1], heard[0], atol=2e-5, rtol=0)
