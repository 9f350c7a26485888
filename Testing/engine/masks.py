"""Masks for the tests of metrics, and distances between them by brute force over all surface voxels."""

import itertools

import numpy as np

SHAPE = (11, 7, 9)
SPACING = (0.9, 2.5, 1.3)


def empty(shape=SHAPE):
    return np.zeros(shape, bool)


def box(shape, *sides):
    """A mask of `shape` that is true in start <= index < stop of each axis."""
    mask = empty(shape)
    mask[tuple(slice(*side) for side in sides)] = True
    return mask


def blobs(seed, shape=SHAPE):
    """A random mask with holes, lone voxels and voxels at the border."""
    rng = np.random.default_rng(seed)
    coarse = rng.random(tuple(-(-size // 3) for size in shape)) < 0.4
    mask = coarse.repeat(3, 0).repeat(3, 1).repeat(3, 2)[tuple(slice(size) for size in shape)]
    return mask ^ (rng.random(shape) < 0.05)


def brute_distances(a, b, spacing):
    """Voxel by voxel: surface by looking at each face neighbour, every distance between all pairs; both ways."""

    def surface(mask):
        points = []
        for index in itertools.product(*map(range, mask.shape)):
            if not mask[index]:
                continue
            for axis, step in itertools.product(range(mask.ndim), (-1, 1)):
                beside = list(index)
                beside[axis] += step
                if not 0 <= beside[axis] < mask.shape[axis] or not mask[tuple(beside)]:
                    points.append([i * size for i, size in zip(index, spacing)])
                    break
        return points

    def directed(start, goal):
        return [min(sum((p - q) ** 2 for p, q in zip(x, y)) ** 0.5 for y in goal) for x in start]

    one, other = surface(a), surface(b)
    return directed(one, other), directed(other, one)


def brute_percentile(distances):
    ordered = sorted(distances)
    rank = 0.95 * (len(ordered) - 1)
    low = int(rank)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (rank - low) * (ordered[high] - ordered[low])


def brute_hd95(a, b, spacing):
    return max(map(brute_percentile, brute_distances(a, b, spacing)))
