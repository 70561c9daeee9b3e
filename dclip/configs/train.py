"""The config of ``train``."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Gt, Le
from pydantic import AfterValidator

from dclip.config import Excludes, Needs, OneOf, Option, settings
from dclip.configs.common import Count, Name, Norm, Precision, Rate, Seed, Share, Texts, ref

_FRESH = Excludes("init")  # what the model to go on from decides


@settings
class TrainConfig:
    """What decides the trained network."""

    data: Annotated[str | None, ref("data")] = None
    """Data artifact: else the newest."""
    name: Name | None = None
    """Name of the new model: else the data's."""
    init: Annotated[str | None, ref("model")] = None
    """Model to go on from: its weights, network and schedule. Else a fresh one is trained."""
    network: Annotated[
        str,
        AfterValidator(OneOf("dclip.models.checkpoint:ARCHITECTURES")),
        Option(metavar="NET"),
        _FRESH,
    ] = "unet"
    """unet, or the report's tiny."""
    size: Annotated[
        str,
        AfterValidator(OneOf("dclip.models.unet:SIZES")),
        Option(metavar="SIZE"),
        _FRESH,
        Needs("network", ("unet",)),
    ] = "laptop"
    """U-Net size: latent, micro, laptop, small, medium or large."""
    latent: Annotated[str | None, ref("autoencoder"), _FRESH] = None
    """Autoencoder whose latents the network denoises, instead of pixels."""
    without: Texts = ()
    """Leave out the training images that meet all of these, e.g. 'style=sketch,bald=1', to see
    later whether the model draws what it never saw together. Again for more."""
    condition: Literal["none", "text", "attributes"] = "none"
    """text: the network reads each picture's caption, and draws from prompts. attributes: it reads
    the data's attributes. With --init of one that reads none it begins as that one."""
    encoder: Annotated[str | None, ref("clip"), Needs("condition", ("text",))] = None
    """What reads the captions: a CLIP, or a folder of transformers with a BERT or a CLIP. Else the
    embedded CLIP."""
    schedule: Annotated[Literal["linear-rescaled", "linear", "cosine"], _FRESH] = "linear-rescaled"
    """How the noise grows with t."""
    T: Annotated[Count, Option(flags=("-T", "--timesteps")), _FRESH] = 200
    """Diffusion timesteps."""
    epochs: Annotated[float, Gt(0), Le(1e6), Option(metavar="X"), Excludes("images")] = 10.0
    """Passes over the training images."""
    images: Count | None = None
    """Training images to see in all, instead of --epochs."""
    batch: Count = 32
    """Images a network call."""
    accumulate: Count = 1
    """Network calls an update."""
    lr: Rate | None = None
    """Adam's learning rate: else 5e-4 for unet, 2e-4 for tiny."""
    decay: Literal["cosine", "constant"] = "cosine"
    """cosine lets the learning rate fall to a twentieth; constant keeps it."""
    ema: Share = 0.9995
    """Decay of the weights' moving average."""
    max_grad_norm: Norm = 1.0
    """Limit of the gradient's norm."""
    flip: bool = True
    """Mirror half of the images."""
    precision: Precision = "auto"
    """fp32, bf16 (autocast), or auto: bf16 where that is faster."""
    storage: Literal["fp32", "fp16"] = "fp32"
    """Weights on disk."""
    seed: Seed = 0
    """Decides weights, order, noise and flips."""
