"""The experts of one layer, by the names that the released files give them."""

import re
from collections.abc import Iterator

from torch import Tensor

_FUSED = re.compile(r"(.*\.experts)\.(gate_up_proj|down_proj)")


def experts_apart(name: str, value: Tensor) -> Iterator[tuple[str, Tensor]]:
    """transformers keeps a layer's experts in one tensor [experts, ...]; the released files have each by itself.

    Any other tensor is given as it is."""
    fused = _FUSED.fullmatch(name)
    if fused is None:
        yield name, value
        return
    for expert, weight in enumerate(value):
        if fused[2] == "down_proj":
            yield f"{fused[1]}.{expert}.down_proj.weight", weight
        else:
            gate, up = weight.chunk(2)
            yield f"{fused[1]}.{expert}.gate_proj.weight", gate
            yield f"{fused[1]}.{expert}.up_proj.weight", up
