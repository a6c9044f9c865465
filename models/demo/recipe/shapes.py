"""How large the demo model is: its configuration, in the released checkpoint's form."""

from typing import Any

HIDDEN = 256
AUDIO: dict[str, Any] = {
    "num_mel_bins": 128,
    "d_model": 192,
    "encoder_layers": 6,
    "encoder_attention_heads": 4,
    "encoder_ffn_dim": 576,
    "downsample_hidden_size": 16,
    "output_dim": HIDDEN,
    "n_window": 50,
    "n_window_infer": 800,
    "conv_chunksize": 500,
    "max_source_positions": 1500,
    "activation_function": "gelu",
    "dropout": 0.0,
    "attention_dropout": 0.0,
    "activation_dropout": 0.0,
    "scale_embedding": False,
}
TEXT: dict[str, Any] = {
    "hidden_size": HIDDEN,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "intermediate_size": 512,
    "moe_intermediate_size": 128,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "norm_topk_prob": True,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-6,
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 100000.0,
        "mrope_section": [12, 10, 10],
        "mrope_interleaved": True,
    },
    "tie_word_embeddings": False,
    "attention_bias": False,
    "hidden_act": "silu",
    "use_cache": True,
    "router_aux_loss_coef": 0.001,
    "initializer_range": 0.05,
}
VISION: dict[str, Any] = {
    "depth": 3,
    "hidden_size": 96,
    "intermediate_size": 256,
    "num_heads": 4,
    "patch_size": 16,
    "temporal_patch_size": 2,
    "spatial_merge_size": 2,
    "in_channels": 3,
    "out_hidden_size": HIDDEN,
    "num_position_embeddings": 256,
    "deepstack_visual_indexes": [0, 1],
    "hidden_act": "gelu_pytorch_tanh",
}
ACCEPT_HIDDEN_LAYER = 2
"""The layer of the thinker whose output the talker reads at what was heard and seen."""
