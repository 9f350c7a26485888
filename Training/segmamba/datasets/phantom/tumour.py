"""One tumour: where it sits, its core, what of it enhances, its oedema, and how it pushes the brain."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage
from skimage.graph import MCP_Geometric

from segmamba.cases.labels import LABELS
from segmamba.datasets.phantom.anatomy import FINE, Head, sigmoid
from segmamba.datasets.phantom.lattice import rotation

_CELL = FINE.step**3 / 1000  # mL per node


@dataclass
class Tumour:
    """Fields on the FINE lattice, in mm where not said otherwise."""

    depth: np.ndarray
    """Inside the core; negative outside."""
    rim: np.ndarray
    """Thickness of the enhancing rim; negative where there is none."""
    patch: np.ndarray
    """Above 0 where tissue enhances within the core."""
    arrival: np.ndarray
    """Oedema where this plus `reluctance` of grey matter is below 0."""
    texture: np.ndarray
    """The finest noise, sd 1."""
    reluctance: float
    """Of grey matter, to hold oedema, in mm."""
    cyst: float
    """0 solid to 1 fluid."""
    infiltration: float
    """Share of the tissue that still shows within the core: 0 a mass, 0.8 hardly any."""
    description: dict = field(default_factory=dict)
    """What was drawn, plain JSON."""

    def at(self, points: np.ndarray, tissues: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """At world `points`: mm inside the core, its enhancing part and the oedema, and the texture."""
        texture = FINE.sample(self.texture, points)
        core = FINE.sample(self.depth, points)
        rim = np.minimum(core, FINE.sample(self.rim, points) - core)
        patch = np.minimum(core, FINE.sample(self.patch, points))
        front = FINE.sample(self.arrival, points) + self.reluctance * (1 - tissues["white"])
        oedema = in_tissue(-front + 0.35 * texture, tissues)
        return {"core": core, "enhancing": np.maximum(rim, patch), "oedema": oedema, "texture": texture}


def in_tissue(oedema: np.ndarray, tissues: dict[str, np.ndarray]) -> np.ndarray:
    """Levels (N,) of oedema in mm, below 0 in fluid, which holds none."""
    ventricle = tissues["fluid"] * (tissues["ventricle_distance"] < 2.5)
    return np.where((tissues["fluid"] > 0.75) | (ventricle > 0.4), -3.0, oedema)


def label(levels: dict[str, np.ndarray]) -> np.ndarray:
    """The engine's labels (N,) uint8 at points with these `levels`."""
    result = np.zeros(levels["core"].shape, np.uint8)
    result[levels["oedema"] > 0] = LABELS["ED"]
    result[levels["core"] > 0] = LABELS["NCR"]
    result[(levels["core"] > 0) & (levels["enhancing"] > 0)] = LABELS["ET"]
    return result


def grow(rng: np.random.Generator, head: Head, enhancing: bool | None) -> Tumour:
    """A tumour in a head, which it deforms.

    Sizes reach beyond those of real cases: core 1.5 to 200 mL, larger where nothing enhances, as in glioma of lower
    grade; oedema 1 to 150 mL, in one of five a mere hem.

    Args:
        rng: draws kind, size and place.
        head: that it grows in; its positions are changed.
        enhancing: as of `make_phantom`.

    Returns:
        The tumour.
    """
    draw = rng.random()
    natural = _kind(draw, None)  # size and character are those of this kind, whatever is asked for
    kind = _kind(draw, enhancing)
    core_volume = float(np.clip(rng.lognormal(np.log(45 if natural == "enhancing" else 70), 0.9), 1.5, 200))
    oedema_volume = float(np.clip(rng.lognormal(np.log(42), 0.9), 2, 150))
    if rng.random() < 0.2:
        oedema_volume = rng.uniform(1, 12)
    centre = _place(rng, head)
    push = rng.uniform(0.0, 0.75) * rng.uniform(0.5, 1)
    displace(head, centre, (core_volume / 4.19 * 1000) ** (1 / 3), push)

    brain = head.depth() > 0
    white, grey = head.on_lattice("white"), head.on_lattice("grey")
    fluid = np.clip(1 - white - grey, 0, 1)
    level = _core_level(rng, head, centre, core_volume, fluid)
    level = np.where(brain, level, level + 3)
    level = level - _threshold(level, brain, core_volume)
    depth = -_distance(level)
    rim, patch, pattern = _enhancement(rng, kind, depth, brain)
    lead = rng.uniform(0, 1)  # 0: an even hem around the core; 1: along white matter, far from the cortex
    arrival = _spread(rng, depth > 0, brain, white + (1 + 4 * lead) * grey + 25 * fluid + 0.05)
    reluctance = 0.5 + 6.5 * lead
    front = arrival + reluctance * (1 - white) + np.where(fluid > 0.6, 50, 0)
    arrival = arrival - _threshold(np.where(depth > 0, np.inf, front), brain, oedema_volume)

    cyst = float(np.clip(rng.normal(0.5, 0.28), 0.05, 1))
    infiltration = rng.uniform(0.1, 0.8) if rng.random() < (0.2 if natural == "enhancing" else 0.5) else 0.0
    return Tumour(
        depth=depth,
        rim=rim,
        patch=patch,
        arrival=np.where(brain, arrival, np.minimum(arrival, 30)),
        texture=FINE.fractal(rng, 6.0, 2, 0.8),
        reluctance=reluctance,
        cyst=cyst,
        infiltration=infiltration,
        description={
            "kind": kind,
            "enhancement": pattern,
            "centre_mm": [round(float(v), 1) for v in centre],
            "mass_effect": round(push, 2),
            "cyst": round(cyst, 2),
            "infiltration": round(infiltration, 2),
        },
    )


def _kind(draw: float, enhancing: bool | None) -> str:
    if enhancing is None:
        return "enhancing" if draw < 0.5 else "trace" if draw < 0.65 else "non-enhancing"
    return "enhancing" if enhancing else "non-enhancing"


def _place(rng: np.random.Generator, head: Head) -> np.ndarray:
    """World position of the centre: in supratentorial white matter, now and then close to the cortex."""
    depth = head.depth()
    weight = head.on_lattice("white") * (depth > 6) * supratentorial(head)
    if rng.random() < 0.4:
        weight = weight * (depth < 16)
    flat = np.cumsum(weight.ravel().astype(np.float64))
    chosen = int(np.searchsorted(flat, rng.random() * flat[-1]))
    return FINE.points()[:, chosen].astype(np.float64)


def supratentorial(head: Head) -> np.ndarray:
    """Where on the FINE lattice neither brain stem nor cerebellum lies, nor anything below."""
    x, y, z = head.position
    brainstem = (np.abs(x) < 18) & (z < -4) & (y < -4)
    cerebellum = (y < -38) & (z < -10)
    return (z > -32) & ~brainstem & ~cerebellum


def displace(head: Head, centre: np.ndarray, radius: float, push: float) -> None:
    """Pushes the anatomy away from a core, less with the distance, and not at all at the skull.

    Args:
        head: whose anatomy is moved.
        centre: (3,), of the core, in mm.
        radius: of the core, in mm.
        push: what is moved at its surface, as a share of `radius`.
    """
    offset = FINE.points().reshape(head.position.shape) - centre[:, None, None, None].astype(np.float32)
    distance = np.maximum(np.linalg.norm(offset, axis=0), 1e-3)
    amount = push * np.where(distance < radius, distance, radius * np.exp(-(distance - radius) / (0.9 * radius + 6)))
    amount = amount * np.clip(head.depth() / 14, 0, 1)
    source = FINE.points() - (offset * (amount / distance)).reshape(3, -1)
    head.move(np.stack([FINE.sample(p, source) for p in head.position]).reshape(head.position.shape))


def _core_level(
    rng: np.random.Generator, head: Head, centre: np.ndarray, volume: float, fluid: np.ndarray
) -> np.ndarray:
    """A field that grows outward from the core's centre(s), in mm; the core is where it is small."""
    radius = (volume / 4.19 * 1000) ** (1 / 3)
    nodes = FINE.points()

    def ball(middle: np.ndarray, size: float) -> np.ndarray:
        turn = rotation(rng.standard_normal(3), rng.uniform(0, 180))
        offset = np.diag(np.exp(rng.normal(0, 0.22, 3))) @ turn @ (nodes - middle[:, None])
        return (np.linalg.norm(offset, axis=0) - size).reshape(FINE.shape)

    level = ball(centre, radius)
    nodules = int(rng.choice([0, 1, 2], p=[0.5, 0.25, 0.25]))
    for _ in range(nodules):
        size = radius * rng.uniform(0.4, 0.75)
        away = rng.standard_normal(3)
        away *= radius * rng.uniform(0.7, 1.2) / np.linalg.norm(away)
        level = np.minimum(level, ball(centre + away, size))
    rough = rng.uniform(0.08, 0.3) * radius
    level = level + rough * FINE.fractal(rng, max(1.1 * radius, 9.0), 4, rng.uniform(0.4, 0.65))
    for _ in range(int(rng.choice([0, 1, 2], p=[0.82, 0.12, 0.06]))):  # satellites
        away = rng.standard_normal(3)
        away *= (radius * rng.uniform(1.5, 2.2) + 8) / np.linalg.norm(away)
        level = np.minimum(level, ball(centre + away, rng.uniform(3, 7)) + 1.5 * FINE.noise(rng, 6.0))
    side = head.position[0] * np.sign(FINE.sample(head.position[0], centre[:, None].astype(np.float32))[0])
    return level + 5 * fluid + 10 * sigmoid(-side - 1)  # fluid and the falx are barriers


def _enhancement(
    rng: np.random.Generator, kind: str, depth: np.ndarray, brain: np.ndarray
) -> tuple[np.ndarray, np.ndarray, str]:
    """(rim thickness, patch level, name of the pattern); both negative where nothing enhances."""
    none = np.full(FINE.shape, -9.0, np.float32)
    core = (depth > 0) & brain
    noise = FINE.fractal(rng, rng.uniform(7, 14), 3, 0.6)
    other = FINE.noise(rng, rng.uniform(14, 26))
    thick = rng.uniform(1.6, 5.5)
    pattern = str(rng.choice(["ring", "ring and patches", "patches", "nodules"], p=[0.4, 0.3, 0.15, 0.15]))
    gaps = rng.choice([-2.5, -1.0, -0.3])
    share = {"ring": 0.0, "ring and patches": rng.uniform(0.1, 0.4), "patches": rng.uniform(0.3, 0.7)}.get(
        pattern, rng.uniform(0.04, 0.15)
    )
    if kind == "non-enhancing" or not core.any():
        return none, none, "none"
    if kind == "trace":
        pattern, share = "trace", rng.uniform(0.1, 1.5) / (core.sum() * _CELL)

    def best(part: float) -> np.ndarray:  # the level whose positive side is this part of the core
        return 5.0 * (noise - np.quantile(noise[core], 1 - min(part, 0.9)))

    patch = best(share) if share > 0 else none
    rim = none
    if pattern.startswith("ring"):
        rim = thick * np.exp(0.45 * noise) * np.clip((other - gaps) / 0.4, -1, 1)
        if np.count_nonzero(core & ((rim > depth) | (patch > 0))) < 0.05 * core.sum():
            patch, pattern = best(0.3), "patches"  # the rim was all gap
    return rim, patch, pattern


def _spread(rng: np.random.Generator, core: np.ndarray, brain: np.ndarray, cost: np.ndarray) -> np.ndarray:
    """Length of the cheapest way from the core, at `cost` a mm, roughened; none leads out of the brain."""
    rough = rng.uniform(0.2, 0.6) * FINE.fractal(rng, 16.0, 3, 0.7)
    cost = np.where(brain, cost * np.exp(rough), -1)
    starts = np.argwhere(core & brain)
    if len(starts) == 0:
        return np.full(FINE.shape, 1e3, np.float32)
    cheapest, _ = MCP_Geometric(cost).find_costs(starts)
    cheapest = np.where(np.isfinite(cheapest), cheapest, 1e3) * FINE.step
    return np.minimum(ndimage.gaussian_filter(np.minimum(cheapest, 200), 0.6), 200).astype(np.float32)


def _threshold(level: np.ndarray, brain: np.ndarray, volume: float) -> float:
    """The value below which `volume` mL of the brain's nodes lie."""
    values = level[brain]
    count = int(np.clip(round(volume / _CELL), 1, values.size - 1))
    return float(np.partition(values, count)[count])


def _distance(level: np.ndarray) -> np.ndarray:
    """mm to the zero of `level`, to first order: level / |gradient|."""
    smooth = ndimage.gaussian_filter(level, 0.6)
    slope = np.sqrt(sum(g**2 for g in np.gradient(smooth, FINE.step)))
    return (level / np.clip(slope, 0.5, 3.0)).astype(np.float32)
