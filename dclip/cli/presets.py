"""``dclip presets``: the edits that have names."""

from __future__ import annotations

from typing import Annotated

from dclip.cli.common import Run, command
from dclip.cli.options import option


@command(
    "dclip presets",
    "dclip presets --domain dog",
    "dclip presets --json",
    'dclip finetune --preset "$(dclip presets -q | head -1)"',
)
def presets(
    run: Run,
    domain: Annotated[
        str | None,
        option("--domain", metavar="NAME", help="Only edits of these pictures, e.g. dogs."),
    ] = None,
) -> None:
    """List the presets: names for pairs of prompts, with the settings that suit them.

    r is a share of the model's timesteps. A base that was imported takes the published settings.
    """
    from dclip.domains import find_domain
    from dclip.guidance.prompts import PRESETS, presets_of, split_sources
    from dclip.recipes import BY_KIND

    rows, whole = [], run.out.mode == "json"
    for name, pair in (PRESETS if domain is None else presets_of(find_domain(domain))).items():
        first, *others = split_sources(pair.source)
        own, published = pair.suited(), pair.suited(imported=True)
        rows.append(
            {
                "name": name,
                "domains": list(pair.domains) if whole else pair.domains[-1],
                "target": pair.target,
                "source": pair.source if whole or not others else f"{first}, or {len(others)} more",
                "kind": pair.kind,
                "recipe": own.recipe or BY_KIND[pair.kind],
                "r": own.r,
                "from": own.source,
                "published": {
                    "recipe": published.recipe or BY_KIND[pair.kind],
                    "r": published.r,
                    "from": published.source,
                }
                if whole
                else f"{published.recipe} {published.r:g}"
                if pair.published
                else "",
            }
        )
    columns = {"name": "preset", "domains": "of", "target": "to", "kind": "kind", "r": "r"}
    run.out.table(
        rows, columns | {"recipe": "recipe", "published": "imported base"}, identity="name"
    )
