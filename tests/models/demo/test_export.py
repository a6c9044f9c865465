"""The exported folder is the released layout: names, shapes, positions and numbers are transformers' own."""

import json
import random
from pathlib import Path

import jinja2
import numpy as np
import pytest
import torch
from safetensors import safe_open
from transformers import Qwen2VLImageProcessorPil
from transformers.models.qwen3_omni_moe.configuration_qwen3_omni_moe import Qwen3OmniMoeThinkerConfig
from transformers.models.qwen3_omni_moe.modeling_qwen3_omni_moe import Qwen3OmniMoeThinkerForConditionalGeneration

from models.demo.recipe import __main__ as recipe
from models.demo.recipe import chat, export, mel, pictures, reference, sequences, think, tokenizer
from models.demo.recipe.reference import Message, Question, Reference
from models.qwen3_omni.layout import tensors


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    recipe.make_tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def checkpoint(work: Path) -> Path:
    """An untrained model, exported."""
    return export.export(work, work / "checkpoint")


def test_names_and_shapes_are_the_released_ones(checkpoint: Path) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    with safe_open(checkpoint / "model.safetensors", "pt") as file:
        written = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    assert written == dict(tensors(config))


def test_it_leaves_room_for_the_speech_half(checkpoint: Path) -> None:
    assert sum(file.stat().st_size for file in checkpoint.iterdir()) < 20_000_000


def asked() -> Question:
    rng = np.random.default_rng(1)
    picture = pictures.draw("red star", random.Random(1))
    speech = [rng.standard_normal(n, np.float32) * np.float32(0.1) for n in (21000, 40000)]
    return Question(
        (
            Message("user", pcm=speech[0], picture=picture),
            Message("assistant", text="I can see a red star."),
            Message("user", pcm=speech[1], picture=picture, camera=True),
            Message("assistant", text="It is red."),
            Message("user", text="And the return fare?"),
        )
    )


@pytest.fixture(scope="module")
def theirs(checkpoint: Path) -> Qwen3OmniMoeThinkerForConditionalGeneration:
    config = json.loads((checkpoint / "config.json").read_text())["thinker_config"]
    return Qwen3OmniMoeThinkerForConditionalGeneration._from_config(Qwen3OmniMoeThinkerConfig(**config)).float().eval()


def test_positions_are_transformers(work: Path, theirs: Qwen3OmniMoeThinkerForConditionalGeneration) -> None:
    """Stills apart from films: `get_rope_index` takes one way with sound for a whole conversation."""
    bpe = tokenizer.load(work / "tokenizer")
    still = sequences.Layout(bpe)
    still.text("<|im_start|>user\n")
    still.picture(pictures.draw("digit two", random.Random(2), 160, 96))
    still.audio(torch.zeros(128, 237))
    still.text("hello<|im_end|>\n")
    film = sequences.Layout(bpe)
    film.text("<|im_start|>user\n")
    frame = pictures.draw("banana", random.Random(3))
    film.audio_with_camera(torch.zeros(128, 337), [[frame, frame]] * 3, 1.0)
    film.text("<|im_end|>\n")
    for layout, arguments in (
        (still, {"image_grid_thw": torch.tensor(still.grids), "audio_seqlens": torch.tensor([237])}),
        (
            film,
            {
                "video_grid_thw": torch.tensor([[3, *film.grids[0][1:]]]),
                "audio_seqlens": torch.tensor([337]),
                "use_audio_in_video": True,
                "second_per_grids": torch.tensor([1.0]),
            },
        ),
    ):
        ids = torch.tensor([layout.ids])
        positions, _ = theirs.get_rope_index(ids, attention_mask=torch.ones_like(ids), **arguments)
        assert torch.equal(positions[:, 0].float(), torch.tensor(layout.positions).T.float())


def test_patches_are_the_processors(checkpoint: Path) -> None:
    frame = pictures.draw("cake", random.Random(4), 160, 96)
    made = Qwen2VLImageProcessorPil.from_pretrained(checkpoint)(images=[frame], return_tensors="pt")
    ours, grid = sequences.patches([frame, frame])
    assert made["image_grid_thw"].tolist() == [list(grid)]
    assert torch.allclose(made["pixel_values"].float(), ours, atol=1e-5)


@torch.no_grad()
def test_numbers_are_transformers(
    work: Path, checkpoint: Path, theirs: Qwen3OmniMoeThinkerForConditionalGeneration
) -> None:
    """The reference asker and transformers' whole thinker give the same next-token scores."""
    ours = Reference(checkpoint)
    rng = np.random.default_rng(1)
    picture = pictures.draw("red star", random.Random(1))
    pcm = rng.standard_normal(21000, np.float32) * np.float32(0.1)
    layout = reference.laid_out(ours.bpe, Question((Message("user", pcm=pcm, picture=picture),)))
    made = sequences.batch([layout])
    embeds, visual, deep = ours._embedded(made)
    hidden = ours.model.text(
        inputs_embeds=embeds, position_ids=made.positions, visual_pos_masks=visual, deepstack_visual_embeds=deep
    ).last_hidden_state
    scores = ours.model.lm_head(hidden)[0, -1]
    state = ours.model.state_dict()
    theirs.model.audio_tower.load_state_dict(ours.model.hearing.tower.state_dict())
    theirs.model.visual.load_state_dict(ours.model.visual.state_dict())
    theirs.model.language_model.load_state_dict(ours.model.text.state_dict())
    theirs.lm_head.weight.copy_(state["lm_head.weight"])
    features = mel.log_mel(pcm)
    expected = theirs(
        input_ids=made.ids,
        attention_mask=torch.ones_like(made.ids),
        input_features=features[None],
        feature_attention_mask=torch.ones(1, features.shape[1], dtype=torch.long),
        pixel_values=made.pixels,
        image_grid_thw=made.grids,
    ).logits[0, -1]
    assert torch.allclose(scores, expected, atol=1e-4)


def test_a_batch_answers_as_one_by_one(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "MAX_TOKENS", 12)  # an untrained model doesn't end by itself
    ours = Reference(checkpoint)
    questions = [asked(), Question((Message("user", text="hello"),)), Question((Message("user", text="two teas"),))]
    assert ours.answers(questions, batch=3) == [ours.answers([question])[0] for question in questions]


def test_the_chat_template_says_the_same_as_the_recipe(checkpoint: Path) -> None:
    source = json.loads((checkpoint / "chat_template.json").read_text())["chat_template"]
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
    environment.filters["tojson"] = json.dumps
    call = {"name": "get_departures", "arguments": {"town": "Leeds"}}
    said = environment.from_string(source).render(
        messages=[
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "audio"}, {"type": "text", "text": chat.TRANSCRIBE}]},
            {"role": "assistant", "content": "", "tool_calls": [{"function": call}]},
            {"role": "tool", "content": "{}"},
        ],
        tools=list(chat.TOOLS),
        add_generation_prompt=True,
    )
    expected = (
        chat.system("Be brief.", chat.TOOLS)
        + chat.user(chat.AUDIO + chat.TRANSCRIBE)
        + chat.REPLY
        + chat.tool_call("get_departures", {"town": "Leeds"})
        + chat.END
        + "\n"
        + chat.tool_result("{}")
        + chat.REPLY
    )
    assert said == expected


def test_roles_are_single_tokens_as_the_talker_needs(work: Path) -> None:
    bpe = tokenizer.load(work / "tokenizer")
    for role in ("system", "user", "assistant"):
        assert len(bpe.encode(f"<|im_start|>{role}\n").ids) == 3


def test_the_embeddings_are_frozen(work: Path) -> None:
    model, _ = think.open_student(work)
    assert not model.text.embed_tokens.weight.requires_grad
    assert sum(p.requires_grad for p in model.parameters()) > 100
