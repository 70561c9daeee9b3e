"""How to see that a setting counts: for every field of every config, a change and what it changes.

Texts that begin with ``@`` stand for files of the world that the test makes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dclip.configs.autoencoder_train import AutoencoderTrainConfig
from dclip.configs.clip_train import ClipTrainConfig
from dclip.configs.demo import DemoConfig
from dclip.configs.edit import EditConfig
from dclip.configs.encoder_map import EncoderMapConfig
from dclip.configs.eval import EvalConfig
from dclip.configs.explain import ExplainConfig
from dclip.configs.finetune import FinetuneConfig
from dclip.configs.grid import GridConfig
from dclip.configs.import_model import ImportConfig
from dclip.configs.inspect import InspectConfig
from dclip.configs.invert import InvertConfig
from dclip.configs.judge_train import JudgeTrainConfig
from dclip.configs.prepare import PrepareConfig
from dclip.configs.sample import SampleConfig
from dclip.configs.slider import SliderConfig
from dclip.configs.train import TrainConfig

DROP = object()  # as a value: the config's own default


@dataclass(frozen=True)
class Case:
    """A change of settings.

    Attributes:
        change: the field's other value, and what must change with it.
        base: what the change is made to, over the stage's own base.
        looks_at: what differs: ``files`` (the stage's core files), ``name``, ``domain``, ``scores``
            (metrics of that name), ``calls`` (batch sizes of network calls), ``types`` (that
            layers compute in), ``plan`` (of a dry run).
        refused: words of the refusal that one of the two ends in; None where neither does.
    """

    change: Mapping[str, Any]
    base: Mapping[str, Any] = field(default_factory=dict)
    looks_at: str = "files"
    refused: str | None = None


@dataclass(frozen=True)
class Stage:
    """A stage, a small piece of work for it, and a case for each of its fields.

    Attributes:
        module: of its ``run``, below ``dclip.stages``.
        config: its config.
        base: the piece of work.
        core: beginnings of the paths of the files that are its result.
        cases: by field, and by ``weights.NAME`` for each loss. A mapping is a :class:`Case`'s
            change; another value that of the field alone.
    """

    module: str
    config: type
    base: Mapping[str, Any]
    core: tuple[str, ...]
    cases: Mapping[str, Any]

    def case(self, name: str) -> Case:
        """The case of a field."""
        found = self.cases[name] if name in self.cases else EVERYWHERE[name]
        if isinstance(found, Case):
            return found
        return Case(found if isinstance(found, Mapping) else {name: found})


RENAMED = Case({"name": "renamed"}, looks_at="name")
# The layout of weights follows the precision and changes the last bits too: so not by the files.
HALF = Case({"precision": "bf16"}, looks_at="types")
EVERYWHERE: Mapping[str, Any] = {"name": RENAMED, "seed": 1, "precision": HALF}

TRAIN = Stage(
    "train",
    TrainConfig,
    {"data": "faces", "size": "micro", "T": 20, "images": 12, "batch": 4, "lr": 5e-3, "ema": 0.5},
    ("model.safetensors",),
    {
        "data": "plain",
        "init": Case({"init": "other"}, {"init": "faces", "size": DROP, "T": DROP}),
        "network": Case({"network": "tiny"}, {"size": DROP, "images": 2, "batch": 2}),
        "size": Case({"size": "laptop"}, {"images": 2, "batch": 2}),
        "latent": Case({"latent": "auto"}, {"size": "latent"}),
        "without": {"without": ("@where",)},
        "condition": "text",
        "encoder": Case({"encoder": "@clip"}, {"condition": "text"}),
        "schedule": "linear",
        "T": 10,
        "epochs": Case({"epochs": 0.3}, {"images": DROP, "epochs": 0.1}),
        "images": 8,
        "batch": 2,
        "accumulate": 2,
        "lr": 1e-3,
        "decay": "constant",
        "ema": 0.0,
        "max_grad_norm": 0.05,
        "flip": False,
        "storage": "fp16",
    },
)

_READER = {"model": "reader", "prompt": ("a person with glasses",), "cfg": 90.0}
SAMPLE = Stage(
    "sample",
    SampleConfig,
    {"model": "faces", "count": 2, "steps": 3, "batch": 2},
    ("images/",),
    {
        "model": "other",
        "tuned": Case({"tuned": "smiling"}, {"model": DROP, "tuned": "sketch"}),
        "strength": Case({"strength": 0.5}, {"model": DROP, "tuned": "sketch"}),
        "prompt": Case({"prompt": ("a sketch of an old face",)}, _READER),
        "negative": Case({"negative": "a sketch of an old face"}, _READER),
        "cfg": Case({"cfg": -90.0}, _READER),
        "rescale": Case({"rescale": 1.0}, _READER),
        "encoder": Case({"encoder": "@clip2"}, _READER),
        "mix": Case({"mix": 0.5}, {**_READER, "encoder": "@clip2"}),
        "count": 3,
        "sampler": "ddpm",
        "train_timesteps": 30,
        "eta": 0.5,
        "grid": "leading",
        "guide": {"guide": ("colour:#ff0000:1",)},
        "clip": Case(
            {"clip": ("@clip2",)}, {"guide": ("clip:a smiling person:1",), "clip": ("@clip",)}
        ),
        "through": Case({"through": "network"}, {"guide": ("colour:#ff0000:1",)}),
        "steps": 4,
        "batch": Case({"batch": 1}, looks_at="calls"),
    },
)

INVERT = Stage(
    "invert",
    InvertConfig,
    {"data": "faces", "model": "faces", "r": 6, "steps": 3, "count": 4, "batch": 4},
    ("latents.zarr/",),
    {
        "data": "plain",
        "model": "other",
        "r": 8,
        # The usual r of 50 is beyond this model's T; that of a preset is a share of it.
        "preset": Case({"preset": "sketch"}, {"r": DROP}, refused="1..20"),
        "steps": 4,
        "grid": "diffusionclip",
        "encode": "noise",
        "method": "ddim",
        "refinements": 0,
        "tolerance": 10.0,
        "split": "val",
        "count": 3,
        "batch": Case({"batch": 2}, looks_at="calls"),
    },
)

_FACE = {"face": "@face", "trust": True}
_PRESET = {"target": DROP, "source": DROP, "preset": "smiling"}
FINETUNE = Stage(
    "finetune",
    FinetuneConfig,
    {
        "target": "a drawing",
        "source": "a photo",
        "latents": "faces",
        "clip": ("@clip",),
        "batch": 4,
        "updates": 3,
        "decode_steps": 2,
        "recipe": "stepwise",
        "lr": 2e-2,
    },
    ("adapter.safetensors", "delta.safetensors"),
    {
        "target": "a statue",
        "source": "a house",
        "preset": Case({"preset": "sketch"}, _PRESET),
        "kind": "attribute",
        "latents": "more",
        "clip": ("@clip2",),
        "recipe": "unrolled",
        "face": _FACE,
        # A seed of its own: finished work does not load the network again.
        "trust": Case({"trust": True}, {"face": "@face", "seed": 77}, refused="TorchScript"),
        "weights": {"weights": {"direction": 5.0}},
        "weights.direction": {"weights": {"direction": 5.0}},
        "weights.log_direction": {"weights": {"log_direction": 5.0}},
        "weights.global_clip": {"weights": {"global_clip": 5.0}},
        "weights.goal": {"weights": {"goal": 0.1}},
        "weights.identity": {"weights": {"identity": 20.0}},
        "weights.colour": {"weights": {"colour": 20.0}},
        "weights.lpips": Case({"weights": {"lpips": 20.0}}, refused="AlexNet's weights"),
        "weights.speckle": {"weights": {"speckle": 20.0}},
        "weights.propagation": {"weights": {"propagation": 30.0}},
        "weights.grey": {"weights": {"grey": 20.0}},
        "weights.structure": {"weights": {"structure": 20.0}},
        "weights.face_identity": Case({"weights": {"face_identity": 20.0}}, _FACE),
        "t_min": 0.6,
        "saturation": 0.0,
        "goal_scale": 3.0,
        "blur": 0.0,
        "views": 2,
        "locality": Case({"locality": 0.3}, looks_at="scores"),
        "scale": 2.0,
        "lr": 1e-2,
        "decay": 1.0,
        "growth": Case({"growth": 3.0}, {"batch": 16, "recipe": "unrolled"}),
        "batch": 3,
        "updates": 2,
        "epochs": Case({"epochs": 2}, {"updates": DROP, "epochs": 1, "batch": 16}),
        "decode_steps": 3,
        "rank": 4,
    },
)

_PHOTO = {
    "data": DROP, "count": DROP, "split": DROP, "seed": DROP,
    "photos": ("@photo",), "anyway": True,
}  # fmt: skip
_PARTY = {**_PHOTO, "photos": ("@party",)}
_WORDS = {"model": "reader", "tuned": (), "prompt": "a person with glasses", "cfg": -90.0}
EDIT = Stage(
    "edit",
    EditConfig,
    {"data": "faces", "count": 2, "tuned": ("sketch",), "split": "train"},
    ("images/",),
    {
        "photos": Case({"photos": ("@photo2",)}, _PHOTO),
        "guide": {"guide": ("colour:#ff0000:1",)},
        "clip": Case(
            {"clip": ("@clip2",)},
            {"guide": ("direction:a man->a smiling man:1",), "clip": ("@clip",)},
        ),
        "through": Case({"through": "network"}, {"guide": ("colour:#ff0000:1",)}),
        "model": Case(
            {"model": "other"}, {"guide": ("colour:#ff0000:1",), "tuned": (), "model": "faces"}
        ),
        "tuned": ("smiling",),
        "prompt": Case({"prompt": "a sketch of an old face"}, _WORDS),
        "source": Case({"source": "a sketch of an old face"}, _WORDS),
        "encoder": Case({"encoder": "@clip2"}, _WORDS),
        "cfg": Case({"cfg": 90.0}, _WORDS),
        "strength": (0.5,),
        "data": "plain",
        "split": "val",
        "where": ("@where",),
        "count": 3,
        "crop": Case({"crop": "face"}, _PHOTO),
        "align": Case({"align": False}, _PARTY),
        "face": Case({"face": "2"}, _PARTY),
        "max_faces": Case({"max_faces": 1}, _PARTY),
        "r": 8,
        "steps": 3,
        "grid": "diffusionclip",
        "encode": "noise",
        "rounds": 1,
        "rounds_r": Case({"rounds_r": 5}, {"rounds": 1}),
        "mix": Case({"mix": "noise"}, {"tuned": ("sketch", "smiling")}),
        "locality": 0.3,
        "mask": Case({"mask": "@mask"}, _PHOTO),
        "direct": False,
        "side_by_side": True,
        "strict": Case(
            {"strict": True},
            {**_PHOTO, "photos": ("@photo", "@broken")},
            refused="1 of 2 photos could not be",
        ),
        "anyway": Case({"anyway": False}, _PHOTO, refused="only faces that dclip draws"),
    },
)

EVAL = Stage(
    "eval",
    EvalConfig,
    {
        "tuned": ("sketch",), "target": "sketch", "judge": "judge", "clip": "@clip", "count": 2,
        "strengths": (1.0,),
    },
    ("eval.json",),
    {
        "tuned": ("smiling",),
        "edits": Case(
            {"edits": "other-edits"},
            {"tuned": DROP, "count": DROP, "strengths": DROP, "seed": DROP, "edits": "edits"},
        ),
        "data": "faces",
        "split": Case({"split": "train"}, {"data": "faces"}),
        "where": Case({"where": ("@where",)}, {"data": "faces", "split": "train"}),
        "count": 3,
        "target": "zombie",
        "expected": "@expected",
        "strengths": (0.5,),
        "judge": "other-judge",
        "clip": "@clip2",
        "held_out": "@clip2",
        "face": _FACE,
        # A seed of its own: finished work does not load the network again.
        "trust": Case({"trust": True}, {"face": "@face", "seed": 77}, refused="TorchScript"),
        "r": 8,
        "steps": 3,
        "mix": Case({"mix": "noise"}, {"tuned": ("sketch", "smiling")}),
        "locality": 0.3,
    },
)  # fmt: skip

_SHOWN = {"latents": DROP, "seed": DROP, "photos": ("@photo",), "anyway": True}
_CELLS = {
    "tuned": DROP, "latents": DROP, "columns": DROP, "rows": DROP, "x": "seed=0",
    "fixed": ("model=faces", "steps=2"),
}  # fmt: skip
GRID = Stage(
    "grid",
    GridConfig,
    {"tuned": ("sketch",), "latents": "faces", "columns": "original,edit", "rows": 1, "cell": 16},
    ("panel.png",),
    {
        "photos": Case({"photos": ("@photo2",)}, _SHOWN),
        "x": Case({"x": "seed=0,1"}, _CELLS),
        "y": Case({"y": "sampler=ddim,ddpm"}, _CELLS),
        "fixed": Case({"fixed": ("model=other", "steps=2")}, _CELLS),
        "tuned": ("smiling",),
        "columns": "original,latent",
        "rows": 2,
        "strengths": (0.5,),
        "steps": (3,),
        "latents": "more",
        "r": 8,
        "mix": Case({"mix": "noise"}, {"tuned": ("sketch+smiling",)}),
        "locality": 0.3,
        "direct": False,
        "crop": Case({"crop": "face"}, _SHOWN),
        "anyway": Case({"anyway": False}, _SHOWN, refused="only faces that dclip draws"),
        "captions": False,
        "title": "A title",
        "transpose": True,
        "cell": 32,
    },
)

_FOLDER = {"source": "folder", "count": DROP, "root": "@album"}
_PETS = {**_FOLDER, "source": "hf", "root": "org/pets"}
PREPARE = Stage(
    "prepare",
    PrepareConfig,
    {"source": "faces", "count": 4, "size": 16},
    ("images.zarr/", "samples.csv"),
    {
        "source": Case({"source": "celeba"}, {**_FOLDER, "root": "@celeba", "crop": "center"}),
        "root": Case({"root": "@photos"}, _FOLDER),
        "size": 24,
        "crop": Case({"crop": "face"}, _FOLDER),
        "split": "50/50",
        "limit": Case({"limit": 1}, _FOLDER),
        "count": 5,
        "style": "all",
        "strict": Case(
            {"strict": True}, {**_FOLDER, "root": "@spoilt"}, refused="could not be read"
        ),
        "download": Case(
            {"download": True},
            {**_FOLDER, "source": "celeba", "root": "@nothing"},
            refused="no CelebA pictures",
        ),
        "domain": Case({"domain": "dogs"}, _FOLDER, looks_at="domain"),
        "frame": Case({"frame": "ffhq"}, _FOLDER, looks_at="domain"),
        "subset": Case({"subset": "other"}, _PETS),
        "part": Case({"part": "test"}, _PETS),
        "column": Case({"column": "second"}, _PETS),
        "caption": Case({"caption": "text"}, _PETS),
        # Without the detector, or where the album shows no face.
        "align": Case({"align": True}, _FOLDER, refused="face"),
        "max_faces": Case({"max_faces": 1, "align": True}, _FOLDER, refused="face"),
    },
)

JUDGE_TRAIN = Stage(
    "judge_train",
    JudgeTrainConfig,
    {"data": ("pairs",), "images": 12, "batch": 4, "lr": 1e-2, "other": 0.5},
    ("judge.safetensors",),
    {
        "data": ("pairs", "plain"),
        "images": 8,
        "batch": 6,
        "lr": 1e-3,
        "weight_decay": 2.0,
        "other": 0.9,
        "max_grad_norm": 0.01,
    },
)

SLIDER = Stage(
    "slider",
    SliderConfig,
    {
        "prompt": "a person with glasses", "cfg": 90.0, "latents": "read", "updates": 2, "batch": 2,
        "lr": 5e-2, "rank": 2,
    },
    ("adapter.safetensors", "panel.png"),
    {
        "prompt": "a sketch of an old face",
        "source": "a sketch of an old face",
        "cfg": -90.0,
        "latents": "read-too",
        "updates": 3,
        "batch": 3,
        "lr": 1e-3,
        "rank": 3,
        "locality": 0.3,
    },
)  # fmt: skip

AUTOENCODER_TRAIN = Stage(
    "autoencoder_train",
    AutoencoderTrainConfig,
    {"data": "plain", "images": 12, "batch": 4, "lr": 1e-2},
    ("autoencoder.safetensors",),
    {
        "data": "faces",
        "images": 8,
        "batch": 6,
        "lr": 1e-3,
        "channels": 32,
        "blocks": 2,
        "kl": 10.0,
        "max_grad_norm": 0.01,
    },
)

ENCODER_MAP = Stage(
    "encoder_map",
    EncoderMapConfig,
    {"source": "@clip", "data": "faces"},
    ("map.safetensors",),
    {
        "source": "@clip2",
        "target": "@clip2",
        "data": "pairs",
        "captions": 12,
        "before": 1,
    },
)

CLIP_TRAIN = Stage(
    "clip_train",
    ClipTrainConfig,
    {
        "data": "pairs",
        "init": "@clip",
        "images": 12,
        "batch": 4,
        "radius": 2.0,
        "clean": 0.0,
        "ramp": 0.0,
    },
    ("open_clip_model.safetensors",),
    {
        "data": "plain",
        "init": "@clip2",
        "model": Case({"model": "small-convnext"}, {"init": DROP, "data": "large", "images": 4}),
        "contrasts": "@contrasts",
        "images": 8,
        "batch": 6,
        "accumulate": 2,
        "lr": 1e-3,
        "weight_decay": 2.0,
        "radius": 0.0,
        "share": 0.1,
        "attack_steps": 2,
        "clean": 0.9,
        "ramp": 0.9,
        "mixture": 0.0,
        "hold_tokens": 1e4,
        "max_grad_norm": 0.01,
    },
)

_PLAN = "plan"  # the demo hands everything to other stages
DEMO = Stage(
    "demo",
    DemoConfig,
    {"target": "sketch", "faces": 4, "model": "faces", "clip": "@clip"},
    (),
    {
        "target": Case({"target": "smiling"}, looks_at=_PLAN),
        "faces": Case({"faces": 5}, looks_at=_PLAN),
        "model": Case({"model": "embedded"}, looks_at=_PLAN),
        "clip": Case({"clip": "@clip2"}, looks_at=_PLAN),
        "seed": Case({"seed": 1}, looks_at=_PLAN),
    },
)

EXPLAIN = Stage(
    "explain",
    ExplainConfig,
    {"points": 60, "clip_steps": 3, "denoiser_steps": 3},
    ("numbers.json",),
    {"points": 90, "clip_steps": 6, "denoiser_steps": 6},
)

INSPECT = Stage(
    "inspect",
    InspectConfig,
    {"model": "faces", "steps": (2,), "photo": "@photo"},
    ("numbers.json", "panel.png"),
    {
        "photo": {"photo": "@photo2"},
        # Pixels and T are the same, so that its figures are.
        "model": Case({"model": "other"}, looks_at="plan"),
        "steps": (3,),
        "t": (5,),
        "train_timesteps": 12,
    },
)

ELSEWHERE = {ImportConfig: "tests/test_pretrained.py has a file for each of its settings"}

STAGES = {
    stage.module: stage
    for stage in (
        PREPARE, TRAIN, SAMPLE, INVERT, CLIP_TRAIN, JUDGE_TRAIN, AUTOENCODER_TRAIN, ENCODER_MAP,
        FINETUNE, SLIDER, EDIT, GRID, EVAL, DEMO, EXPLAIN, INSPECT,
    )
}  # fmt: skip
