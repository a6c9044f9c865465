"""Sound on its way to the audio tower: features, counts, labels, perturbation."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import WhisperFeatureExtractor
from transformers.models.qwen3_omni_moe.modeling_qwen3_omni_moe import _get_feat_extract_output_lengths

from models.demo.recipe import augment, bridge, hear, heard, mel, tokenizer

WORDS = st.lists(st.sampled_from(["a", "b", "c"]), max_size=6)


@given(st.integers(1, 3000))
def test_token_counts_are_transformers(frames: int) -> None:
    assert hear.token_count(frames) == int(_get_feat_extract_output_lengths(torch.tensor(frames)))


@given(st.integers(1600, 40000), st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_log_mel_is_whispers(samples: int, seed: int) -> None:
    pcm = np.random.default_rng(seed).standard_normal(samples, np.float32) * np.float32(0.1)
    theirs = WhisperFeatureExtractor(feature_size=128)(pcm, sampling_rate=16000, padding=False)["input_features"][0]
    assert np.allclose(mel.log_mel(pcm).numpy(), theirs[:, : samples // 160], atol=1e-4)


@given(WORDS, WORDS, WORDS)
def test_word_errors_are_a_metric(a: list[str], b: list[str], c: list[str]) -> None:
    assert (hear.word_errors(a, b) == 0) == (a == b)
    assert hear.word_errors(a, b) == hear.word_errors(b, a)
    assert hear.word_errors(a, c) <= hear.word_errors(a, b) + hear.word_errors(b, c)
    assert abs(len(a) - len(b)) <= hear.word_errors(a, b) <= max(len(a), len(b))


@pytest.fixture(scope="module")
def bank() -> augment.NoiseBank:
    return augment.NoiseBank(np.random.default_rng(0), each=1, seconds=2.0)


@given(st.integers(0, 10**6), st.floats(0.2, 3.0))
@settings(max_examples=30, deadline=None)
def test_perturbed_sound_is_finite_and_repeatable(bank: augment.NoiseBank, seed: int, seconds: float) -> None:
    speech = np.sin(np.arange(int(16000 * seconds)) * 0.3).astype(np.float32)
    pcm, start_s, end_s = augment.perturbed(speech, np.random.default_rng(seed), bank, [speech])
    again, _, _ = augment.perturbed(speech, np.random.default_rng(seed), bank, [speech])
    assert pcm.dtype == np.float32
    assert np.isfinite(pcm).all()
    assert np.array_equal(pcm, again)
    assert 0 <= start_s < end_s <= len(pcm) / 16000 + 1e-3
    assert len(pcm) >= 16000, "transformers does not pad a clip under a second"


@given(st.integers(0, 10**6), st.floats(0.05, 0.6))
@settings(max_examples=30, deadline=None)
def test_unfinished_speech_may_be_all_there_is(bank: augment.NoiseBank, seed: int, seconds: float) -> None:
    speech = np.sin(np.arange(int(16000 * seconds)) * 0.3).astype(np.float32)
    pcm, start_s, end_s = augment.perturbed(speech, np.random.default_rng(seed), bank, [speech], unfinished=True)
    assert np.isfinite(pcm).all()
    assert 0 <= start_s < end_s <= len(pcm) / 16000 + 1e-3
    assert np.isfinite(mel.log_mel(pcm).numpy()).all()


@given(st.floats(-5, 30), st.integers(0, 100))
@settings(max_examples=20, deadline=None)
def test_noise_is_mixed_at_the_ratio(snr_db: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    speech = rng.standard_normal(8000, np.float32)
    noise = rng.standard_normal(8000, np.float32) * np.float32(3.7)
    added = augment.mixed(speech, noise, snr_db) - speech
    loud = np.abs(speech) > 0.02 * np.abs(speech).max()
    measured_db = 10 * np.log10(np.mean(speech[loud] ** 2) / np.mean(added**2))
    assert measured_db == pytest.approx(snr_db, abs=0.1)


def test_the_telephone_keeps_only_its_band() -> None:
    rng = np.random.default_rng(3)
    heard = augment.telephone(rng.standard_normal(16000, np.float32) * np.float32(0.1), rng, loss=0.0)
    power = np.abs(np.fft.rfft(heard)) ** 2
    assert power[4100:].sum() < 1e-3 * power.sum()
    assert power[:150].sum() < 0.02 * power.sum()


@given(st.integers(0, 10**6))
@settings(max_examples=10, deadline=None)
def test_unseen_noises_have_other_names_and_sound(seed: int) -> None:
    assert not set(augment.NOISES) & set(augment.UNSEEN_NOISES)
    for make in [*augment.NOISES.values(), *augment.UNSEEN_NOISES.values()]:
        noise = make(64_000, np.random.default_rng(seed))  # in less, nobody may drop a thing
        assert noise.shape == (64_000,)
        assert np.isfinite(noise).all()
        assert np.std(noise) > 0


@pytest.fixture(scope="module")
def bpe() -> tokenizer.Tokenizer:
    return tokenizer.train()


def test_the_even_alignment_keeps_the_order_of_the_words(bpe: tokenizer.Tokenizer) -> None:
    labels = hear.words_ids(bpe, "When is the next train to York?")
    even = hear.even_alignment(bpe, labels, 40, 0.5, 2.5)
    kept = [int(i) for i in torch.unique_consecutive(even) if i != hear.BLANK]
    assert kept == labels
    assert (even[:6] == hear.BLANK).all()
    assert (even[33:] == hear.BLANK).all()


def test_reading_merges_repeats_and_drops_blanks(bpe: tokenizer.Tokenizer) -> None:
    a, b = hear.words_ids(bpe, "train"), hear.words_ids(bpe, "york")
    path = [hear.BLANK, *a, *a, hear.BLANK, *b, hear.BLANK, *b]
    scores = torch.nn.functional.one_hot(torch.tensor(path), hear.BLANK + 1).float()
    assert hear.read(scores, bpe) == "train york york"


def test_the_tied_head_reads_what_is_said_as_it_is_read(bpe: tokenizer.Tokenizer) -> None:
    """Embeddings of the pieces themselves are heard as the sentence; every question's words can be heard."""
    embeddings = torch.randn(tokenizer.VOCABULARY, 64, generator=torch.Generator().manual_seed(1)) * 0.5
    tied = bridge.Tied(bpe, embeddings)
    said = "when is the next train to York"
    rows = bridge.targets(bpe, embeddings)
    states = [row for piece in hear.words_ids(bpe, said) for row in (rows[piece], rows[piece], rows[hear.BLANK])]
    assert tied.read(torch.stack(states)) == said.lower()
    assert tied.classes(said).tolist() == [tied.pieces.index(piece) for piece in hear.words_ids(bpe, said)]


@given(st.lists(st.integers(1, 9), min_size=1, max_size=5))
@settings(max_examples=10, deadline=None)
def test_kept_features_come_back(lengths: list[int]) -> None:
    clips = [torch.full((length, 3), float(place)) for place, length in enumerate(lengths)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clips.npy"
        heard.keep(path, clips)
        kept = heard.kept(path)
        assert [kept.length(i) for i in range(len(kept))] == lengths
        assert all(torch.equal(kept[i], clip) for i, clip in enumerate(clips))


@given(st.lists(st.integers(1, 50), min_size=16, max_size=60), st.integers(0, 9))
def test_shuffled_batches_hold_each_once(lengths: list[int], seed: int) -> None:
    batches = heard.shuffled(lengths, 2, np.random.default_rng(seed), groups=4)
    met = [index for _ in range(len(lengths) // 8 * 4) for index in next(batches)]
    assert len(met) == len(set(met))
    assert set(met) <= set(range(len(lengths)))
