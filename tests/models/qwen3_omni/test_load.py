"""Checkpoints load whole, sharded or not, or say in one error what is wrong."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from models import registry
from models.base import Audio, Begin, CheckpointError, End, LoadOptions, Tokens
from models.qwen3_omni.layout import tensors
from models.qwen3_omni.load import load
from models.qwen3_omni.talker import OWN_SAMPLING
from models.qwen3_omni.tiny import tiny
from models.qwen3_omni.tiny_config import Shape
from tests.models.qwen3_omni.thinking import Oracle, speech
from tests.models.speaking import conversations

OPTIONS = LoadOptions(device="cpu", slots=2, kv_tokens=2000)


@pytest.fixture
def copy(checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoint, tmp_path / "copy"))


def edit(folder: Path, **fields: Any) -> None:
    """Sets fields of config.json; ``a__b`` is b in a; None removes it."""
    config = json.loads((folder / "config.json").read_text())
    for name, value in fields.items():
        *path, last = name.split("__")
        place = config
        for step in path:
            place = place[step]
        if value is None:
            del place[last]
        else:
            place[last] = value
    (folder / "config.json").write_text(json.dumps(config))


def test_every_tensor_of_the_layout_is_in_the_file(checkpoint: Path) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    there = {name: tuple(value.shape) for name, value in load_file(checkpoint / "model.safetensors").items()}
    assert there == dict(tensors(config))


def test_transformers_reads_the_same_folder(oracle: Oracle, checkpoint: Path) -> None:
    """Fills every parameter of transformers' model, and nothing is left over."""
    _, told = type(oracle.model).from_pretrained(checkpoint, output_loading_info=True)
    assert not any(told.values())


def test_the_same_seed_is_the_same_checkpoint(checkpoint: Path, tmp_path: Path) -> None:
    again, other = tiny(tmp_path / "again"), tiny(tmp_path / "other", seed=1)
    files = [folder / "model.safetensors" for folder in (checkpoint, again, other)]
    assert files[0].read_bytes() == files[1].read_bytes() != files[2].read_bytes()


def test_shards_are_the_whole(checkpoint: Path, tmp_path: Path) -> None:
    """Weights in three files are the weights in one, bit for bit."""
    replies = []
    for folder in (checkpoint, tiny(tmp_path, shards=3)):
        model = load(folder, OPTIONS)
        with conversations(model, 1) as (one,):
            one.add(Begin("user")).append([Audio(speech(0.5), final=True)])
            replies.append(one.add(End()).answer())
    assert len(list(tmp_path.glob("*.safetensors"))) == 3
    assert replies[0].tokens == replies[1].tokens
    assert replies[0].pcm.equal(replies[1].pcm)


def test_replies_end_by_themselves(tmp_path: Path) -> None:
    """Within 40 tokens and 60 frames, and most are of some length."""
    lengths = []
    for seed in range(4):
        model = load(tiny(tmp_path / str(seed), seed), OPTIONS)
        with conversations(model, 1) as (one,):
            one.add(Begin("user")).append([Audio(speech(1.0, seed), final=True)])
            said = one.add(End()).answer()
            lengths.append((len(said.tokens), len(said.frames)))
    assert all(5 <= tokens <= 40 and 10 <= frames <= 60 for tokens, frames in lengths)


def test_a_model_without_speech(tmp_path: Path) -> None:
    model = load(tiny(tmp_path, shape=Shape(speaks=False)), OPTIONS)
    assert (model.talker, model.codec, model.spec.voices) == (None, None, ())
    slot = model.thinker.open()
    model.thinker.append(slot, Tokens((1, 2, 3)))
    assert len(model.thinker.prefill([slot], 10)) == 1


def test_dtype_and_memory_are_told(checkpoint: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "models.qwen3_omni.load"):
        model = load(checkpoint, LoadOptions(device="cpu", dtype="bfloat16", slots=1, kv_tokens=500))
    assert "torch.bfloat16" in caplog.text
    assert caplog.text.count("GiB of RAM") == 2
    with conversations(model, 1) as (one,):
        one.add(Begin("user")).append([Audio(speech(0.5), final=True)])
        said = one.add(End()).answer()
    assert said.pcm.dtype is torch.float32
    assert torch.isfinite(said.pcm).all()


def test_append_mode_encodes_sooner(checkpoint: Path) -> None:
    """In short windows audio is final long before eight seconds."""
    ready = {}
    for mode in ("exact", "append"):
        model = load(checkpoint, LoadOptions(device="cpu", slots=1, kv_tokens=2000, audio_mode=mode))
        slot = model.thinker.open()
        model.thinker.append(slot, Audio(speech(5.0)))
        model.thinker.encode([slot])
        ready[mode] = model.thinker.pending(slot)
    assert ready["append"] >= 4 * 13 > ready["exact"]


# --- what is wrong


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json", "model.safetensors", "chat_template.json"])
def test_a_missing_file_is_named(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(CheckpointError, match=name.removesuffix(".json")):
        registry.load(copy, OPTIONS)


def test_no_tokenizer(copy: Path) -> None:
    (copy / "tokenizer.json").unlink()
    assert load(copy, OPTIONS).prompt.reply() == load(copy, OPTIONS).prompt.reply()  # vocab.json and merges.txt do
    (copy / "merges.txt").unlink()
    with pytest.raises(CheckpointError, match=r"tokenizer\.json nor merges\.txt"):
        load(copy, OPTIONS)


def test_not_json(copy: Path) -> None:
    (copy / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"config\.json"):
        registry.load(copy, OPTIONS)


def test_an_unknown_family_lists_the_known(copy: Path) -> None:
    edit(copy, model_type="nobody")
    with pytest.raises(CheckpointError, match=r"'nobody'.*qwen3_omni_moe"):
        registry.load(copy, OPTIONS)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("thinker_config__text_config__hidden_size", None, "hidden_size"),
        ("talker_config__accept_hidden_layer", None, "accept_hidden_layer"),
        ("talker_config__speaker_id", {}, "no voice"),
        ("code2wav_config__decoder_dim", None, "decoder_dim"),
        ("code2wav_config__model_type", "unheard_of", "unheard_of"),
        ("code2wav_config__num_quantizers", "four", "num_quantizers"),
        ("thinker_config__text_config__hidden_size", 32, "thinker"),
        ("assistant_token_id", 7, "reply begins"),
    ],
)
def test_a_wrong_field_is_named(copy: Path, field: str, value: Any, said: str) -> None:
    edit(copy, **{field: value})
    with pytest.raises(CheckpointError, match=said):
        load(copy, OPTIONS)


@pytest.mark.parametrize(
    "name",
    [
        "thinker.model.layers.1.mlp.experts.2.up_proj.weight",
        "talker.code_predictor.lm_head.1.weight",
        "code2wav.decoder.2.block.3.act1.beta",
    ],
)
def test_a_missing_tensor_is_named(copy: Path, name: str) -> None:
    weights = load_file(copy / "model.safetensors")
    del weights[name]
    save_file(weights, copy / "model.safetensors")
    with pytest.raises(CheckpointError, match=name):
        load(copy, OPTIONS)


def test_a_tensor_of_another_shape_is_named(copy: Path) -> None:
    weights = load_file(copy / "model.safetensors")
    weights["talker.model.norm.weight"] = torch.zeros(3)
    save_file(weights, copy / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"talker\.model\.norm\.weight is \[3\].*\[64\]"):
        load(copy, OPTIONS)


def test_half_a_file_is_named(copy: Path) -> None:
    file = copy / "model.safetensors"
    file.write_bytes(file.read_bytes()[:100_000])
    with pytest.raises(CheckpointError, match=r"model\.safetensors is no whole"):
        load(copy, OPTIONS)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    folder = tiny(tmp_path, shards=3)
    (folder / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(CheckpointError, match="model-00002-of-00003"):
        load(folder, OPTIONS)


def test_an_index_that_lies(tmp_path: Path) -> None:
    folder = tiny(tmp_path, shards=2)
    index = folder / "model.safetensors.index.json"
    placed = json.loads(index.read_text())
    placed["weight_map"]["thinker.lm_head.weight"] = "model-00002-of-00002.safetensors"
    placed["weight_map"]["talker.codec_head.weight"] = "model-00001-of-00002.safetensors"
    index.write_text(json.dumps(placed))
    with pytest.raises(CheckpointError, match=r"has no tensor (thinker\.lm_head|talker\.codec_head)\.weight"):
        load(folder, OPTIONS)
    index.write_text("[]")
    with pytest.raises(CheckpointError, match="index"):
        load(folder, OPTIONS)


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "nowhere", "a/b/c"])
def test_no_such_folder(name: str) -> None:
    with pytest.raises(CheckpointError, match="no such folder"):
        registry.load(name, OPTIONS)


def test_a_hub_id_that_can_not_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match=r"somebody/something.*(hub|reached)"):
        registry.load("somebody/something", OPTIONS)


def test_options_that_can_not_be(checkpoint: Path) -> None:
    with pytest.raises(CheckpointError, match="dtype"):
        load(checkpoint, LoadOptions(device="cpu", dtype="int8"))
    if not torch.cuda.is_available():
        with pytest.raises(CheckpointError, match="CUDA"):
            load(checkpoint, LoadOptions(device="cuda"))


def draw_with(folder: Path, **said: Any) -> None:
    """Adds fields to generation_config.json."""
    file = folder / "generation_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | said))


def test_the_checkpoint_says_how_its_talker_draws(copy: Path) -> None:
    assert load(copy, OPTIONS).spec.talker_sampling == OWN_SAMPLING
    draw_with(copy, talker_temperature=0.3, talker_top_p=0.9)
    assert load(copy, OPTIONS).spec.talker_sampling == replace(OWN_SAMPLING, temperature=0.3, top_p=0.9)
    draw_with(copy, talker_do_sample=False)
    assert load(copy, OPTIONS).spec.talker_sampling == replace(OWN_SAMPLING, temperature=0.0, top_p=0.9)


@pytest.mark.parametrize("said", [{"talker_temperature": -1}, {"talker_top_p": "much"}])
def test_a_talker_that_can_not_draw_is_named(copy: Path, said: dict[str, Any]) -> None:
    draw_with(copy, **said)
    with pytest.raises(CheckpointError, match="generation_config"):
        load(copy, OPTIONS)


def test_loading_imports_no_compiler(checkpoint: Path) -> None:
    """torch._dynamo takes seconds to import, and nothing but `torch.compile` needs it."""
    program = (
        "import sys; from pathlib import Path; from models.base import LoadOptions; from models.registry import load;"
        f"load(Path({str(checkpoint)!r}), LoadOptions(slots=1)); sys.exit('torch._dynamo' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
