"""`python -m models.demo.recipe STAGE`: makes the demo checkpoint, stage by stage, and measures it.

    all --minutes N     every stage, sharing N minutes of training; resumes where it stopped
    tokenizer           vocabulary and the frozen table of embeddings
    pool                synthesized questions, and what people say over replies
    hear                the audio tower
    mels                the pool perturbed, kept for `couple`
    couple              makes what is heard look like what is read
    see                 the vision tower
    read                the text model, from text
    listen              what the towers make of the pool and of drawings, kept for `think`
    think               the text model, from text and from what the towers made
    codec, speak        the codec and the talker
    export              the checkpoint folder
    mix --share S       weights between those that ship (0) and the checkpoint's (1), in its place
    ending              how the exported checkpoint tells that a speaker is done
    evaluate            the table, against an exported checkpoint; --quick a quarter of the cases

Files under way lie in `$PARLEY_DEMO_WORK`, or `.work/demo` beside the sources. Where that is empty, training goes on
from the checkpoint that ships.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file

from . import (
    bridge,
    codec,
    ending,
    evaluate,
    evaluate_over,
    evaluate_speech,
    export,
    export_speech,
    hear,
    heard,
    lessons,
    mix,
    pool,
    see,
    shapes,
    speak,
    think,
    warm,
)
from . import tokenizer as vocabulary
from .reference import Reference
from .work import spread, work_folder

SHIPPED = Path(__file__).parents[1] / "checkpoint"
SHARES = {"hear": 0.2, "couple": 0.22, "see": 0.06, "read": 0.12, "think": 0.15, "codec": 0.12, "speak": 0.13}
"""How `all` shares its minutes."""
BEFORE = {"hear": "couple.pt", "read": "think.pt"}
"""Stages whose work is over once the file is there."""
SEEN_AND_HEARD = lessons.Shares(
    heard=0.7,
    look=0.1,
    camera=0.05,
    turned=0.3,
    senseless=0.12,
    over=0.3,
    begun=0.15,
    tools=0.12,
    silent=0.03,
    turns=(0.6, 0.2, 0.2),
)
"""What `think` is taught. Turned and senseless sentences keep it to what was said, not to what is often said."""


def make_tokenizer(work: Path) -> None:
    """Trains the tokenizer and draws the embeddings, unless they are there: everything else is built on them."""
    folder = work / "tokenizer"
    if (folder / "embed.safetensors").exists():
        return
    vocabulary.save(vocabulary.train(), folder)
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(vocabulary.VOCABULARY, shapes.HIDDEN, generator=generator) * 0.5
    save_file({"thinker.model.embed_tokens.weight": table.to(torch.bfloat16)}, folder / "embed.safetensors")


def make_pool(work: Path, clips: int = pool.SHARD_CLIPS) -> None:
    """Synthesizes the shards that are missing."""
    spread(pool.make_shard, [(work / "pool", index, clips) for index in range(pool.SHARDS)], "pool")


def trainers(work: Path, rate: float | None = None) -> dict[str, Callable[[float], object]]:
    """Stage -> what trains it for so many minutes. `rate`: gently, the highest rate of `couple` and `think`."""
    gentle = rate is not None
    return {
        "hear": lambda minutes: hear.train(work, minutes),
        "couple": lambda minutes: bridge.couple(work, minutes, rate=rate or bridge.RATE, phones_too=not gentle),
        "see": lambda minutes: see.train(work, minutes),
        "read": lambda minutes: think.train(work, minutes, rate=1.5e-3, save_as="read.pt"),
        "think": lambda minutes: think.train(work, minutes, shares=SEEN_AND_HEARD, rate=rate or think.RATE),
        "codec": lambda minutes: codec.train(minutes),
        "speak": lambda minutes: speak.train(minutes),
    }


def keep_mels(work: Path) -> None:
    """Perturbs the pool, for `couple`."""
    heard.make_mels(work, range(len(heard.AMOUNTS)))


def keep_senses(work: Path) -> None:
    """What the towers, as they are, make of the pool and of drawings, for `think`."""
    model, _ = think.open_student(work)
    for variant in heard.variants(work, "mels"):
        heard.listen(work, model.hearing, variant)
    see.look(work)


def evaluated(folder: Path, size: float) -> None:
    """Prints what went wrong, then the table."""
    ask = Reference(folder).answers
    rows, shown = evaluate.evaluate(ask, size)
    written, misheard = evaluate_over.evaluate(ask, size)
    aloud, wrong = evaluate_speech.evaluate(folder, size)
    print("\n".join([*shown, *misheard, *wrong]))
    print(evaluate.table([*rows, *written, *aloud]))


def main() -> None:
    """The command line."""
    stages = ("all", "tokenizer", "pool", "mels", "listen", *SHARES, "export", "mix", "ending", "evaluate")
    parser = argparse.ArgumentParser(prog="python -m models.demo.recipe", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("stage", choices=stages)
    parser.add_argument("--minutes", type=float, default=120.0, help="training time, of this stage or of all")
    parser.add_argument("--checkpoint", type=Path, help="folder to write or evaluate; default: in the work folder")
    parser.add_argument("--rate", type=float, help="highest rate of couple and think, to go on gently; phones are left")
    parser.add_argument("--share", type=float, default=0.7, help="of what was taught since, for mix")
    parser.add_argument("--clips", type=int, default=pool.SHARD_CLIPS, help="questions to synthesize for each shard")
    parser.add_argument("--quick", action="store_true", help="evaluate a quarter of the cases")
    options = parser.parse_args()
    work = work_folder()
    folder = options.checkpoint or work / "checkpoint"
    if options.stage not in ("evaluate", "export", "mix", "ending") and warm.restore(work, SHIPPED):
        print(f"nothing in {work}: going on from {SHIPPED}")
    every = options.stage == "all"
    if every or options.stage == "tokenizer":
        make_tokenizer(work)
    if every or options.stage == "pool":
        make_pool(work, options.clips)
    for stage, train in trainers(work, options.rate).items():
        if every and stage in BEFORE and (work / BEFORE[stage]).exists():
            continue
        for needed, make in {"couple": keep_mels, "think": keep_senses}.items():
            if every and needed == stage:
                make(work)
        if every or options.stage == stage:
            train(options.minutes * (SHARES[stage] if every else 1))
    for stage, make in {"mels": keep_mels, "listen": keep_senses}.items():
        if options.stage == stage:
            make(work)
    if every or options.stage == "export":
        export_speech.export(speak.train(0))
        warm.keep(work, export.export(work, folder))
    if options.stage == "mix":
        print(f"{mix.mix(SHIPPED, folder, options.share)} tensors lie between {SHIPPED} and what {folder} held")
    if every or options.stage == "ending":
        ending.calibrate(folder)
    if every or options.stage == "evaluate":
        evaluated(folder, 0.25 if options.quick else 1.0)


if __name__ == "__main__":
    main()
