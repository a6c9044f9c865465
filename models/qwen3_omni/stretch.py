"""A stretch of audio, camera frames with it, and how both become positions of a context.

The prompt of a stretch
-----------------------
    audio                <|audio_start|> A A A ... <|audio_end|>
    camera               <|vision_start|> V V V ... <|vision_end|>
    audio with camera    <|vision_start|><|audio_start|> V V A A ... V V A ... <|audio_end|><|vision_end|>

The last is the reference's ``use_audio_in_video``, with V and A sorted by time. Two frames make a grid, which stands at
the first one's ``t_s``; an odd last frame is doubled. For frames at 0, 1/r, 2/r ... these are the reference's own
positions for a video of r frames a second. For a camera that is turned on in mid-utterance, or drops frames, the prompt
is that of a video which began with the stretch, with the grids that were not seen left out: every other token keeps its
place and its position. So the ``<|vision_start|>`` stands at the beginning of the stretch even when the camera comes
later (the thinker then goes back to there and prefills what it had; audio is not encoded again).

While a stretch is open only what is final is laid out: finished audio windows, and grids up to there. What can be
made of the open window ahead is: mel frames, and what the audio tower's convolutions make of each whole chunk.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from models.base import InvalidPart, Pcm, Pixels
from models.features import Clip, LogMel, clamped_apart, normalise
from models.frozen import changed
from models.qwen3_omni import positions
from models.qwen3_omni.audio import MelWindow
from models.qwen3_omni.config import AudioConfig, ThinkerConfig
from models.qwen3_omni.positions import AudioSpan
from models.qwen3_omni.vision import Grid

_SILENCE: Pcm = np.zeros(0, np.float32)


@dataclass(frozen=True, eq=False)
class Piece:
    """Some positions in a row: what the decoder gets there."""

    ids: torch.Tensor = field(repr=False)  # int64 [n]
    positions: torch.Tensor = field(repr=False)  # float32 [3, n]
    next_position: float
    """Where text goes on after it."""
    embeddings: torch.Tensor | None = field(default=None, repr=False)
    """[n, hidden]; None: those of ``ids``."""
    deepstack: tuple[torch.Tensor, ...] = field(default=(), repr=False)
    """[n, hidden] for each of the first layers."""
    multimodal: bool = False
    source: tuple[Any, ...] = ()
    """Equal sources, equal pieces. Holds what it was made from: identity is what counts there."""

    def cut(self, begin: int, end: int) -> Piece:
        """Positions [begin, end) of it."""
        if begin == 0 and end == len(self.ids):
            return self
        return replace(
            self,
            ids=self.ids[begin:end],
            positions=self.positions[:, begin:end],
            embeddings=None if self.embeddings is None else self.embeddings[begin:end],
            deepstack=tuple(layer[begin:end] for layer in self.deepstack),
        )

    def bare(self) -> Piece:
        """Without embeddings, for what is in the cache for good."""
        return replace(self, embeddings=None, deepstack=(), source=())


@dataclass(frozen=True, eq=False)
class Picture:
    """An image by itself, and its grid once it is encoded."""

    pixels: Pixels = field(repr=False)
    grid: Grid | None = field(default=None, repr=False)

    def pieces(self, start: float, config: ThinkerConfig) -> list[Piece]:
        grid = self.grid
        assert grid is not None
        end = start + 1 + positions.picture_end(0, grid.rows, grid.columns) + 1
        return [
            _marks(start, config.vision_start_id),
            _seen(grid, positions.picture(start + 1, 0, grid.rows, grid.columns), end, config.image_id, ()),
            _marks(end, config.vision_end_id),
        ]


@dataclass(frozen=True, eq=False)
class Front:
    """What the audio tower's convolutions made of a whole chunk, [tokens, hidden], with the clip's maximum being
    ``maximum``. ``least`` is the chunk's smallest raw value."""

    tokens: torch.Tensor = field(repr=False)
    least: float
    maximum: float

    def outdated(self, maximum: float) -> bool:
        """Does the chunk look different now?"""
        return clamped_apart(self.least, self.maximum, maximum)


@dataclass(frozen=True, eq=False)
class Window:
    """Mel frames inside which the audio tower's attention stays. ``raw`` float32 [bins, frames], not normalised."""

    raw: torch.Tensor = field(repr=False)
    least: float
    """The smallest raw value: says whether a new maximum changes the window."""
    fronts: tuple[Front, ...] = field(default=(), repr=False)
    """Of its first chunks, until it is encoded."""
    tokens: torch.Tensor | None = field(default=None, repr=False)
    """[tokens, hidden], once encoded, with the clip's maximum being ``maximum``."""
    maximum: float = -math.inf

    def chunk(self, number: int, size: int) -> torch.Tensor:
        """[bins, size]: the raw frames of one of its whole chunks."""
        return self.raw[:, number * size : (number + 1) * size]

    def outdated(self, maximum: float) -> bool:
        """Must it be encoded (again)?"""
        return self.tokens is None or clamped_apart(self.least, self.maximum, maximum)


@dataclass(frozen=True, eq=False)
class Stretch:
    """Audio and camera frames from one moment on. Immutable: every method gives a new one."""

    clip: Clip = field(default=Clip(), repr=False)
    windows: tuple[Window, ...] = field(default=(), repr=False)
    frames: tuple[tuple[float, Pixels], ...] = field(default=(), repr=False)
    """Camera frames not encoded yet: (t_s, pixels)."""
    grids: tuple[tuple[float, Grid], ...] = field(default=(), repr=False)
    """(t_s of the first frame, grid)."""
    newest_s: float = 0.0
    """t_s of the newest frame."""
    closed: bool = False

    # --- what comes in

    def heard(self, pcm: Pcm, final: bool) -> Stretch:
        return changed(self, clip=self.clip.push(pcm, final), closed=final)

    def saw(self, pixels: Pixels, t_s: float) -> Stretch:
        if not math.isfinite(t_s) or t_s < self.newest_s:
            raise InvalidPart(f"a frame's t_s must rise: {t_s} came after {self.newest_s}")
        return replace(self, frames=(*self.frames, (t_s, pixels)), newest_s=t_s)

    def close(self) -> Stretch:
        return replace(self, clip=self.clip.push(_SILENCE, final=True), closed=True)

    @property
    def has_audio(self) -> bool:
        return self.clip.samples > 0

    # --- encoding

    def unencoded(self, mel: LogMel, chunk_frames: int) -> bool:
        """Would encoding bring something new, or do something ahead? A closed stretch always does: its end."""
        if self.closed or len(self.frames) > 1:
            return True
        return mel.ready(self.clip) // chunk_frames > self.clip.frames // chunk_frames

    def listen(self, mel: LogMel, config: AudioConfig) -> Stretch:
        """Makes the mel frames that are ready and deals them out to windows. Chunk by chunk, the rest when it is
        closed: so frames are the same to the bit whenever they are made."""
        clip, windows = self.clip, list(self.windows)
        ready = mel.ready(clip)
        while clip.frames < ready:
            most = clip.frames + config.chunk_frames
            if most > ready and not clip.closed:
                break
            clip, raw = mel.advance(clip, most)
            least = float(raw.min())
            if windows and windows[-1].raw.shape[1] < config.window_frames:
                old = windows.pop()
                windows.append(replace(old, raw=torch.cat((old.raw, raw), 1), least=min(old.least, least)))
            else:
                windows.append(Window(raw, least))
        return replace(self, clip=clip, windows=tuple(windows))

    def front_jobs(self, config: AudioConfig) -> dict[tuple[int, int], torch.Tensor]:
        """Whole chunks, of windows that were never encoded, whose front is to be made now: by window and chunk."""
        size, maximum = config.chunk_frames, self.clip.maximum
        found = {}
        for number, window in enumerate(self.windows):
            for chunk in range(0 if window.tokens is not None else window.raw.shape[1] // size):
                if chunk >= len(window.fronts) or window.fronts[chunk].outdated(maximum):
                    found[number, chunk] = normalise(window.chunk(chunk, size), maximum)
        return found

    def fronted(self, fronts: dict[tuple[int, int], torch.Tensor], config: AudioConfig) -> Stretch:
        """The jobs' results put in."""
        windows = list(self.windows)
        for (number, chunk), tokens in fronts.items():
            window = windows[number]
            front = Front(tokens, float(window.chunk(chunk, config.chunk_frames).min()), self.clip.maximum)
            kept = (*window.fronts[:chunk], front, *window.fronts[chunk + 1 :])
            windows[number] = replace(window, fronts=kept)
        return replace(self, windows=tuple(windows))

    def window_jobs(self, config: ThinkerConfig) -> dict[int, MelWindow]:
        """Windows to encode now, by number: finished ones (all, once closed) that are new; with a new one also those
        that look different by now."""
        lone = self.closed and self.clip.frames < config.audio.chunk_frames
        found = {
            number: MelWindow(
                normalise(window.raw, self.clip.maximum), lone, tuple(front.tokens for front in window.fronts)
            )
            for number, window in enumerate(self.windows)
            if (self.closed or window.raw.shape[1] == config.audio.window_frames) and window.outdated(self.clip.maximum)
        }
        new = self.closed or any(self.windows[number].tokens is None for number in found)
        return found if new else {}

    def grid_jobs(self) -> list[tuple[float, list[Pixels]]]:
        """Pairs of frames to encode now, with the time of the first; the last may be alone once closed."""
        count = len(self.frames) if self.closed else len(self.frames) // 2 * 2
        pairs = [self.frames[i : min(i + 2, count)] for i in range(0, count, 2)]
        return [(pair[0][0], [pixels for _, pixels in pair]) for pair in pairs]

    def encoded(self, windows: dict[int, torch.Tensor], grids: list[tuple[float, Grid]]) -> Stretch:
        """The jobs' results put in."""
        kept = [
            replace(window, tokens=windows[number], maximum=self.clip.maximum, fronts=())
            if number in windows
            else window
            for number, window in enumerate(self.windows)
        ]
        used = min(len(self.frames), 2 * len(grids))
        return replace(self, windows=tuple(kept), frames=self.frames[used:], grids=(*self.grids, *grids))

    def held(self) -> dict[int, int]:
        """Bytes of samples, frames, mel and tokens that it keeps, by address."""
        tensors = [tensor for w in self.windows for tensor in (w.raw, w.tokens) if tensor is not None]
        tensors += [front.tokens for w in self.windows for front in w.fronts]
        tensors += [tensor for _, grid in self.grids for tensor in (grid.tokens, *grid.deepstack)]
        stores = [tensor.untyped_storage() for tensor in tensors]
        found = {store.data_ptr(): store.nbytes() for store in stores}
        found |= {id(pcm): pcm.nbytes for pcm in self.clip.tail}
        return found | {id(pixels): pixels.nbytes for _, pixels in self.frames}

    # --- layout

    def pieces(self, start: float, config: ThinkerConfig) -> Iterator[Piece]:
        """What stands in the context now, from rotary position ``start`` on; the end marks once it is closed."""
        rate = config.positions_per_s
        windows = [window.tokens for window in self.windows if window.tokens is not None]
        times = [t_s * rate for t_s, _ in self.grids]
        audio = sum(map(len, windows))
        if not self.closed:
            if self.frames:  # half a pair: audio from its time on must wait for the other half
                audio = min(audio, math.ceil(self.frames[0][0] * rate))
            times = [t for t in times if t <= audio]
            if not audio:
                return
        elif not audio and not times:
            return
        video = bool(self.grids or self.frames)
        begin = ([config.vision_start_id] if video else []) + ([config.audio_start_id] if audio else [])
        yield _marks(start, *begin)
        start += len(begin)
        last, next_position = 0.0, start
        for part in positions.merge(audio, times):
            if isinstance(part, AudioSpan):
                yield from self._heard(part, windows, start, config)
                last, next_position = 0.0, start + part.end
            else:
                t, grid = times[part.index], self.grids[part.index][1]
                # Grids in a row count together: text goes on after the largest position of all of them.
                last = max(last, positions.picture_end(t, grid.rows, grid.columns))
                next_position = start + last + 1
                places = positions.picture(start, t, grid.rows, grid.columns)
                yield _seen(grid, places, next_position, config.video_id, (start, t))
        if self.closed:
            yield _marks(
                next_position,
                *([config.audio_end_id] if audio else []),
                *([config.vision_end_id] if video else []),
            )

    def _heard(
        self, span: AudioSpan, windows: list[torch.Tensor], start: float, config: ThinkerConfig
    ) -> Iterator[Piece]:
        """Audio tokens [begin, end), a piece for each window they come from."""
        first = 0
        for tokens in windows:
            begin, end = max(span.begin, first), min(span.end, first + len(tokens))
            if begin < end:
                yield Piece(
                    ids=torch.full((end - begin,), config.audio_id),
                    positions=positions.sequential(start + begin, end - begin),
                    next_position=start + end,
                    embeddings=tokens[begin - first : end - first],
                    multimodal=True,
                    source=(start, tokens, begin - first, end - first),
                )
            first += len(tokens)


def _seen(grid: Grid, places: torch.Tensor, next_position: float, token: int, where: tuple[float, ...]) -> Piece:
    return Piece(
        ids=torch.full((grid.rows * grid.columns,), token),
        positions=places,
        next_position=next_position,
        embeddings=grid.tokens,
        deepstack=grid.deepstack,
        multimodal=True,
        source=(*where, grid),
    )


def _marks(start: float, *ids: int) -> Piece:
    return Piece(torch.tensor(ids), positions.sequential(start, len(ids)), start + len(ids), source=(start, *ids))


def same(a: Piece, b: Piece) -> bool:
    """Made from the very same things?"""
    return len(a.source) == len(b.source) and all(
        x is y or (isinstance(x, (int, float)) and x == y) for x, y in zip(a.source, b.source, strict=True)
    )
