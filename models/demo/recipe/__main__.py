"""`python -m models.demo.recipe STAGE`: makes the demo checkpoint, stage by stage, and measures it.

    all --minutes N     every stage, sharing N minutes of training; resumes where it stopped
    tokenizer           vocabulary and the frozen table of embeddings
    pool                synthesized questions
    hear, see, read     the audio tower, the vision tower, the text model, each by itself
    couple              makes what is heard look like what is read
    listen              the text model to the audio tower
    think               all of them together
    codec, speak        the codec and the talker
    export              the checkpoint folder
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
    evaluate,
    evaluate_speech,
    export,
    export_speech,
    hear,
    lessons,
    pool,
    see,
    shapes,
    speak,
    think,
    warm,
)
from . import tokenizer as vocabulary
from .reference import Reference
from .work import Progress, work_folder

SHIPPED = Path(__file__).parents[1] / "checkpoint"
SHARDS = pool.PLAIN_SHARDS + 2
SHARES = {
    "hear": 0.22,
    "couple": 0.1,
    "see": 0.05,
    "read": 0.08,
    "listen": 0.15,
    "think": 0.05,
    "codec": 0.15,
    "speak": 0.2,
}
"""How `all` shares its minutes."""
ALONE = ("hear", "couple", "see", "read")
"""Stages whose work is over once `think` has begun."""
_TYPED = lessons.Shares(
    text=1.0, imagined=0.6, transcribe=0.25, tools=0.02, silent=0.0, look=0.0, camera=0.0, turns=(0.8, 0.12, 0.08)
)
_LISTENING = lessons.Shares(
    text=0.1,
    imagined=0.7,
    transcribe=0.08,
    tools=0.0,
    instructions=0.05,
    silent=0.05,
    look=0.0,
    camera=0.0,
    turns=(0.97, 0.03, 0.0),
)
_HEARD = lessons.Shares(
    text=0.3,
    imagined=0.7,
    transcribe=0.25,
    tools=0.05,
    instructions=0.08,
    look=0.02,
    camera=0.0,
    turns=(0.75, 0.15, 0.1),
)
"""What a short training can teach: few pictures, few long conversations."""


def make_tokenizer(work: Path) -> None:
    """Trains the tokenizer and draws the embeddings, unless they are there: everything else is built on them."""
    folder = work / "tokenizer"
    if (folder / "embed.safetensors").exists():
        return
    vocabulary.save(vocabulary.train(), folder)
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(vocabulary.VOCABULARY, shapes.HIDDEN, generator=generator) * 0.5
    save_file({"thinker.model.embed_tokens.weight": table.to(torch.bfloat16)}, folder / "embed.safetensors")


def make_pool(work: Path) -> None:
    """Synthesizes the shards that are missing."""
    for index in Progress("pool").over(range(SHARDS)):
        pool.make_shard(work / "pool", index)


def trainers(work: Path) -> dict[str, Callable[[float], object]]:
    """Stage -> what trains it for so many minutes."""
    return {
        "hear": lambda minutes: hear.train(work, minutes),
        "couple": lambda minutes: bridge.couple(work, minutes),
        "see": lambda minutes: see.train(work, minutes),
        "read": lambda minutes: think.train(work, minutes, batch=24, shares=_TYPED, rate=1.5e-3, save_as="read.pt"),
        "listen": lambda minutes: think.train(
            work, minutes, batch=16, shares=_LISTENING, rate=1.5e-3, listen=True, amount=0.25
        ),
        "think": lambda minutes: think.train(work, minutes, batch=16, shares=_HEARD),
        "codec": lambda minutes: codec.train(minutes),
        "speak": lambda minutes: speak.train(minutes),
    }


def evaluated(folder: Path, size: float) -> None:
    """Prints what went wrong, then the table."""
    rows, shown = evaluate.evaluate(Reference(folder).answers, size)
    aloud, wrong = evaluate_speech.evaluate(folder, size)
    print("\n".join([*shown, *wrong]))
    print(evaluate.table([*rows, *aloud]))


def main() -> None:
    """The command line."""
    stages = ("all", "tokenizer", "pool", *SHARES, "export", "evaluate")
    parser = argparse.ArgumentParser(prog="python -m models.demo.recipe", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("stage", choices=stages)
    parser.add_argument("--minutes", type=float, default=120.0, help="training time, of this stage or of all")
    parser.add_argument("--checkpoint", type=Path, help="folder to write or evaluate; default: in the work folder")
    parser.add_argument("--quick", action="store_true", help="evaluate a quarter of the cases")
    options = parser.parse_args()
    work = work_folder()
    folder = options.checkpoint or work / "checkpoint"
    if options.stage not in ("evaluate", "export") and warm.restore(work, SHIPPED):
        print(f"nothing in {work}: going on from {SHIPPED}")
    every = options.stage == "all"
    if every or options.stage == "tokenizer":
        make_tokenizer(work)
    if every or options.stage == "pool":
        make_pool(work)
    for stage, train in trainers(work).items():
        if every and not (stage in ALONE and (work / "think.pt").exists()):
            train(options.minutes * SHARES[stage])
        elif options.stage == stage:
            train(options.minutes)
    if every or options.stage == "export":
        export_speech.export(speak.train(0))
        warm.keep(work, export.export(work, folder))
    if every or options.stage == "evaluate":
        evaluated(folder, 0.25 if options.quick else 1.0)


if __name__ == "__main__":
    main()
