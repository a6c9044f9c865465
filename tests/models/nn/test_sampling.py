"""Draws follow the rules of their slot and nothing else."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from models.base import GREEDY, Sampling
from models.nn.sampling import Draw, sample, uniform, uniforms

VOCABULARY = 50
rules = st.builds(
    Sampling,
    temperature=st.sampled_from([0.0, 0.3, 1.0, 2.0]),
    top_k=st.sampled_from([0, 1, 5, 20]),
    top_p=st.sampled_from([0.1, 0.8, 1.0]),
    repetition_penalty=st.sampled_from([1.0, 1.3]),
    seed=st.integers(0, 9),
)


@given(st.lists(st.tuples(rules, st.integers(0, 99)), min_size=1, max_size=5), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_neighbours_change_nothing(draws: list[tuple[Sampling, int]], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(len(draws), VOCABULARY, generator=generator) * 3
    seen = torch.randint(0, VOCABULARY, (7,), generator=generator)
    made = [Draw(sampling, step, seen) for sampling, step in draws]
    alone = [sample(logits[i : i + 1], [draw])[0] for i, draw in enumerate(made)]
    assert sample(logits, made) == alone


@given(rules, st.integers(0, 99))
@settings(max_examples=15, deadline=None)
def test_frequencies_are_those_of_transformers(sampling: Sampling, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(1, VOCABULARY, generator=generator) * 3
    seen = torch.randint(0, VOCABULARY, (7,), generator=generator)
    warpers = LogitsProcessorList([RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty)])
    if sampling.temperature:
        warpers.append(TemperatureLogitsWarper(sampling.temperature))
        if sampling.top_k:
            warpers.append(TopKLogitsWarper(sampling.top_k))
        warpers.append(TopPLogitsWarper(sampling.top_p))
    wanted = warpers(seen[None], logits.clone())[0]
    wanted = wanted.softmax(-1) if sampling.temperature else torch.eye(VOCABULARY)[wanted.argmax()]
    count = 600
    tokens = sample(logits.expand(count, -1), [Draw(sampling, step, seen) for step in range(count)])
    got = torch.bincount(torch.tensor(tokens), minlength=VOCABULARY) / count
    assert not got[wanted == 0].any()
    assert (got - wanted).abs().sum() / 2 < 0.15  # total variation of 600 draws


def test_numbers_are_uniform_and_apart() -> None:
    numbers = torch.tensor([[uniform(seed, step) for step in range(200)] for seed in range(20)])
    assert abs(numbers.mean() - 0.5) < 0.02
    assert len(numbers.unique()) == numbers.numel()
    assert torch.corrcoef(numbers).fill_diagonal_(0).abs().max() < 0.35


def test_greedy_takes_the_best() -> None:
    logits = torch.eye(4)
    assert sample(logits, [Draw(GREEDY, 0)] * 4) == [0, 1, 2, 3]


@given(st.lists(st.integers(-(2**65), 2**65), min_size=1, max_size=4), st.integers(0, 10**6))
def test_many_numbers_are_the_same_numbers(seeds: list[int], step: int) -> None:
    steps = step + np.arange(3 * len(seeds)).reshape(len(seeds), 3)
    wanted = [[uniform(seed, int(at)) for at in row] for seed, row in zip(seeds, steps, strict=True)]
    assert uniforms(seeds, steps).tolist() == wanted
