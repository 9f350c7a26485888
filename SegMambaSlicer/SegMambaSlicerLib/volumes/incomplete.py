"""Cases that lack a volume: which a model does without, as its manifest says, and what that costs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..engine.interpreter import trainingFolder
from ..errors import InputError
from ..i18n import _

_MANIFEST = "model.json"


def knownIncomplete(model: str = "") -> dict:
    """What a model does without: {"without": {"t2w": {"WT": Dice, ...}, "t1n+t2w": ...}, "dice": the same with all
    volumes, "measured_on": a model, "cases": how many}; {} where it needs all, or cannot be read.

    model: folder, or name of one that comes with the extension; "": the first of these, which the engine takes.
    """
    try:
        shipped = trainingFolder().parent / "Resources" / "models"
        places = [Path(model), shipped / model] if model else sorted(shipped.iterdir())
        manifest = next(place / _MANIFEST for place in places if (place / _MANIFEST).is_file())
        known = json.loads(manifest.read_text(encoding="utf-8")).get("incomplete") or {}
        return known if isinstance(known, dict) and isinstance(known.get("without"), dict) else {}
    except (InputError, OSError, ValueError, RecursionError, AttributeError, StopIteration):
        return {}


def isAllowed(absent: Sequence[str], known: Mapping) -> bool:
    """Whether the model does without the modalities `absent`."""
    return any(set(names.split("+")) == set(absent) for names in known.get("without", {}))


def costSentence(absent: Sequence[str], known: Mapping, titles: Mapping[str, str]) -> str:
    """What it costs to go without `absent`, which is allowed. titles: modality -> what it is called."""
    scores = next(dice for names, dice in known["without"].items() if set(names.split("+")) == set(absent))
    text = _(
        "Without {modalities}: on {count} unseen cases the model then reached a Dice of {scores}; with all volumes, "
        "{complete}."
    )
    return text.format(
        modalities=_(" and ").join(titles.get(name, name) for name in absent),
        count=known.get("cases", "?"),
        scores=_listed(scores),
        complete=_listed(known.get("dice", {})),
    )


def _listed(scores: Mapping[str, float]) -> str:
    return ", ".join(f"{region} {float(value):.2f}" for region, value in scores.items())
