"""Which volume is which by what it shows, for volumes whose names and DICOM attributes do not say.

All ways to put the volumes into the places are compared by how well the images then go together (`fit` of
segmamba/shared/swaps.py), and of the two T1 that with the brighter tail has the contrast agent. It is a guess that
somebody has to look at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import permutations

from ..engine.shared import loadShared
from ..errors import InputError
from .swaps import sampleNodes

# By how much the best way has to be better than the next one. Of 72 cases of BraTS and BraTS-Africa 55 are told at 0.5,
# all rightly; at 0.35, which was set on 16 of them, 63, one wrongly: T1 and T1c exchanged.
CLEAR = 0.5


def guessByIntensities(nodes: Sequence, known: Mapping[str, object]) -> dict[str, object]:
    """Modality -> node for the modalities that `known` (modality -> node) lacks; {} where it is not clear.

    nodes: as many volumes as there are modalities to find, none of them among those of `known`. Raises InputError
    where the engine's files are missing.
    """
    rules = loadShared("swaps")
    missing = [modality for modality in rules.MODALITIES if modality not in known]
    if len(missing) < 2 or len(nodes) != len(missing):  # a single one has nothing that it could be exchanged with
        return {}
    unknown = [str(index) for index in range(len(nodes))]
    try:
        samples = sampleNodes({**known, **dict(zip(unknown, nodes))})
    except InputError:  # one is under a warp
        return {}
    if not samples.values:
        return {}
    limit = rules.HEAD_LIMIT if samples.is_head else CLEAR
    ranked = []
    for order in permutations(unknown):
        source = {**{modality: modality for modality in known}, **dict(zip(missing, order))}
        values = {modality: samples.values[name] for modality, name in source.items()}
        ranked.append((round(rules.fit(values), 6), rules.contrast(values["t1n"], values["t1c"]), order))
    best, agent, order = max(ranked)
    worse = [score for score, _agent, _order in ranked if score < best]
    twins = [other for score, other, which in ranked if score == best and which != order]  # T1 and T1c exchanged
    if (worse and best - max(worse) < limit) or (twins and agent - max(twins) < limit):
        return {}
    return {modality: nodes[int(name)] for modality, name in zip(missing, order)}
