"""One prompt of many sessions: prefilled once, shared, and nobody can tell."""

from __future__ import annotations

import pytest

from models.base import Instructions, Sampling, Tokens
from realtime.engine_prefixes import Prefixes
from realtime.events import Close, EngineCommand, Extend, Failed, Finished, Open, Reply, Rewind
from realtime.schedule import EngineConfig
from tests.realtime.doubles import toy_model
from tests.realtime.rig import COSTS, Rig, alone, check, said, turn

PROMPT = Instructions("You are a helpful voice and you keep it short.")
OTHER = Instructions("You are somebody else altogether, and proud of it.")


def talk(session: int, seed: int, prompt: Instructions = PROMPT) -> list[EngineCommand]:
    asked = Reply(session, 0, "r1", 100.0, sampling=Sampling(seed=seed))
    return [Open(session), Extend(session, 0, (prompt,), "prompt"), Extend(session, 0, turn(seed), "u1"), asked]


def expect(rig: Rig, session: int, seed: int, prompt: Instructions = PROMPT) -> None:
    check(rig, session, alone(said((prompt, *turn(seed))), Sampling(seed=seed)))


def prefilled(rig: Rig) -> float:
    return rig.engine.stats()["prefilled_tokens"]


@pytest.mark.parametrize("at_once", [False, True])
def test_a_prompt_is_prefilled_once_however_many_begin_with_it(at_once: bool) -> None:
    rig, one = Rig(costs=COSTS), Rig(costs=COSTS)
    one.send(*talk(0, 0))
    one.run()
    for session in range(5):
        rig.send(*talk(session, session))
        if not at_once:
            rig.run()
    rig.run()
    for session in range(5):
        expect(rig, session, session)
    assert rig.engine.stats()["shared_prompts"] == 4
    own = prefilled(one) - len(PROMPT.text)
    assert prefilled(rig) < len(PROMPT.text) + 5 * own * 1.5


def test_different_prompts_are_not_mixed_up() -> None:
    rig = Rig(costs=COSTS)
    for session in range(6):
        rig.send(*talk(session, session, (PROMPT, OTHER)[session % 2]))
    rig.run()
    for session in range(6):
        expect(rig, session, session, (PROMPT, OTHER)[session % 2])
    assert rig.engine.stats()["shared_prompts"] == 4


def test_usage_counts_a_shared_prompt_as_cached() -> None:
    rig = Rig()
    for session in range(2):
        rig.send(*talk(session, 3))
        rig.run()
    first, second = (rig.of(session, Finished)[0].usage for session in range(2))
    assert (first.input_text, first.input_audio) == (second.input_text, second.input_audio)


def test_a_session_goes_back_before_its_shared_prompt_and_takes_another() -> None:
    rig = Rig()
    rig.send(*talk(1, 1), *talk(2, 2))
    rig.run()
    rig.send(Rewind(2, 1, ""), Extend(2, 1, (OTHER,), "prompt2"), Extend(2, 1, turn(9), "u9"))
    rig.send(Reply(2, 1, "r9", rig.now, sampling=Sampling(seed=9)))
    rig.run()
    check(rig, 2, alone(said((OTHER, *turn(9))), Sampling(seed=9)), epoch=1)
    rig.send(
        Rewind(2, 2, "prompt2"), Extend(2, 2, turn(8), "u8"), Reply(2, 2, "r8", rig.now, sampling=Sampling(seed=8))
    )
    rig.run()
    check(rig, 2, alone(said((OTHER, *turn(8))), Sampling(seed=8)), epoch=2)


@pytest.mark.parametrize("how", ["close", "rewind"])
def test_who_waits_goes_on_when_the_first_leaves(how: str) -> None:
    rig = Rig(config=EngineConfig(prefill_tokens=8), costs=COSTS)
    for session in (1, 2, 3):
        rig.send(*talk(session, session))
    for _ in range(3):  # the first is in the middle of it
        rig.step()
    rig.send(Close(1) if how == "close" else Rewind(1, 1, ""))
    rig.run()
    expect(rig, 2, 2)
    expect(rig, 3, 3)


def test_who_waits_goes_on_when_the_first_fails() -> None:
    left = [2]

    def poison(stage: str, slots: object, size: int) -> None:
        if stage == "prefill" and 0 in slots:  # type: ignore[operator]
            left[0] -= 1
            if left[0] < 0:
                raise RuntimeError("poisoned")

    rig = Rig(config=EngineConfig(prefill_tokens=8), costs=COSTS, on_call=poison)
    for session in (1, 2, 3):
        rig.send(*talk(session, session))
    rig.run()
    assert rig.of(1, Failed)[0].fatal
    expect(rig, 2, 2)
    expect(rig, 3, 3)


def test_kept_prompts_make_room_before_anybody_is_told_that_the_cache_is_full() -> None:
    rig = Rig(kv_tokens=170)
    rig.send(*talk(1, 1))
    rig.run()
    rig.send(Close(1))
    rig.run()
    assert len(rig.model.thinker.slots) == 1, "the prompt is kept"  # type: ignore[attr-defined]
    big = Instructions("z" * 140)
    rig.send(*talk(2, 2, big))
    rig.run()
    assert not rig.of(2, Failed)
    assert rig.of(2, Finished)


def test_the_least_used_goes_first() -> None:
    model = toy_model()
    prefixes = Prefixes(model.thinker, most=2, least_tokens=1)
    for number in range(4):
        slot = model.thinker.open()
        model.thinker.append(slot, Tokens((10 + number,)))
        chunks = model.thinker.prefill([slot], 9)
        prefixes.keep((number,), slot, chunks)
        model.thinker.close(slot)
        prefixes.find((0,))
    assert prefixes.find((0,)) is not None
    assert prefixes.find((3,)) is not None
    assert prefixes.find((1,)) is None
    assert prefixes.release()
    assert not prefixes.release()
    assert not model.thinker.slots  # type: ignore[attr-defined]


def test_nothing_is_shared_where_that_is_turned_off_or_not_worth_it() -> None:
    for config, prompt in ((EngineConfig(prefixes=0), PROMPT), (EngineConfig(), Instructions("short"))):
        rig = Rig(config=config)
        for session in range(3):
            rig.send(*talk(session, session, prompt))
        rig.run()
        for session in range(3):
            expect(rig, session, session, prompt)
        assert rig.engine.stats()["shared_prompts"] == 0
        assert len(rig.model.thinker.slots) == 3  # type: ignore[attr-defined]
