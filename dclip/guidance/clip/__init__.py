"""The door to open_clip: any of its models, frozen, as a differentiable guide.

Nothing else in dclip imports open_clip. ``guide.py`` is what a loaded CLIP can do, ``load.py``
finds and loads one, ``config.py``, ``tokenizer.py`` and ``weights.py`` check what strangers' files
say before a library sees it, ``words.py`` warns of what a small CLIP never saw, and ``fresh.py``
makes CLIPs to train.
"""

from dclip.fingerprints import fingerprint
from dclip.guidance.clip.fresh import LEAST_SIZE, MODELS, check_model, new_model, usual_rate
from dclip.guidance.clip.guide import Guide, Move
from dclip.guidance.clip.load import DEFAULT_PRETRAINED, load_guide, save_guide, write_config

__all__ = [
    "DEFAULT_PRETRAINED",
    "LEAST_SIZE",
    "MODELS",
    "Guide",
    "Move",
    "check_model",
    "fingerprint",
    "load_guide",
    "new_model",
    "save_guide",
    "usual_rate",
    "write_config",
]
