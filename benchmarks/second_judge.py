"""A second judge of photos, of another kind than that of `dclip judge train`: a small transformer.

    python benchmarks/second_judge.py --store DIR --data celeba --out second.pt
    python benchmarks/words_celeba.py ... --second second.pt

A ViT (Dosovitskiy et al. 2021, 2010.11929) of patches of 8 pixels, trained from nothing on the
attributes of the data's training pictures, shown turned, shifted, relit, blurred and noised. It
guides nothing, and no setting was chosen by it. Minutes on a GPU, hours on a CPU.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
import torch.nn.functional as F
from torch import Tensor

from dclip.data.dataset import DataSet
from dclip.data.images import to_float
from dclip.device import choose
from dclip.store import Store

BATCH, RATE, DECAY, WARM_UP = 256, 1e-3, 0.05, 200


def build(names: int, side: int) -> Any:
    """The network: pictures (N, 3, side, side) in [-1, 1] to logits (N, names)."""
    return timm.create_model(
        "vit_tiny_patch16_224", pretrained=False, img_size=side, patch_size=side // 8,
        num_classes=names, drop_path_rate=0.1,
    )  # fmt: skip


def changed(x: Tensor) -> Tensor:
    """Pictures as other cameras might have taken them."""
    n = len(x)

    def around(width: float, *shape: int) -> Tensor:
        return (torch.rand(n, *shape, device=x.device) - 0.5) * width

    angle, size, shift = around(0.4), 1 + around(0.3), around(0.25, 2)
    mirror = torch.where(around(1) < 0, -1.0, 1.0)
    rows = [
        torch.stack([mirror * angle.cos() * size, -angle.sin() * size, shift[:, 0]], 1),
        torch.stack([mirror * angle.sin() * size, angle.cos() * size, shift[:, 1]], 1),
    ]
    grid = F.affine_grid(torch.stack(rows, 1), list(x.shape), align_corners=False)
    x = F.grid_sample(x, grid, padding_mode="reflection", align_corners=False)
    x = x * (1 + around(0.5, 1, 1, 1)) + around(0.4, 1, 1, 1)
    x = x + torch.randn_like(x) * 0.08 * torch.rand(n, 1, 1, 1, device=x.device)
    soft = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), 3, 1)
    return torch.where(around(1, 1, 1, 1) < -0.25, soft, x)


def train(data: DataSet, updates: int, device: torch.device) -> dict[str, Any]:
    """Names and weights of a judge of the data's attributes."""
    names = list(data.attribute_names)
    true = torch.from_numpy(np.stack([data.attribute(name) for name in names], 1) > 0).float()
    split = data.split("train")
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    network = build(len(names), data.size).to(device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=DECAY)
    for update in range(updates):
        for group in optimizer.param_groups:
            fall = 0.5 * (1 + math.cos(math.pi * update / updates))
            group["lr"] = RATE * min(1, (update + 1) / WARM_UP) * fall
        part = np.sort(random.choice(split, BATCH))
        x = changed(to_float(torch.from_numpy(data.images(part))).to(device))
        with torch.autocast(device.type, torch.bfloat16):
            said = network(x).float()
        loss = F.binary_cross_entropy_with_logits(said, true[part].to(device))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        if update % 500 == 0 or update == updates - 1:
            print(f"{update}: loss {float(loss.detach()):.3f}", flush=True)
    weights = {name: value.half().cpu() for name, value in network.state_dict().items()}
    return {"names": names, "side": data.size, "state": weights}


class SecondJudge:
    """What a trained one says of pictures."""

    def __init__(self, file: Path) -> None:
        saved = torch.load(file, weights_only=True)
        self.names: list[str] = saved["names"]
        self.network = build(len(self.names), saved["side"]).eval()
        self.network.load_state_dict({k: v.float() for k, v in saved["state"].items()})

    @torch.no_grad()
    def __call__(self, x: Tensor, name: str) -> np.ndarray:
        """Logits (N,) of an attribute, of each picture (N, 3, H, W) and its mirror image."""
        said: Tensor = self.network(x) + self.network(x.flip(-1))
        return said[:, self.names.index(name)].numpy()


def main() -> None:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--updates", type=int, default=5000)
    asked = parser.parse_args()
    data = DataSet(Store(asked.store).resolve(asked.data, "data").path)
    torch.save(train(data, asked.updates, choose()), asked.out)


if __name__ == "__main__":
    main()
