"""What each modality shows: tissues, tumour, and things that look like tumour but are none.

Values are relative to normal white matter = 1; their ranges are those measured in real BraTS cases.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from segmamba.datasets.phantom.anatomy import FINE, sigmoid
from segmamba.datasets.phantom.shapes import PlacedShape
from segmamba.datasets.phantom.tumour import Tumour
from segmamba.images.modalities import MODALITIES

# how much of the T1 detail of the atlas, and of old blood in a tumour, each modality shows
_DETAIL = {"t1n": 0.8, "t1c": 0.8, "t2w": -1.2, "t2f": -0.4}
_BLOOD = {"t1n": 0.25, "t1c": 0.25, "t2w": -0.8, "t2f": -0.3}


def draw_contrasts(rng: np.random.Generator, cyst: float) -> dict[str, dict[str, float]]:
    """Per modality the value of each tissue: white (1), grey, fluid, NCR, cyst (a pocket in NCR), ED, ET, vessel."""
    u = rng.uniform
    odd = rng.random() < 0.2  # an unusual sequence: contrasts stretched or flattened
    stretch = {m: (u(0.6, 1.4) if odd else u(0.9, 1.1)) for m in MODALITIES}
    t1 = {"grey": u(0.80, 0.93), "fluid": u(0.38, 0.60)}
    t1["NCR"] = np.clip(1.05 - 0.28 * cyst + rng.normal(0, 0.06), 0.6, 1.05)
    t1["cyst"] = u(0.45, 0.75)
    t1["ED"] = u(0.86, 1.02)
    t1["ET"] = u(0.88, 1.05)
    t1["vessel"] = u(0.6, 1.0)
    t1c = {k: v + rng.normal(0, 0.025) for k, v in t1.items()}
    t1c["NCR"] = t1c["NCR"] - u(0, 0.1)
    t1c["ET"] = max(t1["ET"] + 0.18, float(np.clip(rng.lognormal(np.log(1.5), 0.26), 1.2, 2.8)))
    t1c["vessel"] = u(1.2, 3.0)
    bright = float(np.clip(rng.lognormal(np.log(1.45), 0.4), 0.6, 2.6))  # of fluid over white matter
    t2 = {"grey": 1 + bright * u(0.08, 0.2), "fluid": 1 + bright}
    t2["NCR"] = 1 + bright * np.clip(0.15 + 0.65 * cyst + rng.normal(0, 0.1), 0.15, 0.98)
    t2["cyst"] = 1 + bright * u(0.8, 1.05)
    t2["ED"] = 1 + bright * u(0.22, 0.5)
    t2["ET"] = 1 + bright * u(0.25, 0.55)
    t2["vessel"] = u(0.4, 1.2)
    oedema = float(np.clip(rng.lognormal(np.log(0.36), 0.35), 0.15, 0.9))
    flair = {"grey": u(1.03, 1.24), "fluid": u(0.35, 0.70), "ED": 1 + oedema}
    flair["NCR"] = 1 + oedema * u(0.7, 1.8) if rng.random() > 0.4 * cyst**2 else u(0.6, 1.25)
    flair["cyst"] = u(0.4, 1.0) if rng.random() < 0.7 else 1 + oedema * u(0.3, 1.2)
    flair["ET"] = 1 + oedema * u(0.6, 1.5)
    flair["vessel"] = u(0.5, 1.1)
    drawn = {"t1n": t1, "t1c": t1c, "t2w": t2, "t2f": flair}
    keep = ("NCR", "cyst", "ED", "ET", "vessel")  # the tumour stays visible whatever the sequence
    return {
        m: {"white": 1.0}
        | {k: float(v if k in keep else max(1 + (v - 1) * stretch[m], 0.15)) for k, v in values.items()}
        for m, values in drawn.items()
    }


def paint(
    rng: np.random.Generator,
    points: np.ndarray,
    tissues: dict[str, np.ndarray],
    levels: dict[str, np.ndarray],
    tumour: Tumour | PlacedShape,
) -> dict[str, np.ndarray]:
    """The noiseless value of each modality at points of the world, white matter = 1.

    Args:
        rng: draws contrasts, vessels and textures.
        points: (3, N), RAS mm.
        tissues: map of the head -> (N,), its values there.
        levels: field of the tumour -> (N,), its values there.
        tumour: that they are of.

    Returns:
        Modality -> (N,).
    """
    contrasts = draw_contrasts(rng, tumour.cyst)
    marble = FINE.sample(FINE.fractal(rng, 20.0, 4, 0.75), points)
    clot = FINE.sample(FINE.fractal(rng, 12.0, 3, 0.7), points)
    vessel = _vessels(rng, points, tissues)
    spots = _hyperintensities(rng, points, tissues)
    plexus = _plexus(rng, points, tissues)
    left = FINE.sample(FINE.noise(rng, 16.0), points) - rng.uniform(-0.3, 1.5)
    shell = sigmoid((rng.uniform(0.8, 3.5) - tissues["depth"]) / 0.4) * sigmoid(left / 0.3)  # what stripping has left
    texture = levels["texture"]

    soft = rng.uniform(0.4, 0.9)
    core = sigmoid(levels["core"] / soft)
    enhancing = core * sigmoid(levels["enhancing"] / 0.45)
    oedema = sigmoid(levels["oedema"] / rng.uniform(0.4, 1.4)) * (1 - core)
    pocket = FINE.sample(FINE.fractal(rng, rng.uniform(10, 30), 3, 0.5), points) - rng.uniform(-0.8, 1.5)
    pocket = sigmoid(pocket / rng.uniform(0.05, 0.3)) * (rng.random() < 0.35)  # a core part solid, part cyst
    uneven = rng.uniform(0.05, 0.4)  # oedema is brighter here, fainter there
    hem = rng.uniform(0.4, 0.75)
    full = hem + (1 - hem) * np.clip(levels["oedema"] / rng.uniform(4, 14), 0, 1)  # fades towards its front
    blood = np.clip(clot - 1.2, 0, 1.5) * (rng.random() < 0.2)
    images = {}
    for m in MODALITIES:
        c = contrasts[m]
        value = sum(tissues[t] * c[t] for t in ("white", "grey", "fluid"))
        value = value + _DETAIL[m] * rng.uniform(0.6, 1.2) * tissues["detail"]
        value = value * (1 + rng.uniform(0.012, 0.05) * marble)
        glow = {"t2w": 0.6 * (c["ED"] - 1), "t2f": 0.9 * (c["ED"] - 1), "t1n": -0.06, "t1c": -0.06}[m]
        value = value + glow * spots * (1 - tissues["fluid"])
        value = value * (1 - vessel) + c["vessel"] * vessel
        value = value * (1 - shell) + rng.uniform(0.2, 1.6) * shell  # bone, dura, fat
        if m == "t1c":
            value = value * (1 - plexus) + (0.5 + 0.5 * c["ET"]) * plexus
        # oedema adds to the tissue it soaks: grey and white stay apart in it
        soaked = value + (c["ED"] - 1) * full * np.clip(1 + uneven * marble, 0.2, 2)
        value = value * (1 - oedema) + soaked * oedema
        dead = c["NCR"] + (c["cyst"] - c["NCR"]) * pocket
        dead = dead * (1 + rng.uniform(0.03, 0.12) * texture + rng.uniform(0.03, 0.15) * clot)
        dead = dead + tumour.infiltration * (1 - pocket) * (value - 1)
        dead = dead + _BLOOD[m] * blood
        live = c["ET"] * (1 + (0.15 if m == "t1c" else 0.06) * texture)
        mass = dead * (1 - enhancing) + live * enhancing
        images[m] = np.maximum(value * (1 - core) + mass * core, 0.05).astype(np.float32)
    return images


def _vessels(rng: np.random.Generator, points: np.ndarray, tissues: Mapping[str, np.ndarray]) -> np.ndarray:
    """0..1: curves where two smooth fields both vanish, near fluid; the sagittal sinus; patches of dura."""
    curve = 0
    for scale, width in ((18.0, 0.012), (11.0, 0.02)):
        first, second = (FINE.sample(FINE.noise(rng, scale), points) for _ in range(2))
        curve = np.maximum(curve, np.exp(-(first**2 + second**2) / width))
    curve = curve * np.clip(2.5 * tissues["fluid"] + rng.uniform(0.05, 0.25), 0, 1)
    curve = curve * (tissues["ventricle_distance"] > 1.5)
    depth, midline = tissues["depth"], np.exp(-((tissues["side"] / 2.2) ** 2))
    sinus = midline * sigmoid(4.5 - depth) * sigmoid((tissues["height"] - 5) / 4)
    patches = FINE.sample(FINE.noise(rng, 14.0), points) - rng.uniform(0, 1.5)
    dura = sigmoid((1.6 - depth) / 0.4) * sigmoid(patches / 0.2)
    return np.clip(curve + rng.uniform(0.3, 1) * sinus + rng.uniform(0.1, 0.7) * dura, 0, 1)


def _hyperintensities(rng: np.random.Generator, points: np.ndarray, tissues: Mapping[str, np.ndarray]) -> np.ndarray:
    """0..1: periventricular caps and spots in white matter, which old brains have and no label marks."""
    caps = np.exp(-tissues["ventricle_distance"] / rng.uniform(1.5, 9)) * rng.uniform(0.1, 0.8)
    field = FINE.sample(FINE.noise(rng, 9.0), points)
    spots = sigmoid((field - rng.uniform(2.4, 4.0)) / 0.15) * rng.uniform(0.3, 1)
    return (np.clip(caps + spots, 0, 1) * tissues["white"]).astype(np.float32)


def _plexus(rng: np.random.Generator, points: np.ndarray, tissues: Mapping[str, np.ndarray]) -> np.ndarray:
    """0..1: the choroid plexus, which enhances inside the ventricles."""
    field = FINE.sample(FINE.noise(rng, 7.0), points)
    near = tissues["fluid"] * (tissues["ventricle_distance"] < 1)
    return near * sigmoid((field - rng.uniform(0.3, 1.0)) / 0.2) * rng.uniform(0.3, 1)
