"""Autoencoders on disk: ``autoencoder.safetensors`` and ``autoencoder.json``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from dclip.config import from_dict
from dclip.errors import BadInput, CorruptArtifact
from dclip.latent.autoencoder import Autoencoder, AutoencoderConfig
from dclip.latent.diffusers_kl import FOLDER, DiffusersAutoencoder, load_diffusers_kl
from dclip.models.checkpoint import check_weights, read_weights

WEIGHTS, CONFIG = "autoencoder.safetensors", "autoencoder.json"


def save_autoencoder(
    path: Path,
    config: AutoencoderConfig,
    weights: Mapping[str, Tensor],
    *,
    dtype: torch.dtype | None = None,
) -> None:
    """Write both files into ``path``; ``dtype`` is the storage type, None keeps theirs."""
    stored = {k: v.to(dtype or v.dtype).detach().cpu().contiguous() for k, v in weights.items()}
    path.mkdir(parents=True, exist_ok=True)
    save_file(stored, path / WEIGHTS)
    (path / CONFIG).write_text(json.dumps(asdict(config), indent=1, sort_keys=True) + "\n")


def load_decoder(
    path: Path, device: str | torch.device = "cpu"
) -> Autoencoder | DiffusersAutoencoder:
    """The autoencoder of a model of latents: ours, or that of an imported one.

    Raises: as :func:`load_autoencoder` and :func:`dclip.latent.diffusers_kl.load_diffusers_kl`.
    """
    if (path / FOLDER).is_dir():
        return load_diffusers_kl(path / FOLDER, device)
    return load_autoencoder(path, device)


def load_autoencoder(path: Path, device: str | torch.device = "cpu") -> Autoencoder:
    """The autoencoder of an artifact, in float32, evaluation mode and frozen.

    Raises:
        BadInput: a shape that this dclip does not know, or weights of another.
        CorruptArtifact: unreadable files.
    """
    file = path / CONFIG
    try:
        config = from_dict(AutoencoderConfig, json.loads(file.read_text()))
    except BadInput as e:
        raise BadInput(f"{file}: {e.message}", e.fix) from e
    except (OSError, ValueError, TypeError) as e:
        raise CorruptArtifact(
            f"{file} cannot be read as an autoencoder's description ({e})",
            "train or fetch it again",
        ) from e
    weights = read_weights(path / WEIGHTS)
    model = Autoencoder(config)
    own = {k: v.shape for k, v in model.state_dict().items()}
    check_weights(own, {k: v.shape for k, v in weights.items()}, str(path / WEIGHTS))
    model.load_state_dict(weights)
    return model.to(device).eval().requires_grad_(False)
