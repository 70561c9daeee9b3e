"""What a face is: its parameters, how they are sampled, and the attributes they imply."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Literal, get_args

import numpy as np

HairShape = Literal["buzz", "short", "quiff", "bob", "long", "wavy", "afro", "bun"]
HairColour = Literal["black", "brown", "blond", "red", "gray"]
EyeColour = Literal["brown", "hazel", "green", "blue", "gray"]
GlassesShape = Literal["round", "square"]
Collar = Literal["crew", "vneck", "shirt", "turtleneck"]
Backdrop = Literal["plain", "gradient", "blobs"]

LONG_SHAPES: frozenset[str] = frozenset({"long", "wavy"})
SHORT_SHAPES: frozenset[str] = frozenset({"buzz", "short", "quiff"})
CURLY_SHAPES: frozenset[str] = frozenset({"afro", "wavy"})

SMILING_ABOVE = 0.35
OLD_ABOVE = 0.65
YOUNG_BELOW = 0.35
PALE_BELOW = 0.28
DARK_ABOVE = 0.62

RANGES: Mapping[str, tuple[float, float]] = {
    "skin": (0.0, 1.0),
    "undertone": (-1.0, 1.0),
    "age": (0.0, 1.0),
    "face_width": (0.9, 1.1),
    "jaw": (0.0, 1.0),
    "chin": (0.92, 1.06),
    "eye_tone": (-1.0, 1.0),
    "eye_size": (0.85, 1.2),
    "eye_spacing": (0.92, 1.1),
    "eye_tilt": (-1.0, 1.0),
    "brow_thickness": (0.6, 1.6),
    "brow_angle": (-1.0, 1.0),
    "brow_arch": (0.3, 1.0),
    "nose_width": (0.8, 1.25),
    "nose_length": (0.88, 1.12),
    "mouth_width": (0.88, 1.15),
    "lip_fullness": (0.7, 1.3),
    "smile": (-1.0, 1.0),
    "lipstick_tone": (0.0, 1.0),
    "glasses_size": (0.92, 1.1),
    "glasses_tone": (0.0, 1.0),
    "beard_length": (0.0, 1.0),
    "mustache_width": (0.85, 1.15),
    "hair_light": (-1.0, 1.0),
    "hair_warm": (-1.0, 1.0),
    "hair_volume": (0.0, 1.0),
    "hairline": (0.0, 1.0),
    "part": (-1.0, 1.0),
    "yaw": (-0.45, 0.45),
    "pitch": (-0.15, 0.15),
    "roll": (-0.2, 0.2),
    "scale": (0.92, 1.08),
    "shift_x": (-0.06, 0.06),
    "shift_y": (-0.05, 0.05),
    "light_x": (-1.0, 1.0),
    "light_y": (-1.0, 0.3),
    "light_strength": (0.4, 1.0),
    "warmth": (-1.0, 1.0),
    "backdrop_hue": (0.0, 1.0),
    "backdrop_hue2": (0.0, 1.0),
    "backdrop_saturation": (0.0, 0.55),
    "backdrop_value": (0.25, 0.95),
    "backdrop_angle": (0.0, 2 * math.pi),
    "cloth_hue": (0.0, 1.0),
    "cloth_saturation": (0.0, 0.75),
    "cloth_value": (0.15, 0.9),
}
"""Closed range of every float of `FaceParams`; angles are radians, lengths are relative."""

_CHOICES: Mapping[str, tuple[str, ...]] = {
    "hair_shape": get_args(HairShape),
    "hair_colour": get_args(HairColour),
    "eye_colour": get_args(EyeColour),
    "glasses_shape": get_args(GlassesShape),
    "collar": get_args(Collar),
    "backdrop": get_args(Backdrop),
}
_FLAGS = ("lipstick", "glasses", "beard", "mustache", "bald", "fringe")


@dataclass(frozen=True, slots=True)
class FaceParams:
    """All parameters of one face: the same ones always draw the same picture.

    Floats lie in `RANGES`. A part that is switched off (`glasses=False`, `bald=True`, ...)
    keeps its shape fields, so that switching it on is the same edit every time.
    `noise_key` (unsigned 63-bit) keys grain and texture.

    Raises ValueError for a float outside its range or an unknown choice.
    """

    noise_key: int
    skin: float
    undertone: float
    age: float
    face_width: float
    jaw: float
    chin: float
    eye_colour: EyeColour
    eye_tone: float
    eye_size: float
    eye_spacing: float
    eye_tilt: float
    brow_thickness: float
    brow_angle: float
    brow_arch: float
    nose_width: float
    nose_length: float
    mouth_width: float
    lip_fullness: float
    smile: float
    lipstick: bool
    lipstick_tone: float
    glasses: bool
    glasses_shape: GlassesShape
    glasses_size: float
    glasses_tone: float
    beard: bool
    beard_length: float
    mustache: bool
    mustache_width: float
    bald: bool
    hair_shape: HairShape
    hair_colour: HairColour
    hair_light: float
    hair_warm: float
    hair_volume: float
    hairline: float
    fringe: bool
    part: float
    yaw: float
    pitch: float
    roll: float
    scale: float
    shift_x: float
    shift_y: float
    light_x: float
    light_y: float
    light_strength: float
    warmth: float
    backdrop: Backdrop
    backdrop_hue: float
    backdrop_hue2: float
    backdrop_saturation: float
    backdrop_value: float
    backdrop_angle: float
    collar: Collar
    cloth_hue: float
    cloth_saturation: float
    cloth_value: float

    def __post_init__(self) -> None:
        for name, (low, high) in RANGES.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ValueError(f"{name} must be a number, not {value!r}")
            if not low <= value <= high:
                raise ValueError(f"{name}={value!r} is outside [{low:g}, {high:g}]")
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name}={getattr(self, name)!r} is none of {choices}")
        for name in _FLAGS:
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} must be true or false")
        if not isinstance(self.noise_key, int) or not 0 <= self.noise_key < 2**63:
            raise ValueError(f"noise_key={self.noise_key!r} is outside [0, 2**63)")

    def to_dict(self) -> dict[str, float | int | bool | str]:
        """Fields as JSON-ready values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> FaceParams:
        """Inverse of `to_dict`; raises ValueError naming any unknown or missing field."""
        known = {field.name for field in fields(cls)}
        unknown, missing = sorted(values.keys() - known), sorted(known - values.keys())
        if unknown or missing:
            raise ValueError(f"face fields: unknown {unknown}, missing {missing}")
        return cls(**values)  # type: ignore[arg-type]  # __post_init__ checks every value


def sample(seed: int, index: int) -> FaceParams:
    """Face `index` of data set `seed`, whatever was drawn before and in any process.

    Attributes are independent of each other, so that a direction learnt for one
    carries nothing of another. Both keys are unsigned 64-bit; raises ValueError otherwise.
    """
    if not (0 <= seed < 2**64 and 0 <= index < 2**64):
        raise ValueError(f"seed {seed} and index {index} must lie in [0, 2**64)")
    rng = np.random.Generator(np.random.Philox(key=np.array([seed, index], np.uint64)))
    values: dict[str, object] = {
        name: float(rng.uniform(low, high)) for name, (low, high) in RANGES.items()
    }
    for name, choices in _CHOICES.items():
        values[name] = choices[int(rng.integers(len(choices)))]

    def chance(probability: float) -> bool:
        return bool(rng.random() < probability)

    def bell(name: str, sigma: float) -> float:
        low, high = RANGES[name]
        return float(np.clip(rng.normal((low + high) / 2, sigma), low, high))

    # A gap around the threshold, so that every label can be seen.
    smiling = chance(0.45)
    values["smile"] = float(rng.uniform(0.45, 1.0) if smiling else rng.uniform(-1.0, 0.2))
    band = rng.random()
    low, high = (0.0, 0.3) if band < 0.4 else (0.44, 0.56) if band < 0.7 else (0.75, 1.0)
    values["age"] = float(rng.uniform(low, high))
    values["glasses"] = chance(0.35)
    values["beard"] = chance(0.30)
    values["mustache"] = chance(0.15)
    values["bald"] = chance(0.12)
    values["lipstick"] = chance(0.25)
    values["fringe"] = chance(0.3)
    values["yaw"] = bell("yaw", 0.18)
    values["pitch"] = bell("pitch", 0.06)
    values["roll"] = bell("roll", 0.06)
    values["scale"] = bell("scale", 0.035)
    values["shift_x"] = bell("shift_x", 0.02)
    values["shift_y"] = bell("shift_y", 0.015)
    values["noise_key"] = int(rng.integers(2**63))
    return FaceParams.from_dict(values)


def attributes(params: FaceParams) -> dict[str, bool]:
    """What is true of the face, by attribute name; hair attributes are false when bald."""
    hair = not params.bald
    smiling = params.smile > SMILING_ABOVE
    shape = params.hair_shape
    return {
        "smiling": smiling,
        "serious": not smiling,
        "glasses": params.glasses,
        "beard": params.beard,
        "mustache": params.mustache,
        "bald": params.bald,
        "old": params.age > OLD_ABOVE,
        "young": params.age < YOUNG_BELOW,
        "lipstick": params.lipstick,
        "pale_skin": params.skin < PALE_BELOW,
        "dark_skin": params.skin > DARK_ABOVE,
        "long_hair": hair and shape in LONG_SHAPES,
        "short_hair": hair and shape in SHORT_SHAPES,
        "curly_hair": hair and shape in CURLY_SHAPES,
        **{f"{name}_hair": hair and params.hair_colour == name for name in get_args(HairColour)},
    }
