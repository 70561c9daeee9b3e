"""The config of ``sample``."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge, Le
from pydantic import AfterValidator

from dclip.config import Excludes, Needs, OneOf, Option, settings
from dclip.configs.common import Count, Guides, Name, Precision, Seed, Texts, ref


@settings
class SampleConfig:
    """What to draw, and how."""

    model: Annotated[str | None, ref("model"), Excludes("tuned")] = None
    """Base model: else the newest, else the embedded one."""
    tuned: Annotated[str | None, ref("tuned")] = None
    """Tuned model to draw with instead; it knows its base."""
    strength: Annotated[float, Option(metavar="X"), Needs("tuned")] = 1.0
    """How much of the tuning: 0 is its base, 1 all of it."""
    name: Name | None = None
    """Name of the samples: else the model's."""
    prompt: Texts = ()
    """What to draw, with a model that reads text; again for several, each --count times."""
    negative: Annotated[str, Option(metavar="TEXT"), Needs("prompt")] = ""
    """What to keep away from: else the empty prompt."""
    cfg: Annotated[float, Ge(-100), Le(100), Option(metavar="X"), Needs("prompt")] = 3.0
    """Scale of classifier-free guidance: 1 is the prompt alone, more follows it more closely."""
    rescale: Annotated[float, Ge(0), Le(1), Option(metavar="X"), Needs("prompt")] = 0.0
    """How much of the contrast that a high --cfg adds is taken back, 0 to 1."""
    encoder: Annotated[str | None, Option(metavar="ENCODER", ref="encoder"), Needs("prompt")] = None
    """Text encoder in the place of the model's own: a map, a CLIP, or a folder with a BERT."""
    mix: Annotated[float, Ge(0), Le(1), Option(metavar="X"), Needs("encoder")] | None = None
    """Weights between the model's own text tower, 0, and that of --encoder, 1: of one that was
    trained on from it."""
    count: Count = 16
    """How many pictures. The first ones of a larger count are the same."""
    sampler: Annotated[
        str, AfterValidator(OneOf("dclip.diffusion.samplers:SAMPLERS")), Option(metavar="NAME")
    ] = "ddim"
    """ddim, ddpm, euler, euler-ancestral, heun, dpmpp-2m, lms, plms or pndm."""
    steps: Count = 50
    """Steps from noise to picture, in 1..T."""
    eta: Annotated[float, Ge(0), Le(1), Option(metavar="X"), Needs("sampler", ("ddim",))] = 0.0
    """Noise of ddim's steps: 0 is deterministic, 1 that of ddpm."""
    grid: (
        Annotated[str, AfterValidator(OneOf("dclip.diffusion.grids:RULES")), Option(metavar="RULE")]
        | None
    ) = None
    """How the steps are spread: even, leading, trailing, linspace or diffusionclip. Else the
    model's own rule."""
    train_timesteps: Count | None = None
    """The model's range of betas in so many noise steps, as a scheduler's num_train_timesteps does:
    for figures of what that changes. Else as it was trained."""
    guide: Guides = ()
    """Steer towards a text, picture or colour: 'clip:a smiling person', image:FILE,
    colour:#20c040, each with a strength after a colon. Again for several together."""
    clip: Annotated[Texts, ref("clip"), Needs("guide")] = ()
    """CLIP that steers: else the newest, else that of the model's domain."""
    through: Annotated[Literal["x0", "network"], Needs("guide")] = "x0"
    """What the steering gradient passes: the clean estimate alone, or the network too (slower)."""
    batch: Count = 16
    """Pictures a network call. Part of the result: rounding differs with it."""
    precision: Precision = "fp32"
    """What the networks compute in: fp32, bf16 (faster on most GPUs), or auto."""
    seed: Seed = 0
    """Decides the noise, picture by picture."""
