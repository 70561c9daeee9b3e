"""diffusers' ``AutoencoderKL``, that of Stable Diffusion, by the contract of ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dclip.errors import BadInput, CorruptArtifact

FOLDER = "vae"


class DiffusersAutoencoder(nn.Module):
    """Pictures (N, 3, H, W) in [-1, 1] to latents (N, C, H/f, W/f) and back.

    Args:
        vae: the library's module.
    """

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.vae = vae
        self.scale = float(vae.config.scaling_factor)
        self.shift = float(getattr(vae.config, "shift_factor", None) or 0.0)

    @property
    def factor(self) -> int:
        """Side of a picture by that of its latent."""
        return 1 << (len(self.vae.config.block_out_channels) - 1)

    @property
    def channels(self) -> int:
        """Of a latent."""
        return int(self.vae.config.latent_channels)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of the latents' normal distribution."""
        found = self.vae.encode(x).latent_dist
        return found.mean, found.logvar

    def latents(self, x: Tensor) -> Tensor:
        """What diffusion works on: the mean, scaled (0.18215 for Stable Diffusion 1.x)."""
        return (self.encode(x)[0] - self.shift) * self.scale

    def decode(self, z: Tensor) -> Tensor:
        """Pictures of scaled latents, in about [-1, 1]."""
        out: Tensor = self.vae.decode(z / self.scale + self.shift, return_dict=False)[0]
        return out


def load_diffusers_kl(folder: Path, device: str | torch.device = "cpu") -> DiffusersAutoencoder:
    """The autoencoder of a folder as diffusers saves it, frozen.

    Raises:
        BadInput: diffusers is not installed.
        CorruptArtifact: files that are missing or do not fit.
    """
    try:
        from diffusers import AutoencoderKL
    except ImportError as e:
        raise BadInput(
            f"this model needs the package diffusers ({e})", "pip install 'dclip[text]'"
        ) from e
    try:
        vae = AutoencoderKL.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    except (OSError, ValueError, RuntimeError, TypeError, KeyError) as e:
        said = str(e).partition("\n")[0]
        raise CorruptArtifact(f"{folder} cannot be loaded ({said})", "import it again") from e
    vae.enable_slicing()  # picture by picture: the peak of memory does not grow with the batch
    return DiffusersAutoencoder(vae).to(device).eval().requires_grad_(False)
