"""Many clips or pictures at once through the towers: what transformers makes of one after the other."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.demo.recipe import __main__ as recipe
from models.demo.recipe import hear, packed, see, tokenizer, warm

LENGTHS = st.lists(st.integers(30, 260), min_size=1, max_size=4)


@pytest.fixture(scope="module")
def hearing() -> hear.Hearing:
    torch.manual_seed(0)
    return hear.Hearing().eval()


@given(LENGTHS, st.integers(0, 99))
@settings(max_examples=8, deadline=None)
def test_a_batch_of_clips_is_heard_as_transformers_hears_it(
    hearing: hear.Hearing, frames: list[int], seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    mels = [torch.randn(128, n, generator=generator) for n in frames]
    with torch.no_grad():
        ours = hearing.each(mels)
        hearing.tower.config._attn_implementation = "sdpa"
        theirs = hearing.tower(torch.cat(mels, 1), torch.tensor(frames)).last_hidden_state
        packed.attending_together(hearing.tower)
    assert [len(one) for one in ours] == [packed.token_count(n) for n in frames]
    assert torch.allclose(torch.cat(ours), theirs, atol=1e-4)


@given(LENGTHS)
def test_padded_rows_come_back(counts: list[int]) -> None:
    flat = torch.arange(sum(counts) * 2.0).view(-1, 2) + 1
    rows = packed.padded(flat, counts)
    assert rows.shape == (max(counts), len(counts), 2)
    assert torch.equal(torch.cat([rows[:n, i] for i, n in enumerate(counts)]), flat)
    assert all((rows[n:, i] == 0).all() for i, n in enumerate(counts))


def test_a_batch_of_pictures_is_seen_as_one_by_one(tmp_path: Path) -> None:
    recipe.make_tokenizer(tmp_path)
    model = see.Seeing(tokenizer.load(tmp_path / "tokenizer"), hear.vocabulary_embeddings(tmp_path)).eval()
    grids = [(1, 6, 8), (1, 8, 6), (1, 8, 8)]
    pixels = [torch.randn(rows * columns, 1536) for _, rows, columns in grids]
    with torch.no_grad():
        together = model(torch.cat(pixels), torch.tensor(grids))
        alone = [model(one, torch.tensor([grid])) for one, grid in zip(pixels, grids, strict=True)]
    assert torch.allclose(together, torch.cat(alone), atol=1e-4)


def test_layers_that_a_checkpoint_lacks_begin_as_nothing(hearing: hear.Hearing) -> None:
    """A taller tower says at first what the smaller one said."""
    embeddings = torch.zeros(tokenizer.VOCABULARY, 256)
    model = warm.think.Thinking(embeddings)
    model.hearing.load_state_dict(hearing.state_dict())
    layers = model.hearing.tower.layers
    mel = torch.randn(128, 150)
    with torch.no_grad():
        warm._begin_as_nothing(model, [n for n, _ in model.named_parameters() if f"layers.{len(layers) - 1}." in n])
        taller = model.hearing.each([mel])[0]
        del layers[-1]
        smaller = model.hearing.each([mel])[0]
    assert torch.allclose(taller, smaller, atol=1e-6)
