"""The config of ``finetune``."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator

from dclip.config import Excludes, Needs, OneOf, Option, settings
from dclip.configs.common import File, Name, Precision, Preset, Seed, Texts, ref
from dclip.configs.guidance import GuidanceConfig, UpdateConfig, filled
from dclip.errors import BadInput
from dclip.guidance import prompts


@settings
class FinetuneConfig(GuidanceConfig, UpdateConfig):
    """What decides the tuned model."""

    target: Annotated[str | None, Option(metavar="TEXT"), Excludes("preset")] = None
    """What to see: a prompt, or a preset's name, which stands for its pair of prompts."""
    source: Annotated[str | None, Option(metavar="TEXT"), Excludes("preset")] = None
    """What is there: else what the model's domain shows. Several, separated by semicolons: each
    photo starts from the one that the CLIP sees in it."""
    preset: Preset | None = None
    """A pair of prompts from `dclip presets`, instead."""
    kind: (
        Annotated[str, AfterValidator(OneOf("dclip.guidance.kinds:KINDS")), Option(metavar="KIND")]
        | None
    ) = None
    """style, drawing, character, attribute or colour: which settings it takes. Else the preset's,
    or style."""
    latents: Annotated[str | None, ref("latents")] = None
    """Latents to tune on, which also say the base model: else the newest."""
    clip: Annotated[Texts, ref("clip")] = ()
    """CLIP: an artifact, a folder, or open_clip's NAME:TAG. Again for several together. Else the
    newest, else the embedded one for drawn faces, ViT-B-32:openai for photos."""
    name: Name | None = None
    """Name of the tuned model: else made from the target."""
    recipe: (
        Annotated[str, AfterValidator(OneOf("dclip.recipes:RECIPES")), Option(metavar="NAME")]
        | None
    ) = None
    """stepwise, one-step, unrolled, simplified, diffusionclip, diffusionclip-gpu-efficient,
    efficient-diffusion or asyrp: else stepwise for styles and characters, unrolled for the rest;
    on an imported base what the preset's source published, or diffusionclip."""
    precision: Precision = "auto"
    """fp32, bf16 (autocast), or auto: bf16 where that is faster."""
    face: File | None = None
    """Face recognition network, which holds the face's identity: weights of ArcFace IR-SE50 or
    MobileFaceNet, or TorchScript."""
    trust: Annotated[bool, Needs("face")] = False
    """Load a --face TorchScript file, which can run code and write files."""
    seed: Seed = 0
    """Decides crops, order and the adapter's start."""

    def __post_init__(self) -> None:
        from dclip.guidance.kinds import check_weights

        check_weights(self.weights)
        if "face_identity" in self.weights and self.face is None:
            raise BadInput("--face-identity has no effect without --face", "give --face FILE too")
        if self.preset is None and self.target is None:
            raise BadInput(
                "what is the edit?", "give --target sketch, or --preset with one of its names"
            )
        if self.target is not None and not self.target.strip():
            raise BadInput("the prompt is empty", "say what to see, e.g. --target sketch")

    def prompts(self, source: str = "a photo of a person") -> prompts.Preset:
        """The pair of prompts that the config stands for.

        Args:
            source: what is there where the user does not say.
        """
        if self.preset is not None:
            pair = prompts.preset(self.preset)
        elif self.target in prompts.PRESETS and self.source is None:
            pair = prompts.PRESETS[self.target]
        else:
            assert self.target is not None
            pair = prompts.Preset(self.target, self.source or source, "style")
        return dataclasses.replace(pair, kind=self.kind or pair.kind)

    def recipe_on(self, imported: bool) -> str:
        """The name of the recipe.

        Args:
            imported: whether the base comes from elsewhere: then its published settings are
                taken. What ours do at its size and with its CLIP, nobody has measured.
        """
        from dclip.recipes import BY_KIND, PUBLISHED, RECIPES

        if self.recipe is not None:
            return self.recipe
        pair = self.prompts()
        if not imported:
            return BY_KIND[pair.kind]
        suited = pair.suited(True).recipe
        return suited if suited in RECIPES and RECIPES[suited].source else PUBLISHED

    def resolved(self, imported: bool = False) -> Tuning:
        """Every setting that the recipe and the kind of edit decide, filled in.

        Args:
            imported: see :meth:`recipe_on`.

        Raises:
            BadInput: no loss is left that follows the text.
        """
        from dclip.guidance.kinds import KINDS, weights_of
        from dclip.recipes import recipe

        kind = self.prompts().kind
        name = self.recipe_on(imported)
        chosen = recipe(name)
        if chosen.space == "h" and self.rank is not None:
            raise BadInput(
                f"--rank has no effect with --recipe {name}, which tunes no weights", "leave it out"
            )
        weights = weights_of(kind) | ({"face_identity": 1.0} if self.face else {})
        guidance = filled(
            GuidanceConfig,
            self,
            chosen.guidance,
            KINDS[kind],
            GuidanceConfig(weights=weights, views=0),
        )
        of_recipe = chosen.updating
        if self.epochs is not None or self.updates is not None:
            of_recipe = dataclasses.replace(of_recipe, epochs=None, updates=None)
        updates = filled(UpdateConfig, self, of_recipe)
        of_text = ("direction", "log_direction", "goal", "global_clip")
        if not any(guidance.weights[name] > 0 for name in of_text):
            raise BadInput("no loss is left that follows the text", "give --direction or --goal")
        return Tuning(name, guidance, updates, self.decode_steps is None)


@dataclass(frozen=True)
class Tuning:
    """The settings of a fine-tuning, before the latents are known.

    Attributes:
        recipe: a name in :data:`dclip.recipes.RECIPES`.
        guidance: how the text guides; all of it set.
        updating: how the weights are updated. Of ``updates`` and ``epochs`` one is None;
            ``decode_steps`` is None where those of the latents count.
        own_steps: whether the decode's steps are not the user's, so that they may be fewer.
    """

    recipe: str
    guidance: GuidanceConfig
    updating: UpdateConfig
    own_steps: bool

    def for_latents(self, count: int, r: int, inversion_steps: int) -> LatentTuning:
        """The settings for latents.

        Args:
            count: training latents.
            r: the timestep that they were inverted to.
            inversion_steps: in so many steps.

        Raises:
            BadInput: steps that do not fit, or nothing that is tuned.
        """
        from dclip.diffusion import ddim
        from dclip.recipes import recipe

        updating, share = self.updating, self.guidance.t_min or 0.0
        assert updating.batch is not None and updating.lr is not None
        assert updating.rank is not None and updating.decay is not None
        assert updating.growth is not None
        steps = updating.decode_steps or min(inversion_steps, r)
        grid = ddim.grid(r, min(steps, r) if self.own_steps else steps)
        t_min = round(share * r)
        if t_min >= r:
            raise BadInput(f"with --t-min {share:g} of r={r} nothing is tuned", "use less")
        updates = updating.updates
        if updates is None:
            rounds = -(-count // updating.batch)
            losses = sum(t > t_min for t in grid) if recipe(self.recipe).per_step else 1
            updates = (updating.epochs or 1) * rounds * losses
        return LatentTuning(
            recipe=self.recipe,
            guidance=self.guidance,
            lr=updating.lr,
            decay=updating.decay,
            growth=updating.growth,
            batch=updating.batch,
            rank=updating.rank,
            updates=updates,
            r=r,
            decode_steps=len(grid) - 1,
            t_min=t_min,
        )


@dataclass(frozen=True)
class LatentTuning:
    """The settings of one fine-tuning on given latents, all of them set.

    Attributes:
        recipe, guidance: see :class:`Tuning`.
        lr, decay, growth, batch, rank, updates, decode_steps: see
            :class:`dclip.configs.guidance.UpdateConfig`.
        r: the timestep at which decodes start.
        t_min: at and below this timestep the base decodes alone.
    """

    recipe: str
    guidance: GuidanceConfig
    lr: float
    decay: float
    growth: float
    batch: int
    rank: int
    updates: int
    r: int
    decode_steps: int
    t_min: int

    def settings(self) -> dict[str, object]:
        """As the artifact's config holds them: one flat table, ``t_min`` a timestep."""
        own = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        guidance = {
            f.name: getattr(self.guidance, f.name)
            for f in dataclasses.fields(self.guidance)
            if f.name != "t_min"
        }
        return {k: v for k, v in own.items() if k != "guidance"} | guidance
