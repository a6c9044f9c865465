"""Speakers who don't exist speak, each in a voice of their own, and none is one of those kept for the evaluation."""

import shutil

import numpy as np
import pytest

from models.demo.recipe import grammar, made_up, voices

pytestmark = pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")
SAID = "when is the next train to York"


def said(voice: str) -> bytes:
    return voices.say(SAID, voices.Speaker("espeak-ng", voice)).tobytes()


def test_every_accent_speaks_with_every_kind_of_variant() -> None:
    """espeak-ng forgets a variant, and says nothing of it, where the accent is not a file of its own."""
    accents = [line.split()[1] for line in grammar.lines("voices.txt") if line.startswith("accent")]
    for accent in accents:
        heard = {said(accent), said(f"{accent}+m5"), said(f"{accent}+{made_up.names()[3]}")}
        assert len(heard) == 3, accent


def test_each_sounds_like_nobody_else() -> None:
    sample = made_up.names()[::10]
    assert len({said(f"en+{name}") for name in sample}) == len(sample)


def test_a_variant_is_always_the_same() -> None:
    assert made_up.variant(7) == made_up.variant(7)
    assert made_up.variant(7) != made_up.variant(8)


def test_the_unseen_stay_unseen() -> None:
    unseen = {line.split()[1] for line in grammar.lines("voices.txt") if line.endswith("unseen")}
    assert not unseen & set(made_up.names())
    assert voices.is_trained("espeak-ng", f"en+{made_up.names()[0]}")
    assert not voices.is_trained("espeak-ng", "en+m5")


def test_nobody_is_silent_or_broken() -> None:
    for name in made_up.names()[5::40]:
        pcm = np.frombuffer(said(f"en-us+{name}"), np.int16)
        assert 0.5 * voices.RATE_HZ < len(pcm) < 4 * voices.RATE_HZ
        assert np.abs(pcm.astype(np.int32)).max() > 1000
