"""Where the head lies: a search over turns, shifts and sizes, with mutual information of a few thousand points."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from segmamba.preparation.brain.lattice import WorkImage
from segmamba.preparation.brain.template import STEP, Template

_STRIDE = 3  # voxels of the template between points
_BINS = 24
_STEPS = np.array([8.0, 8.0, 8.0, 0.14, 0.14, 0.14, 0.08])  # mm, radians, logarithm of the size
_STARTS = 4  # of some hundred that are looked at, so many are followed
# logarithm of the size: the template's 1890 mL are those of a large brain
_USUAL = -0.08
_LEAST = -0.25
_MOST = 0.06


@dataclass(frozen=True)
class Pose:
    """Where the template lies: MNI point p at matrix @ p + shift."""

    matrix: np.ndarray
    """(3, 3), a rotation times a size."""
    shift: np.ndarray
    """(3,) in the image's mm."""
    score: float
    """Normalized mutual information times the share of the template that the image shows."""


class PoseSearch:
    """The search for where the template lies in an image.

    What is brighter than most of it counts as equally bright, so that fat does not take all the bins. `image`: the
    lattice with the head; `head`: bool, where it is no air.
    """

    def __init__(self, template: Template, image: WorkImage, head: np.ndarray):
        self._image = image
        # the layers tell more than the inside of the brain: a third of its points will do
        depth = template.depth[::_STRIDE, ::_STRIDE, ::_STRIDE]
        checked = np.indices(depth.shape).sum(0) % 3 == 0
        nodes = np.argwhere(template.compared[::_STRIDE, ::_STRIDE, ::_STRIDE] & (checked | (depth < 10))) * _STRIDE
        smooth = ndimage.gaussian_filter(template.head, 0.7)
        self._points = (nodes * STEP + template.origin).T.astype(np.float32)
        values = smooth[tuple(nodes.T)]
        self._template_bin = np.minimum(values / 210 * _BINS, _BINS - 1).astype(np.int64)
        blurred = ndimage.gaussian_filter(image.values, 1.0)
        top = np.percentile(image.values[head], 97)
        self._binned = np.clip(blurred / top * _BINS, 0, _BINS - 1).astype(np.float32)
        self._head = (np.argwhere(head[::3, ::3, ::3]) * 3 * image.step + image.origin).T
        shell = (template.depth > -15) & template.compared
        self._centre = self._upper_middle((np.argwhere(shell)[::5] * STEP + template.origin).T)

    def search(self) -> list[Pose]:
        """The best few that differ, each followed uphill; best first."""
        found = []
        for pitch, back, up in itertools.product((-0.5, -0.25, 0, 0.25, 0.5), (-12, 0, 12), range(-30, 31, 10)):
            turn = _turn(pitch, 0, 0)
            # the head's top, and the middle of what is within 100 mm of it, go onto the template's
            there = self._upper_middle(turn.T @ self._head) + np.array([0, back, up])
            shift = turn @ (there - np.exp(_USUAL) * self._centre)
            values = np.array([*shift, pitch, 0, 0, _USUAL])
            found.append((self._score(values), tuple(values)))
        found.sort(reverse=True)
        kept: list[np.ndarray] = []
        for _, values in found:
            if all(np.abs((np.array(values) - k) / _STEPS).max() > 1.3 for k in kept):
                kept.append(np.array(values))
            if len(kept) == _STARTS:
                break
        poses = [self._improve(values) for values in kept]
        return sorted(poses, key=lambda pose: -pose.score)

    def _improve(self, values: np.ndarray) -> Pose:
        best = self._score(values)
        for fraction in (1.0, 0.5, 0.25):
            for _ in range(4):
                before = best
                for axis in range(7):
                    for sign in (1, -1):
                        tried = values.copy()
                        tried[axis] += sign * fraction * _STEPS[axis]
                        score = self._score(tried)
                        if score > best:
                            best, values = score, tried
                            break
                if best == before:
                    break
        matrix, shift = self._unpack(values)
        return Pose(matrix, shift, best)

    def _upper_middle(self, points: np.ndarray) -> np.ndarray:
        top = np.percentile(points[2], 99.9)
        upper = points[:, points[2] > top - 100]
        middle = [(np.percentile(axis, 1) + np.percentile(axis, 99)) / 2 for axis in upper[:2]]
        return np.array([*middle, top])

    def _unpack(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Turn and size are about MNI's zero, which lies in the middle of the brain."""
        return _turn(*values[3:6]) * np.exp(np.clip(values[6], _LEAST, _MOST)), values[:3]

    def _score(self, values: np.ndarray) -> float:
        matrix, shift = self._unpack(values)
        at = matrix.astype(np.float32) @ self._points + shift[:, None].astype(np.float32)
        index = (at - self._image.origin[:, None].astype(np.float32)) / np.float32(self._image.step)
        index = np.rint(index).astype(np.int64)
        shape = self._binned.shape
        seen = np.all((index >= 0) & (index < np.array(shape)[:, None]), 0)
        if seen.mean() < 0.5:
            return 0.0
        index = index[:, seen]
        flat = (index[0] * shape[1] + index[1]) * shape[2] + index[2]
        joint = np.bincount(
            self._template_bin[seen] * _BINS + self._binned.ravel()[flat].astype(np.int64), minlength=_BINS * _BINS
        )
        joint = joint.reshape(_BINS, _BINS) / joint.sum()
        rows, columns, both = (_entropy(part) for part in (joint.sum(0), joint.sum(1), joint.ravel()))
        return float(2 * (rows + columns - both) / max(rows + columns, 1e-6) * np.sqrt(seen.mean()))


def _entropy(shares: np.ndarray) -> float:
    shares = shares[shares > 0]
    return float(-(shares * np.log(shares)).sum())


def _turn(pitch: float, roll: float, yaw: float) -> np.ndarray:
    """About R, then A, then S, in radians."""
    cx, sx, cy, sy, cz, sz = (f(a) for a in (pitch, roll, yaw) for f in (np.cos, np.sin))
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return about_z @ about_y @ about_x
