"""One layer's experts, apart."""

import torch
from torch import Tensor

from models.demo.recipe.experts import experts_apart


def test_apart_and_put_together_again_they_are_the_same() -> None:
    gate_up, down = torch.randn(3, 8, 5), torch.randn(3, 5, 4)
    apart = dict(experts_apart("layers.0.mlp.experts.gate_up_proj", gate_up))
    apart |= dict(experts_apart("layers.0.mlp.experts.down_proj", down))

    def of(expert: int, part: str) -> Tensor:
        return apart.pop(f"layers.0.mlp.experts.{expert}.{part}.weight")

    together = [torch.cat([of(expert, "gate_proj"), of(expert, "up_proj")]) for expert in range(3)]
    assert torch.equal(torch.stack(together), gate_up)
    assert torch.equal(torch.stack([of(expert, "down_proj") for expert in range(3)]), down)
    assert not apart


def test_what_is_no_expert_is_left_alone() -> None:
    weight = torch.randn(4)
    assert list(experts_apart("layers.0.mlp.gate.weight", weight)) == [("layers.0.mlp.gate.weight", weight)]
