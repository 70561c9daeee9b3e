"""Does a text-to-image model draw what it is asked for, in combinations that it never saw?

    python benchmarks/text_to_image.py                    # the newest model that reads text
    python benchmarks/text_to_image.py --scales 1 3 --count 8
    python benchmarks/text_to_image.py --write            # into docs/text-to-image.md

The prompts ask for the combinations that `dclip train --without` left out, which the model's
manifest names, and for others that it was shown. The embedded judge, which guides nothing, reads
each asked attribute and the style from the pictures. Beside it the Fréchet distance, by the judge's
features, to the renderer's pictures of the same combinations: equally many, of a seed that nothing
was trained on. The row "drawn" judges the renderer's own pictures: no model can be expected to do
better, and its distance is that of two such sets.
"""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from dclip.configs.sample import SampleConfig
from dclip.context import Context
from dclip.data import faces
from dclip.data.images import to_float
from dclip.evaluation.frechet import frechet_distance
from dclip.evaluation.judge import Judge, load_judge
from dclip.figures.panel import layout
from dclip.stages import sample
from dclip.stages.models import model_of_text
from dclip.store import Artifact, Store

ROOT = Path(__file__).resolve().parents[1]
PAGE, RESULTS = ROOT / "docs" / "text-to-image.md", ROOT / "docs" / "lab" / "text-to-image.json"
PANEL = ROOT / "docs" / "text-to-image.jpg"
BEGIN, END = "<!-- text-to-image: begin -->", "<!-- text-to-image: end -->"

SHOWN = (
    "style=photo,smiling=1,glasses=1",
    "style=sketch,bald=1,smiling=1",
    "style=oil,beard=1,old=1",
    "style=cartoon,glasses=1,blond_hair=1",
    "style=watercolor,smiling=1,black_hair=1",
    "style=photo,red_hair=1,lipstick=1",
)
"""Combinations of attributes that were not left out of the training."""

SEED = 91_000  # of the renderer's pictures
COLUMNS = 8
PANEL_BYTES = 90_000

Ask = tuple[tuple[str, str], ...]
Pictures = NDArray[np.uint8]

MEDIUM = {
    "photo": "a photo", "sketch": "a pencil sketch", "cartoon": "a cartoon",
    "oil": "an oil painting", "watercolor": "a watercolor painting",
    "bw": "a black and white photo", "sepia": "a sepia photo", "neon": "a neon picture",
}  # fmt: skip
BEFORE = {"smiling": "smiling", "serious": "serious", "bald": "bald", "old": "old",
          "young": "young"}  # fmt: skip
AFTER = {
    "glasses": "glasses", "beard": "a beard", "mustache": "a mustache", "lipstick": "lipstick",
    "pale_skin": "pale skin", "dark_skin": "dark skin", "long_hair": "long hair",
    "short_hair": "short hair", "curly_hair": "curly hair", "black_hair": "black hair",
    "brown_hair": "brown hair", "blond_hair": "blond hair", "red_hair": "red hair",
    "gray_hair": "gray hair",
}  # fmt: skip


def asked(text: str) -> Ask:
    """The conditions of ``NAME=VALUE,NAME=VALUE``."""
    pairs = [part.partition("=") for part in text.split(",")]
    return tuple((name.strip(), value.strip()) for name, _, value in pairs)


def prompt(ask: Ask) -> str:
    """The prompt that asks for these conditions."""
    names = [name for name, value in ask if name != "style" and value == "1"]
    if unknown := [n for n in names if n not in BEFORE and n not in AFTER]:
        raise SystemExit(f"no words are known for {', '.join(unknown)}")
    before = " ".join([*(BEFORE[n] for n in names if n in BEFORE), "person"])
    after = " and ".join(AFTER[n] for n in names if n in AFTER)
    medium = MEDIUM[dict(ask).get("style", "photo")]
    article = "an" if before[0] in "aeiou" else "a"
    return f"{medium} of {article} {before}" + (f" with {after}" if after else "")


def drawn(ask: Ask, count: int, size: int, seed: int) -> Pictures:
    """The first ``count`` of the renderer's faces that meet the conditions, (count, H, W, 3)."""
    style = dict(ask).get("style", "photo")
    found: list[Pictures] = []
    index = 0
    while len(found) < count:
        params = faces.sample(seed, index)
        known = faces.facts(params, style)
        if all(known[name] == (value == "1") for name, value in ask if name != "style"):
            found.append(faces.draw(params, style=style, size=size))
        index += 1
    return np.stack(found)


def sampled(
    store: Store, model: Artifact, prompts: Sequence[str], scale: float, options: Any
) -> Pictures:
    """Pictures (prompts, count, H, W, 3) at a guidance scale; what is there is not drawn again."""
    config = SampleConfig(
        model=model.ref, name="text-to-image", prompt=tuple(prompts), cfg=scale,
        rescale=options.rescale, count=options.count, steps=options.steps,
        sampler=options.sampler, seed=options.seed, batch=options.count,
    )  # fmt: skip
    return drawn_by(config, store)


def drawn_by(config: SampleConfig, store: Store) -> Pictures:
    """The pictures (prompts, count, H, W, 3) of a config; what is there is not drawn again."""
    made = sample.run(config, store, Context())
    files = sorted((made.path / "images").glob("*.png"))
    pictures = np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])
    return pictures.reshape(len(config.prompt), config.count, *pictures.shape[1:])


class Reading:
    """What the judge says of pictures that were asked for."""

    def __init__(self, judge: Judge, asks: Sequence[Ask], pictures: Pictures) -> None:
        flat = pictures.reshape(-1, *pictures.shape[2:])
        pixels = to_float(torch.from_numpy(flat.transpose(0, 3, 1, 2).copy()))
        self.features = judge.features(pixels)
        verdict = judge(pixels)
        styles = np.array(verdict.named_styles).reshape(pictures.shape[:2])
        self.each: dict[str, list[NDArray[np.bool_]]] = {}
        together = np.ones(pictures.shape[:2], bool)
        for row, ask in enumerate(asks):
            for name, value in ask:
                if name == "style":
                    right = styles[row] == value
                else:
                    said = verdict.attribute(name).reshape(pictures.shape[:2])[row]
                    right = (said > 0.5) == (value == "1")
                self.each.setdefault(value if name == "style" else name, []).append(right)
                together[row] &= right
        self.together = together

    def row(self) -> dict[str, Any]:
        """Shares: of all that was asked, of each, and of pictures with everything right."""
        each = {name: np.concatenate(values) for name, values in self.each.items()}
        return {
            "all right": float(self.together.mean()),
            "asked": float(np.concatenate(list(each.values())).mean()),
            "by prompt": [float(row.mean()) for row in self.together],
            "by attribute": {name: float(right.mean()) for name, right in each.items()},
        }


def measure(store: Store, model: Artifact, options: Any) -> tuple[dict[str, Any], Pictures]:
    """Every number, and the pictures of the held-out prompts at the best scale."""
    without = [asked(text) for text in model.config.get("without", ())]
    if not without:
        raise SystemExit(f"{model.ref} was trained without --without: nothing is held out")
    judge = load_judge(ROOT / "dclip" / "assets" / "judge")
    groups = {"held out": without, "shown": [asked(text) for text in SHOWN]}
    results: dict[str, Any] = {
        "model": model.id, "count": options.count, "steps": options.steps,
        "sampler": options.sampler, "seed": options.seed, "rescale": options.rescale,
        "prompts": {name: [prompt(ask) for ask in asks] for name, asks in groups.items()},
        "rows": [],
    }  # fmt: skip
    truth = {}
    ceiling: dict[str, Any] = {"scale": "drawn"}
    for name, asks in groups.items():
        sets = [
            Reading(judge, asks, np.stack([drawn(ask, options.count, 64, seed) for ask in asks]))
            for seed in (SEED, SEED + 1)
        ]
        truth[name] = sets[0].features
        distance = frechet_distance(sets[0].features, sets[1].features)
        ceiling[name] = sets[0].row() | {"distance": distance}
    pictures = {}
    for scale in options.scales:
        row: dict[str, Any] = {"scale": scale}
        for name, asks in groups.items():
            made = sampled(store, model, results["prompts"][name], scale, options)
            read = Reading(judge, asks, made)
            row[name] = read.row() | {"distance": frechet_distance(read.features, truth[name])}
            if name == "held out":
                pictures[scale] = made
        results["rows"].append(row)
        print(line(row), flush=True)
    results["rows"].append(ceiling)
    print(line(ceiling))
    kept = [(row["held out"], row["scale"]) for row in results["rows"][:-1]]
    _, best = max(kept, key=lambda pair: (pair[0]["all right"], pair[0]["asked"]))
    results["best"] = best
    return results, pictures[best]


def line(row: Mapping[str, Any]) -> str:
    """A row of the table by guidance scale."""
    scale = row["scale"]
    cells = [scale if isinstance(scale, str) else f"{scale:g}"]
    for name in ("held out", "shown"):
        part = row[name]
        cells += [f"{part['asked']:.0%}", f"{part['all right']:.0%}", f"{part['distance']:.1f}"]
    return "| " + " | ".join(cells) + " |"


def tables(results: Mapping[str, Any]) -> str:
    """What stands between the markers of the page."""
    rows = results["rows"]
    out = [
        "| `--cfg` | held out: each right | all right | distance | shown: each right | all right |"
        " distance |",
        "|--:|--:|--:|--:|--:|--:|--:|",
        *(line(row) for row in rows),
        "",
    ]
    best = next(row for row in rows if row["scale"] == results["best"])["held out"]
    limit = rows[-1]["held out"]
    out += [f"| held-out prompt | all right at {results['best']:g} | drawn |", "|---|--:|--:|"]
    prompts = zip(
        results["prompts"]["held out"], best["by prompt"], limit["by prompt"], strict=True
    )
    out += [f"| {text} | {share:.0%} | {top:.0%} |" for text, share, top in prompts]
    out += ["", f"| asked | right at {results['best']:g} | drawn |", "|---|--:|--:|"]
    for name, share in sorted(best["by attribute"].items()):
        out.append(
            f"| {name.replace('_', ' ')} | {share:.0%} | {limit['by attribute'][name]:.0%} |"
        )
    said = (
        f"{results['count']} pictures a prompt, {results['sampler']}, {results['steps']} steps,"
        f" seed {results['seed']}."
    )
    return "\n".join([*out, "", said])


def write(results: Mapping[str, Any], pictures: Pictures) -> None:
    """The numbers, the tables and the panel into docs/."""
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    page = PAGE.read_text()
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n{tables(results)}\n{END}{after}")
    panel = layout(
        [list(row[:COLUMNS]) for row in pictures],
        labels=results["prompts"]["held out"],
        title=f"never trained on together; cfg {results['best']:g}, the first of seed"
        f" {results['seed']}",
        cell=96,
    ).draw()
    for quality in range(92, 30, -4):
        encoded = io.BytesIO()
        panel.save(encoded, "JPEG", quality=quality)
        if encoded.tell() <= PANEL_BYTES:
            break
    PANEL.write_bytes(encoded.getvalue())


def main() -> None:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="as `dclip sample --model` takes it")
    parser.add_argument("--store", type=Path, default=Path("artifacts"))
    parser.add_argument("--scales", type=float, nargs="+", default=[1, 2, 3, 5])
    parser.add_argument("--rescale", type=float, default=0.0)
    parser.add_argument("--count", type=int, default=8, help="pictures a prompt")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--sampler", default="ddim")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true", help="write docs/text-to-image.*")
    options = parser.parse_args()
    store = Store(options.store)
    model = model_of_text(options.model, store, Context().report)
    results, pictures = measure(store, model, options)
    print(tables(results))
    if options.write:
        write(results, pictures)


if __name__ == "__main__":
    main()
