"""The squares of photos through an editor, some at a time, with every strength's result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dclip.data.images import to_pixels
from dclip.diffusion import optimised
from dclip.editing.editor import Editor, Step
from dclip.editing.plan import Plan
from dclip.metrics import psnr

BATCH = 16  # squares a network call: fixed, as rounding differs with it


@dataclass(frozen=True)
class Edited:
    """Squares and, for each strength, their edits, all (B,3,S,S) in [-1, 1] on the CPU.

    Attributes:
        reconstruction: what the base decodes plainly, where that is asked for.
        psnr: of it, in dB, one a square.
        brought: what rounds of noise and decode made of the originals, and the edits start from.
    """

    original: Tensor
    edits: tuple[Tensor, ...]
    reconstruction: Tensor | None = None
    psnr: tuple[float, ...] = ()
    brought: Tensor | None = None

    def within(self, mask: Tensor | None) -> Edited:
        """The edits where a mask (F, 1, S, S) in 0..1 lets them; None is everywhere."""
        if mask is None:
            return self
        edits = tuple(self.original + mask * (edit - self.original) for edit in self.edits)
        return replace(self, edits=edits)

    def __getitem__(self, part: slice) -> Edited:
        plain = None if self.reconstruction is None else self.reconstruction[part]
        edits = tuple(edit[part] for edit in self.edits)
        brought = None if self.brought is None else self.brought[part]
        return Edited(self.original[part], edits, plain, self.psnr[part], brought)

    def at(self, order: Tensor) -> Edited:
        """The squares of these numbers (N,), in this order."""
        plain = None if self.reconstruction is None else self.reconstruction[order]
        edits = tuple(edit[order] for edit in self.edits)
        values = tuple(self.psnr[i] for i in order.tolist()) if self.psnr else ()
        return Edited(self.original[order], edits, plain, values)

    def columns(self, captions: Sequence[str]) -> list[tuple[str, NDArray[np.uint8]]]:
        """What a panel shows, each with its caption; ``captions`` are those of the edits."""
        between = [("made the base's", self.brought), ("reconstruction", self.reconstruction)]
        shown = [("original", self.original)]
        shown += [(caption, x) for caption, x in between if x is not None]
        shown += zip(captions, self.edits, strict=True)
        return [(caption, to_pixels(x)) for caption, x in shown]


def joined(parts: Sequence[Edited]) -> Edited:
    """The squares of several, one after the other."""
    plain = [part.reconstruction for part in parts if part.reconstruction is not None]
    brought = [part.brought for part in parts if part.brought is not None]
    return Edited(
        torch.cat([part.original for part in parts]),
        tuple(torch.cat(edits) for edits in zip(*(part.edits for part in parts), strict=True)),
        torch.cat(plain) if plain else None,
        tuple(value for part in parts for value in part.psnr),
        torch.cat(brought) if brought else None,
    )


def steps_of(
    plan: Plan, strengths: Sequence[float], *, reconstructs: bool, optimises: bool = False
) -> int:
    """Steps that a square takes: its inversion, its optimising, and a decode for each strength."""
    decodes = len(strengths) + reconstructs + optimised.UPDATES * optimises
    return plan.start_steps + plan.steps * decodes


def edit_squares(
    editors: Sequence[Editor],
    photos: Sequence[Tensor],
    whose: Sequence[Sequence[int]],
    strengths: Sequence[float],
    *,
    direct: bool,
    reconstructs: bool,
    steps: int,
    advance: Callable[[int], None],
) -> list[Edited]:
    """Edit the squares of some photos, :data:`BATCH` at a time; one result a photo.

    Args:
        editors: one for all squares, or several.
        photos: each (F,3,S,S) in [-1, 1], one or more squares.
        whose: of each photo's squares, the number of their editor.
        strengths, direct: see :meth:`Editor.decode`.
        reconstructs: also decode with the base alone, plainly.
        steps: that ``advance`` is to be told of in all.
        advance: told of steps that are done.
    """
    squares = torch.cat(list(photos))
    owners = torch.tensor([number for numbers in whose for number in numbers])
    work = sum(
        int((owners == k).sum())
        * steps_of(editor.plan, strengths, reconstructs=reconstructs, optimises=editor.optimises)
        for k, editor in enumerate(editors)
    )
    taken = told = 0

    def on_step(count: int) -> None:
        nonlocal taken, told
        taken += count
        due = steps * taken // work
        advance(due - told)
        told = due

    def edit(editor: Editor, part: Tensor) -> Edited:
        step: Step = partial(on_step, len(part))
        x0 = part.to(editor.device)
        start = editor.invert(x0, step)
        edits = [editor.decode(start, s, direct=direct, on_step=step).cpu() for s in strengths]
        brought = start.photos.cpu() if editor.plan.rounds and editor.edits else None
        if not reconstructs:
            return Edited(part, tuple(edits), brought=brought)
        plain = editor.decode(start, 0.0, direct=False, on_step=step)
        miss = tuple(psnr(plain, start.photos).tolist())
        return Edited(part, tuple(edits), plain.cpu(), miss, brought)

    places = [(owners == k).nonzero().flatten() for k in range(len(editors))]
    edited = joined([
        edit(editor, part)
        for editor, place in zip(editors, places, strict=True)
        for part in torch.split(squares[place], BATCH)
        if len(part)
    ]).at(torch.cat(places).argsort())  # fmt: skip
    results, at = [], 0
    for each in photos:
        results.append(edited[at : at + len(each)])
        at += len(each)
    return results
