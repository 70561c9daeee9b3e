"""A text encoder in the place of a model's own: dropped in, mapped, and from the start.

    python benchmarks/encoders.py --make-bert models/bert        # the stand-in, a minute or two
    dclip encoder map --from models/bert --data styles --name bert-as-clip
    dclip train ... --condition text --encoder models/bert --name bert-text
    python benchmarks/encoders.py --bert models/bert --map bert-as-clip --own bert-text --write

No pretrained BERT can be fetched everywhere, so the stand-in is a BERT of 48 numbers a state, as
many as the embedded model reads, trained here by masked words on captions of drawn faces. The
prompts, the judge and the shares are those of ``benchmarks/text_to_image.py``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from text_to_image import COLUMNS, ROOT, SHOWN, Reading, asked, drawn_by, prompt
from torch import Tensor

from dclip.configs.sample import SampleConfig
from dclip.context import Context
from dclip.data import faces
from dclip.data.faces.captions import caption
from dclip.evaluation.judge import load_judge
from dclip.figures.panel import layout
from dclip.stages.models import model_of_text
from dclip.store import Store

PAGE, RESULTS = ROOT / "docs" / "encoders.md", ROOT / "docs" / "lab" / "encoders.json"
PANEL = ROOT / "docs" / "encoders.jpg"
BEGIN, END = "<!-- encoders: begin -->", "<!-- encoders: end -->"

CAPTIONS, SEED = 12_000, 92_000  # of the stand-in's training
WIDTH, LAYERS, HEADS = 48, 3, 4
MASKED, KEPT, RANDOM = 0.15, 0.1, 0.1  # Devlin et al. 2019 (1810.04805), section 3.1


def make_bert(folder: Path, updates: int = 1500, batch: int = 128) -> None:
    """A BERT trained by masked words on drawn faces' captions, as transformers saves it."""
    from transformers import BertConfig, BertForMaskedLM, BertTokenizerFast

    styles = sorted(faces.STYLES)
    texts = sorted(
        {
            caption(faces.sample(SEED, i), styles[i % len(styles)], seed=SEED, index=i)
            for i in range(CAPTIONS)
        }
    )
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = sorted({word for text in texts for word in text.lower().replace(",", " , ").split()})
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join([*special, *words]) + "\n")
    tokenizer = BertTokenizerFast(str(folder / "vocab.txt"))
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    model = BertForMaskedLM(
        BertConfig(
            vocab_size=len(special) + len(words), hidden_size=WIDTH, num_hidden_layers=LAYERS,
            num_attention_heads=HEADS, intermediate_size=4 * WIDTH, max_position_embeddings=77,
        )
    )  # fmt: skip
    ids: Tensor = tokenizer(texts, padding=True, return_tensors="pt")["input_ids"]
    known = ids >= len(special)
    rate = 1e-3
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    for step in range(updates):
        rows = torch.randint(len(texts), (batch,))
        true, masked = ids[rows], known[rows] & (torch.rand(batch, ids.shape[1]) < MASKED)
        coin = torch.rand(true.shape)
        other = torch.randint(len(special), len(special) + len(words), true.shape)
        shown = torch.where(masked & (coin >= KEPT), tokenizer.mask_token_id, true)
        shown = torch.where(masked & (coin >= 1 - RANDOM), other, shown)
        loss = model(
            input_ids=shown,
            attention_mask=(true != tokenizer.pad_token_id).long(),
            labels=true.masked_fill(~masked, -100),
        ).loss
        optimizer.zero_grad()
        loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1, (updates - step) / (updates / 2))
        optimizer.step()
        if step % 100 == 0 or step == updates - 1:
            print(f"{step}: loss of masked words {float(loss.detach()):.3f}", flush=True)
    model.bert.save_pretrained(folder)
    print(f"{folder}: {len(texts)} different captions, {len(words)} words")


def write(
    rows: Sequence[dict[str, Any]], shown: Sequence[Any], asks: Sequence[Any], o: Any
) -> None:
    """The table into docs/encoders.md, the numbers into docs/lab/, the panel."""
    RESULTS.write_text(json.dumps(rows, indent=1) + "\n")
    out = ["| the encoder | each right | all right |", "|---|--:|--:|"]
    out += [f"| {row['way']} | {row['asked']:.0%} | {row['all right']:.0%} |" for row in rows]
    said = f"{len(asks)} prompts, {o.count} pictures each, cfg {o.cfg:g}, {o.steps} steps."
    before, _, rest = PAGE.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    table = "\n".join([*out, "", said])
    PAGE.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}")
    panel = layout(
        [[row[k, 0] for k in range(COLUMNS)] for row in shown],
        labels=[row["way"] for row in rows],
        columns=[prompt(ask) for ask in asks[:COLUMNS]],
        cell=96,
    ).draw()
    panel.save(PANEL, "JPEG", quality=88)


def main() -> None:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--make-bert", type=Path, help="train the stand-in, and write it here")
    parser.add_argument("--store", type=Path, default=Path("artifacts"))
    parser.add_argument("--model", default="embedded-text")
    parser.add_argument("--bert", help="dropped in as it is")
    parser.add_argument("--map", help="of `dclip encoder map`")
    parser.add_argument("--own", help="a model that was trained with the BERT")
    parser.add_argument("--cfg", type=float, default=3.0)
    parser.add_argument("--count", type=int, default=8, help="pictures a prompt")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true", help="write docs/encoders.*")
    options = parser.parse_args()
    if options.make_bert:
        make_bert(options.make_bert)
        return
    store = Store(options.store)
    model = model_of_text(options.model, store, Context().report)
    asks = [asked(text) for text in (*model.config["without"], *SHOWN)]
    ways = [("the model's own CLIP", options.model, None)]
    ways += [("BERT, dropped in", options.model, options.bert)] if options.bert else []
    ways += [("BERT, mapped", options.model, options.map)] if options.map else []
    ways += [("BERT, from the start", options.own, None)] if options.own else []
    judge = load_judge(ROOT / "dclip" / "assets" / "judge")
    rows, shown = [], []
    for way, by, encoder in ways:
        config = SampleConfig(
            model=by, encoder=encoder, name="encoders", prompt=tuple(prompt(ask) for ask in asks),
            cfg=options.cfg, count=options.count, steps=options.steps, seed=options.seed,
            batch=options.count,
        )  # fmt: skip
        pictures = drawn_by(config, store)
        rows.append({"way": way, **Reading(judge, asks, pictures).row()})
        shown.append(pictures)
        print(way, {k: rows[-1][k] for k in ("asked", "all right")}, flush=True)
    if options.write:
        write(rows, shown, asks, options)


if __name__ == "__main__":
    main()
