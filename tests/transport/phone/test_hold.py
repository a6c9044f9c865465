from __future__ import annotations

import asyncio
import wave
from pathlib import Path

import numpy as np
import pytest

from tests import virtual_time
from transport.phone.hold import RATE_HZ, HoldMusic, read_wav, tones, tune


@pytest.mark.parametrize("digit", "0123456789*#ABCD")
def test_the_tones_of_a_key(digit: str) -> None:
    pcm = tones(digit)[800:1600]
    spectrum = np.abs(np.fft.rfft(pcm))
    peaks = sorted(np.argsort(spectrum)[-2:] * RATE_HZ / len(pcm))
    low = min((697, 770, 852, 941), key=lambda hz: abs(hz - peaks[0]))
    high = min((1209, 1336, 1477, 1633), key=lambda hz: abs(hz - peaks[1]))
    rows = {697: "123A", 770: "456B", 852: "789C", 941: "*0#D"}
    assert rows[low][(1209, 1336, 1477, 1633).index(high)] == digit
    assert abs(low - peaks[0]) <= 10
    assert abs(high - peaks[1]) <= 10


def test_music_plays_at_real_time_and_goes_round() -> None:
    async def main() -> None:
        heard: list[np.ndarray] = []
        music = HoldMusic(lambda pcm, _: heard.append(pcm), "")
        music.start()
        await asyncio.sleep(20.01)
        music.stop()
        await asyncio.sleep(1.0)
        pcm = np.concatenate(heard)
        assert len(pcm) / RATE_HZ == pytest.approx(20.0, abs=0.05)
        assert 0.02 < np.sqrt((pcm**2).mean()) < 0.2

    virtual_time.run(main())


def wav(path: Path, channels: int, width: int, frames: int) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setparams((channels, width, 16_000, 0, "NONE", ""))
        file.writeframes(bytes(channels * width * frames))
    return path


def test_a_file_of_one_s_own(tmp_path: Path) -> None:
    pcm, rate_hz = read_wav(str(wav(tmp_path / "a.wav", 2, 2, 8000)))
    assert (len(pcm), rate_hz) == (8000, 16_000)
    for bad in (wav(tmp_path / "b.wav", 1, 1, 8000), wav(tmp_path / "c.wav", 1, 2, 10), Path(__file__)):
        with pytest.raises(ValueError, match="WAV"):
            read_wav(str(bad))


def test_the_tune_has_no_click_where_it_goes_round() -> None:
    assert np.abs(np.diff(np.concatenate([tune()[-100:], tune()[:100]]))).max() < 0.1
