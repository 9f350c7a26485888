"""One head: the atlas under a random affine map and a random smooth deformation."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from segmamba.datasets.phantom.atlas import Atlas
from segmamba.datasets.phantom.lattice import CENTRE, Lattice, exponential, rotation

COARSE = Lattice(4.0)
FINE = Lattice(2.5)
_MIDDLE = np.array([0.0, -17.0, 5.0])  # MNI position that comes to CENTRE


@dataclass
class Head:
    """A head as a deformation of the atlas; maps lie on the FINE lattice."""

    atlas: Atlas
    """That is deformed."""
    position: np.ndarray
    """(3, *FINE.shape), the MNI point, in mm, that lies at each node."""
    edge: np.ndarray
    """mm by which the skull-stripping cut differs from the atlas'."""
    thickness: np.ndarray
    """mm of cortex before a sulcus opens."""
    fold: np.ndarray
    """Signed mm to the nearest of some sulci that the average of 152 heads has lost."""
    reach: np.ndarray
    """mm below the surface that these go."""
    gap: float
    """mm, half their width."""
    fissure: float
    """Power that narrows the average's wide fissures: 1 as they are, 5 narrow."""
    sharpness: float
    """Power on the tissue probabilities."""
    cisterns: np.ndarray
    """0 to 1, the share of the average's fluid outside the ventricles that this head has."""
    description: dict = field(default_factory=dict)
    """What was drawn, plain JSON."""
    _sampled: dict = field(default_factory=dict)

    def on_lattice(self, name: str) -> np.ndarray:
        """Atlas map `name` at the nodes of FINE."""
        if name not in self._sampled:
            values = self.atlas.sample(name, self.position.reshape(3, -1))
            self._sampled[name] = values.reshape(FINE.shape)
        return self._sampled[name]

    def move(self, position: np.ndarray) -> None:
        """Give the head another `position` field."""
        self.position = position
        self._sampled.clear()

    def depth(self) -> np.ndarray:
        """mm inside the stripped brain, on FINE; negative outside."""
        return self.on_lattice("depth") + self.edge

    def tissues(self, points: np.ndarray) -> dict[str, np.ndarray]:
        """What lies at world `points` (3, N), each (N,).

        White, grey, fluid (sum 1), the atlas' detail, mm to the lateral ventricles and below the surface (`depth`), MNI
        x (`side`) and z (`height`) in mm.
        """
        at = np.stack([FINE.sample(p, points) for p in self.position])
        grey, white = (self.atlas.sample(name, at) for name in ("grey", "white"))
        thickness = FINE.sample(self.thickness, points)
        sulcus = sigmoid((self.atlas.sample("white_distance", at) - thickness) / 0.45)
        fluid = np.clip(1 - grey - white, 0.02, 1) ** self.fissure
        grey, white = grey**self.sharpness, white**self.sharpness  # an average of 152 heads is too soft
        fluid, grey = fluid + grey * sulcus, grey * (1 - sulcus)
        # the mean of 152 heads is a lake around the brain stem, and stripped images keep little outer fluid
        ventricle = np.exp(-((self.atlas.sample("ventricle_distance", at) / 4) ** 2))
        kept = FINE.sample(self.cisterns, points) * (1 - 0.6 * sigmoid((-10 - at[2]) / 4))
        lost = fluid * (1 - ventricle) * (1 - kept)
        fluid, grey, white = fluid - lost, grey + 0.7 * lost, white + 0.3 * lost
        depth = FINE.sample(self.depth(), points)
        fold = np.abs(FINE.sample(self.fold, points))
        outer = sigmoid((FINE.sample(self.reach, points) - depth) / 1.5) * (at[2] > -20)
        band, slit = outer * sigmoid((2.8 - fold) / 0.5), outer * sigmoid((self.gap - fold) / 0.3)
        white, grey = white * (1 - band), grey + white * band
        white, grey, fluid = white * (1 - slit), grey * (1 - slit), fluid + slit * (1 - fluid)
        total = grey + white + fluid
        return {
            "white": white / total,
            "grey": grey / total,
            "fluid": fluid / total,
            "detail": self.atlas.sample("detail", at),
            "ventricle_distance": self.atlas.sample("ventricle_distance", at),
            "depth": depth,
            "side": at[0],
            "height": at[2],
        }


def make_head(rng: np.random.Generator, atlas: Atlas) -> Head:
    """A head of 1200 to 1600 mL with its own sulci and ventricles.

    The atlas is left-right symmetric, so that a flip would change nothing; the deformation takes the symmetry away.
    """
    volume = rng.uniform(1280, 1640)
    scale = (volume / atlas.volume) ** (1 / 3) * np.exp(rng.normal(0, 0.02, 3))
    turn = rotation(rng.standard_normal(3), rng.uniform(0, 6))
    shift = rng.normal(0, 2.0, 3)
    middle = (CENTRE + shift).astype(np.float32)[:, None]

    def to_atlas(points: np.ndarray) -> np.ndarray:
        return ((turn.T / scale[:, None]) @ (points - middle) + _MIDDLE[:, None]).astype(np.float32)

    # the skull is smooth: small bends stay within
    within = np.clip(atlas.sample("depth", to_atlas(COARSE.points())) / 14, 0.2, 1).reshape(COARSE.shape)
    velocity = 2.5 * np.stack([COARSE.noise(rng, 65.0) for _ in range(3)])
    for amplitude, size in ((2.0, 28.0), (1.5, 14.0)):
        velocity += amplitude * within * np.stack([COARSE.noise(rng, size) for _ in range(3)])
    displacement = exponential(COARSE, velocity)
    nodes = FINE.points()
    nodes = nodes + np.stack([COARSE.sample(d, nodes) for d in displacement])
    at = to_atlas(nodes)

    # ventricles: points are drawn towards them (wider ventricles) or pushed away
    widening = rng.choice([rng.uniform(-1.0, 1.5), rng.uniform(1.5, 6.0)], p=[0.6, 0.4])
    distance = atlas.sample("ventricle_distance", at).reshape(FINE.shape)
    nearness = np.exp(-((distance / 9) ** 2))
    outward = np.stack([*np.gradient(-nearness, FINE.step)]) * 9 / 0.86
    at = at - widening * (outward.reshape(3, -1))

    edge = 0.6 * FINE.noise(rng, 18.0)
    found = np.count_nonzero(atlas.sample("depth", at) + edge.ravel() > 0) * FINE.step**3 / 1000
    pivot = _MIDDLE.astype(np.float32)[:, None]
    at = pivot + (at - pivot) * (found / volume) ** (1 / 3)  # the deformation has changed the volume

    thickness = rng.uniform(3.3, 5.5)
    sheet = FINE.noise(rng, 15.0)
    slope = np.sqrt(sum(g**2 for g in np.gradient(sheet, FINE.step)))
    head = Head(
        atlas=atlas,
        position=at.reshape(3, *FINE.shape),
        edge=edge + rng.normal(-0.8, 0.5),
        fissure=rng.uniform(2.2, 5.0),
        sharpness=rng.uniform(1.3, 2.6),
        thickness=thickness + 0.5 * FINE.noise(rng, 14.0),
        fold=sheet / np.maximum(slope, 0.03),
        reach=rng.uniform(-2, 12) + 4 * FINE.noise(rng, 20.0),
        gap=rng.uniform(0.2, 1.0),
        cisterns=np.clip(rng.uniform(0.05, 0.75) + 0.15 * FINE.noise(rng, 25.0), 0, 1),
    )
    head.description.update(ventricle_widening_mm=round(float(widening), 2), cortex_mm=round(thickness, 2))
    return head


def sigmoid(value: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-value)), safe for large values."""
    return 0.5 * (1 + np.tanh(0.5 * value))
