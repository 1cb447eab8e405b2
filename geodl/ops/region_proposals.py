"""Regions of an image that look like wholes, found without any labels."""

from __future__ import annotations

import heapq
from collections.abc import Iterator

import numpy as np
from scipy import ndimage

# Of the first, small regions: the paper on selective search has 100 to 1000 on a photograph.
_SEED_STEP_PX = 6
_SMOOTHING_PX = 0.8
_BINS = 12
# Regions of a side below this, and those that fill nearly the whole image, are no proposals.
_LEAST_SIDE_PX = 6
_MOST_SHARE = 0.8


def propose_regions(image: np.ndarray, count: int) -> np.ndarray:
    """Boxes of regions by selective search (Uijlings et al. 2013, 10.1007/s11263-013-0620-5).

    Small regions, grown by a watershed, are merged pair by pair, the most alike neighbours first;
    every region that comes up on the way is a proposal, the late and large ones first.

    Parameters
    ----------
    image
        float (C, H, W) of any range.
    count
        Most boxes.

    Returns
    -------
    float32 (N, 4): x0, y0, x1, y1 in pixel edges, N up to ``count``; none of an even image.
    """
    labels = _small_regions(image)
    height, width = labels.shape
    found: dict[tuple[int, ...], None] = {}
    for x0, y0, x1, y1 in reversed(list(_grown(image, labels))):
        side, area = min(x1 - x0, y1 - y0), (x1 - x0) * (y1 - y0)
        if side >= _LEAST_SIDE_PX and area <= _MOST_SHARE * height * width:
            found.setdefault((x0, y0, x1, y1))
        if len(found) == count:
            break
    return np.array(list(found), np.float32).reshape(-1, 4)


def _small_regions(image: np.ndarray) -> np.ndarray:
    """int (H, W): regions 0..R-1 grown from a grid of seeds, along even ground."""
    smooth = ndimage.gaussian_filter(image.astype(np.float32), (0, _SMOOTHING_PX, _SMOOTHING_PX))
    slopes = [np.hypot(ndimage.sobel(band, 0), ndimage.sobel(band, 1)) for band in smooth]
    slope = np.max(slopes, axis=0)
    top = float(slope.max()) or 1.0
    relief = np.clip(slope / top * 65535, 0, 65535).astype(np.uint16)
    seeds = np.zeros(relief.shape, np.int32)
    start = _SEED_STEP_PX // 2
    grid = seeds[start::_SEED_STEP_PX, start::_SEED_STEP_PX]
    grid[:] = np.arange(1, grid.size + 1).reshape(grid.shape)
    if not seeds.any():
        seeds[0, 0] = 1
    grown = ndimage.watershed_ift(relief, seeds, np.ones((3, 3), int))
    _, labels = np.unique(grown, return_inverse=True)
    return labels.reshape(relief.shape)


def _grown(image: np.ndarray, labels: np.ndarray) -> Iterator[tuple[int, int, int, int]]:
    """Bounds x0, y0, x1, y1 of every region, from the first to the last that is merged."""
    regions = _Regions(image, labels)
    for region in range(regions.count):
        yield regions.bounds(region)
    for merged in regions.merge():
        yield regions.bounds(merged)


class _Regions:
    """Regions with what likeness is told from: size, colours and bounds."""

    def __init__(self, image: np.ndarray, labels: np.ndarray) -> None:
        self.count = int(labels.max()) + 1
        self.pixels = labels.size
        self.sizes = np.bincount(labels.ravel(), minlength=self.count).tolist()
        self.colours = list(_histograms(image, labels, self.count))
        places = ndimage.find_objects(labels + 1)
        self.boxes = [(c.start, r.start, c.stop, r.stop) for r, c in places]
        self.neighbours: dict[int, set[int]] = {k: set() for k in range(self.count)}
        for one, two in _borders(labels):
            self.neighbours[one].add(two)
            self.neighbours[two].add(one)

    def bounds(self, region: int) -> tuple[int, int, int, int]:
        return self.boxes[region]

    def merge(self) -> Iterator[int]:
        """Merge the two most alike until one is left; yields each new region's number."""
        queue = [
            (-self._likeness(a, b), a, b) for a, others in self.neighbours.items()
            for b in others if a < b
        ]  # fmt: skip
        heapq.heapify(queue)
        while queue:
            _, one, two = heapq.heappop(queue)
            if one not in self.neighbours or two not in self.neighbours:
                continue
            new = self._join(one, two)
            yield new
            for other in sorted(self.neighbours[new]):
                heapq.heappush(queue, (-self._likeness(other, new), other, new))

    def _likeness(self, one: int, two: int) -> float:
        """Common colours, smallness, and how well both fill their common bounds."""
        colour = float(np.minimum(self.colours[one], self.colours[two]).sum())
        size = self.sizes[one] + self.sizes[two]
        x0, y0, x1, y1 = self._hull(one, two)
        return colour + 2 - size / self.pixels - ((x1 - x0) * (y1 - y0) - size) / self.pixels

    def _hull(self, one: int, two: int) -> tuple[int, int, int, int]:
        a, b = self.boxes[one], self.boxes[two]
        return min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])

    def _join(self, one: int, two: int) -> int:
        new = len(self.sizes)
        first, second = self.sizes[one], self.sizes[two]
        mixed = self.colours[one] * first + self.colours[two] * second
        self.boxes.append(self._hull(one, two))
        self.sizes.append(first + second)
        self.colours.append(mixed / (first + second))
        around = (self.neighbours.pop(one) | self.neighbours.pop(two)) - {one, two}
        self.neighbours[new] = around
        for other in around:
            self.neighbours[other] = (self.neighbours[other] - {one, two}) | {new}
        return new


def _histograms(image: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    """float64 (R, C * bins): shares of the ranges of each band, all together 1."""
    bands = len(image)
    flat = labels.ravel()
    parts = []
    for band in image.reshape(bands, -1).astype(np.float64):
        low, high = float(band.min()), float(band.max())
        steps = ((band - low) / ((high - low) or 1.0) * _BINS).astype(np.int64).clip(0, _BINS - 1)
        counts = np.bincount(flat * _BINS + steps, minlength=count * _BINS)
        parts.append(counts.reshape(count, _BINS))
    whole = np.concatenate(parts, axis=1)
    return whole / whole.sum(axis=1, keepdims=True)


def _borders(labels: np.ndarray) -> list[tuple[int, int]]:
    """Pairs of regions with a common edge."""
    pairs = [
        np.stack([one.ravel(), two.ravel()], axis=1)
        for one, two in ((labels[:, :-1], labels[:, 1:]), (labels[:-1], labels[1:]))
    ]
    every = np.concatenate(pairs)
    every = np.unique(np.sort(every[every[:, 0] != every[:, 1]], axis=1), axis=0)
    return [(int(one), int(two)) for one, two in every.tolist()]
