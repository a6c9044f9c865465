"""Names and shapes of the tensors in a released Qwen3-Omni checkpoint, from its config.json.

Written down apart from our modules on purpose: ``tiny`` writes by this list, ``load`` reads by our modules' own names,
and the tests read the same folder with transformers, so that a name wrong in one place shows.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Shapes = Iterator[tuple[str, tuple[int, ...]]]


def tensors(config: dict[str, Any]) -> Shapes:
    """Every (name, shape) of the checkpoint, in the order of the stages."""
    thinker = config["thinker_config"]
    yield from _prefixed("thinker.audio_tower", _audio(thinker["audio_config"]))
    yield from _prefixed("thinker.visual", _vision(thinker["vision_config"]))
    yield from _prefixed("thinker.model", _thinker(thinker["text_config"]))
    yield "thinker.lm_head.weight", (thinker["text_config"]["vocab_size"], thinker["text_config"]["hidden_size"])
    if config.get("enable_audio_output", True):
        yield from _prefixed("talker", _talker(config["talker_config"]))
        yield from _prefixed("code2wav", _code2wav(config["code2wav_config"]))


def _prefixed(prefix: str, shapes: Shapes) -> Shapes:
    for name, shape in shapes:
        yield f"{prefix}.{name}", shape


def _linear(name: str, out_size: int, in_size: int, bias: bool = True) -> Shapes:
    yield f"{name}.weight", (out_size, in_size)
    if bias:
        yield f"{name}.bias", (out_size,)


def _norm(name: str, size: int) -> Shapes:
    yield f"{name}.weight", (size,)
    yield f"{name}.bias", (size,)


def _audio(c: dict[str, Any]) -> Shapes:
    size, channels = c["d_model"], c["downsample_hidden_size"]
    bands = c["num_mel_bins"]
    for layer in (1, 2, 3):
        yield f"conv2d{layer}.weight", (channels, 1 if layer == 1 else channels, 3, 3)
        yield f"conv2d{layer}.bias", (channels,)
        bands = (bands + 1) // 2
    yield from _linear("conv_out", size, channels * bands, bias=False)
    for i in range(c["encoder_layers"]):
        for name in ("k_proj", "v_proj", "q_proj", "out_proj"):
            yield from _linear(f"layers.{i}.self_attn.{name}", size, size)
        yield from _norm(f"layers.{i}.self_attn_layer_norm", size)
        yield from _linear(f"layers.{i}.fc1", c["encoder_ffn_dim"], size)
        yield from _linear(f"layers.{i}.fc2", size, c["encoder_ffn_dim"])
        yield from _norm(f"layers.{i}.final_layer_norm", size)
    yield from _norm("ln_post", size)
    yield from _linear("proj1", size, size)
    yield from _linear("proj2", c["output_dim"], size)


def _vision(c: dict[str, Any]) -> Shapes:
    size = c["hidden_size"]
    patch = (c["temporal_patch_size"], c["patch_size"], c["patch_size"])
    yield "patch_embed.proj.weight", (size, c["in_channels"], *patch)
    yield "patch_embed.proj.bias", (size,)
    yield "pos_embed.weight", (c["num_position_embeddings"], size)
    for i in range(c["depth"]):
        yield from _norm(f"blocks.{i}.norm1", size)
        yield from _norm(f"blocks.{i}.norm2", size)
        yield from _linear(f"blocks.{i}.attn.qkv", 3 * size, size)
        yield from _linear(f"blocks.{i}.attn.proj", size, size)
        yield from _linear(f"blocks.{i}.mlp.linear_fc1", c["intermediate_size"], size)
        yield from _linear(f"blocks.{i}.mlp.linear_fc2", size, c["intermediate_size"])
    merged = size * c["spatial_merge_size"] ** 2
    mergers = [("merger", size)] + [(f"merger_list.{i}", merged) for i in range(len(c["deepstack_visual_indexes"]))]
    for name, norm_size in mergers:
        yield from _norm(f"{name}.ln_q", norm_size)
        yield from _linear(f"{name}.mlp.0", merged, merged)
        yield from _linear(f"{name}.mlp.2", c["out_hidden_size"], merged)


def _attention(name: str, c: dict[str, Any], head_norms: bool = True) -> Shapes:
    size = c["hidden_size"]
    head = c.get("head_dim") or size // c["num_attention_heads"]
    heads, kv_heads = c["num_attention_heads"], c["num_key_value_heads"]
    yield from _linear(f"{name}.q_proj", heads * head, size, bias=False)
    yield from _linear(f"{name}.k_proj", kv_heads * head, size, bias=False)
    yield from _linear(f"{name}.v_proj", kv_heads * head, size, bias=False)
    yield from _linear(f"{name}.o_proj", size, heads * head, bias=False)
    if head_norms:
        yield f"{name}.q_norm.weight", (head,)
        yield f"{name}.k_norm.weight", (head,)


def _mlp(name: str, size: int, inner: int) -> Shapes:
    yield from _linear(f"{name}.gate_proj", inner, size, bias=False)
    yield from _linear(f"{name}.up_proj", inner, size, bias=False)
    yield from _linear(f"{name}.down_proj", size, inner, bias=False)


def _block_norms(name: str, size: int) -> Shapes:
    yield f"{name}.input_layernorm.weight", (size,)
    yield f"{name}.post_attention_layernorm.weight", (size,)


def _experts(name: str, c: dict[str, Any], experts: int) -> Shapes:
    yield from _linear(f"{name}.gate", experts, c["hidden_size"], bias=False)
    for expert in range(experts):
        yield from _mlp(f"{name}.experts.{expert}", c["hidden_size"], c["moe_intermediate_size"])


def _thinker(c: dict[str, Any]) -> Shapes:
    yield "embed_tokens.weight", (c["vocab_size"], c["hidden_size"])
    for i in range(c["num_hidden_layers"]):
        yield from _attention(f"layers.{i}.self_attn", c)
        yield from _experts(f"layers.{i}.mlp", c, c["num_experts"])
        yield from _block_norms(f"layers.{i}", c["hidden_size"])
    yield "norm.weight", (c["hidden_size"],)


def _talker(c: dict[str, Any]) -> Shapes:
    text = c["text_config"]
    size = text["hidden_size"]
    yield "model.codec_embedding.weight", (text["vocab_size"], size)
    for i in range(text["num_hidden_layers"]):
        layer = f"model.layers.{i}"
        yield from _attention(f"{layer}.self_attn", text)
        yield from _experts(f"{layer}.mlp", text, text.get("num_experts") or text["num_local_experts"])
        yield from _mlp(f"{layer}.mlp.shared_expert", size, text["shared_expert_intermediate_size"])
        yield from _linear(f"{layer}.mlp.shared_expert_gate", 1, size, bias=False)
        yield from _block_norms(layer, size)
    yield "model.norm.weight", (size,)
    for name in ("text_projection", "hidden_projection"):
        yield from _linear(f"{name}.linear_fc1", text["intermediate_size"], c["thinker_hidden_size"])
        yield from _linear(f"{name}.linear_fc2", size, text["intermediate_size"])
    yield from _linear("codec_head", text["vocab_size"], size, bias=False)
    yield from _prefixed("code_predictor", _predictor(c["code_predictor_config"]))


def _predictor(c: dict[str, Any]) -> Shapes:
    size = c["hidden_size"]
    for i in range(c["num_hidden_layers"]):
        yield from _attention(f"model.layers.{i}.self_attn", c)
        yield from _mlp(f"model.layers.{i}.mlp", size, c["intermediate_size"])
        yield from _block_norms(f"model.layers.{i}", size)
    yield "model.norm.weight", (size,)
    for group in range(c["num_code_groups"] - 1):
        yield f"model.codec_embedding.{group}.weight", (c["vocab_size"], size)
        yield from _linear(f"lm_head.{group}", c["vocab_size"], size, bias=False)


def _code2wav(c: dict[str, Any]) -> Shapes:
    size = c["hidden_size"]
    yield "code_embedding.weight", (c["codebook_size"] * c["num_quantizers"], size)
    for i in range(c["num_hidden_layers"]):
        layer = f"pre_transformer.layers.{i}"
        yield from _attention(f"{layer}.self_attn", c, head_norms=False)
        yield from _mlp(f"{layer}.mlp", size, c["intermediate_size"])
        yield from _block_norms(layer, size)
        yield f"{layer}.self_attn_layer_scale.scale", (size,)
        yield f"{layer}.mlp_layer_scale.scale", (size,)
    yield "pre_transformer.norm.weight", (size,)
    for i, factor in enumerate(c["upsampling_ratios"]):
        yield from _conv(f"upsample.{i}.0.conv", (size, size, factor), size)
        yield from _conv(f"upsample.{i}.1.dwconv.conv", (size, 1, 7), size)
        yield from _norm(f"upsample.{i}.1.norm", size)
        yield from _linear(f"upsample.{i}.1.pwconv1", 4 * size, size)
        yield from _linear(f"upsample.{i}.1.pwconv2", size, 4 * size)
        yield f"upsample.{i}.1.gamma", (size,)
    yield from _prefixed("decoder", _decoder(c))


def _conv(name: str, shape: tuple[int, ...], out_channels: int) -> Shapes:
    yield f"{name}.weight", shape
    yield f"{name}.bias", (out_channels,)


def _snake(name: str, channels: int) -> Shapes:
    yield f"{name}.alpha", (channels,)
    yield f"{name}.beta", (channels,)


def _decoder(c: dict[str, Any]) -> Shapes:
    channels, rates = c["decoder_dim"], c["upsample_rates"]
    yield from _conv("0.conv", (channels, c["hidden_size"], 7), channels)
    for i, rate in enumerate(rates, start=1):
        yield from _snake(f"{i}.block.0", channels)
        channels //= 2
        yield from _conv(f"{i}.block.1.conv", (2 * channels, channels, 2 * rate), channels)
        for unit in (2, 3, 4):
            yield from _snake(f"{i}.block.{unit}.act1", channels)
            yield from _conv(f"{i}.block.{unit}.conv1.conv", (channels, channels, 7), channels)
            yield from _snake(f"{i}.block.{unit}.act2", channels)
            yield from _conv(f"{i}.block.{unit}.conv2.conv", (channels, channels, 1), channels)
    yield from _snake(f"{len(rates) + 1}", channels)
    yield from _conv(f"{len(rates) + 2}.conv", (1, channels, 7), 1)
