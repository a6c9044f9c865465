from __future__ import annotations

import json
import wave
from pathlib import Path

import numpy as np
import pytest

from transport.phone.call import About
from transport.phone.policy import Policy
from transport.phone.recording import LATE_S, TimeLine, open_recorder

HZ = 8000


def ones(seconds: float, value: int = 1) -> np.ndarray:
    return np.full(round(seconds * HZ), value, np.int16)


def test_each_side_stands_where_it_was() -> None:
    line = TimeLine(HZ)
    line.put(0, ones(0.5, 1), 0.25)
    line.put(1, ones(0.5, 2), 1.0)
    both = line.take(2.0)
    assert both.shape == (2 * HZ, 2)
    assert [int(both[round(t * HZ), 0]) for t in (0.1, 0.3, 0.7, 0.8)] == [0, 1, 1, 0]
    assert [int(both[round(t * HZ), 1]) for t in (0.9, 1.1, 1.4, 1.6)] == [0, 2, 2, 0]


def test_pieces_follow_each_other_though_they_come_unevenly() -> None:
    line = TimeLine(HZ)
    for n in range(50):
        line.put(0, ones(0.02, n + 1), 0.02 * n + (0.3 if n % 7 == 0 else 0.0))
    both = line.take(2.0)
    loud = both[np.flatnonzero(both[:, 0]), 0]
    assert np.array_equal(loud, np.repeat(np.arange(1, 51), 160))


def test_a_pause_is_a_pause() -> None:
    line = TimeLine(HZ)
    line.put(1, ones(0.1), 0.0)
    line.put(1, ones(0.1), 0.1 + 2 * LATE_S[1])
    assert int((line.take(1.0)[:, 1] == 0).sum()) == HZ - round(0.2 * HZ)


def test_what_was_cut_is_not_in_it() -> None:
    line = TimeLine(HZ)
    line.put(1, ones(1.0), 0.0)
    line.cut(1, 0.4)
    line.put(0, ones(1.0, 5), 0.0)
    assert int(line.take(1.0)[:, 1].sum()) == round(0.4 * HZ)


def test_it_is_written_piece_by_piece_as_if_at_once() -> None:
    rng = np.random.default_rng(1)
    whole, pieces = TimeLine(HZ), TimeLine(HZ)
    written = []
    for n in range(200):
        pcm = rng.integers(-9, 9, 160).astype(np.int16)
        for line in (whole, pieces):
            line.put(int(n % 3 == 0), pcm, 0.02 * n)
        if n % 20 == 0:
            written.append(pieces.take(max(0.0, 0.02 * n - 2.0)))
    written.append(pieces.take(5.0))
    assert np.array_equal(np.concatenate(written), whole.take(5.0))


ABOUT = About("rtc/../x", "sip", "1", "2")


def test_a_call_as_files(tmp_path: Path) -> None:
    recorder = open_recorder(Policy(recordings=str(tmp_path / "calls")), ABOUT, 16_000, 24_000)
    assert recorder is not None
    for n in range(100):
        recorder.caller(np.full(320, 0.25, np.float32), 50.0 + 0.02 * n)
        recorder.ours(np.full(480, 9000, np.int16), 50.0 + 0.02 * n)
    recorder.note({"type": "response.done"}, 51.5)
    recorder.cut(51.0)
    recorder.close(52.0)
    assert recorder.path.parent == tmp_path / "calls", "no name leads elsewhere"
    with wave.open(str(recorder.path), "rb") as file:
        both = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2)
    assert len(both) / 16_000 == pytest.approx(2.0, abs=0.01)
    assert int(both[8000, 0]) == pytest.approx(8192, abs=2)
    assert np.abs(both[:15_000, 1]).max() > 8000
    assert not both[17_000:, 1].any()
    (line,) = recorder.path.with_suffix(".jsonl").read_text().splitlines()
    assert json.loads(line) == {"at_s": 1.5, "type": "response.done"}


def test_no_recording_where_none_is_wanted_or_possible(tmp_path: Path) -> None:
    assert open_recorder(Policy(), ABOUT, 16_000, 24_000) is None
    (tmp_path / "file").write_text("")
    assert open_recorder(Policy(recordings=str(tmp_path / "file")), ABOUT, 16_000, 24_000) is None
