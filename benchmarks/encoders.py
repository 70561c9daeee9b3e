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
from pathlib import Path

import torch
from text_to_image import ROOT
from torch import Tensor

from dclip.data import faces
from dclip.data.faces.captions import caption

PAGE, RESULTS = ROOT / "docs" / "encoders.md", ROOT / "docs" / "lab" / "encoders.json"
PANEL = ROOT / "docs" / "encoders.jpg"
BEGIN, END = "<!-- encoders: begin -->", "<!-- encoders: end -->"
PANEL_BYTES = 90_000

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


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--make-bert", type=Path)
    o = parser.parse_args()
    if o.make_bert:
        make_bert(o.make_bert)


if __name__ == "__main__":
    main()
