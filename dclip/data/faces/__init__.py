"""The embedded data set: procedural portraits with known attributes, styles and edits."""

from dclip.data.faces.captions import WORDS, caption, facts, words
from dclip.data.faces.params import FaceParams, attributes, sample
from dclip.data.faces.prompts import PROMPT_PAIRS, STYLE_PROMPTS, pair_label
from dclip.data.faces.styles import STYLES, draw
from dclip.data.faces.targets import (
    TARGETS,
    Target,
    already,
    applicable,
    apply_target,
    edit_region,
    truth,
)

__all__ = [
    "PROMPT_PAIRS",
    "STYLES",
    "STYLE_PROMPTS",
    "TARGETS",
    "WORDS",
    "FaceParams",
    "Target",
    "already",
    "applicable",
    "apply_target",
    "attributes",
    "caption",
    "draw",
    "edit_region",
    "facts",
    "pair_label",
    "sample",
    "truth",
    "words",
]
