"""Generated ground: fields, roads and texture at several scales, as plain arrays."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]

# Reflectance in red, green, blue, near infrared: bare soil, stubble, meadow, grass, crop.
_COVERS = np.array(
    [
        (0.50, 0.41, 0.31, 0.44),
        (0.60, 0.54, 0.38, 0.47),
        (0.36, 0.41, 0.25, 0.52),
        (0.40, 0.46, 0.28, 0.58),
        (0.45, 0.49, 0.25, 0.62),
    ],
    np.float32,
)
_ASPHALT = np.array((0.44, 0.44, 0.45, 0.42), np.float32)
_FIELD_UV_PX = (190.0, 120.0)
_ROAD_PERIOD = 3  # every third field border is a road
_ROAD_HALF_WIDTH_PX = 6.0


class Terrain(NamedTuple):
    """Ground without objects.

    Attributes
    ----------
    latent
        float32 (4, H, W), reflectance 0..1 in red, green, blue, near infrared.
    road
        bool (H, W), True on roads.
    angle
        Radians by which fields and roads are turned; buildings follow it.
    """

    latent: FloatArray
    road: NDArray[np.bool_]
    angle: float


def smooth_noise(rng: np.random.Generator, rows: int, cols: int, scale_px: float) -> FloatArray:
    """Value noise: float32 (rows, cols), mean 0 and deviation about 1, features of ``scale_px``."""
    if scale_px <= 1:
        return rng.standard_normal((rows, cols), dtype=np.float32)
    knots = (int(rows / scale_px) + 2, int(cols / scale_px) + 2)
    coarse = rng.standard_normal(knots, dtype=np.float32)
    for axis, length in enumerate((rows, cols)):
        place = (np.arange(length, dtype=np.float32) / scale_px) % (knots[axis] - 1)
        low = place.astype(np.int64)
        share = place - low
        share = (share * share * (3 - 2 * share)).reshape((-1, 1) if axis == 0 else (1, -1))
        below, above = coarse.take(low, axis=axis), coarse.take(low + 1, axis=axis)
        coarse = below + share * (above - below)
    # Interpolation between knots lowers the deviation to about 0.7.
    return np.asarray(coarse / np.float32(0.7), np.float32)


def make_terrain(rng: np.random.Generator, rows: int, cols: int) -> Terrain:
    """Fields of several covers with crop rows and hedges, roads along some borders, and texture."""
    angle = float(rng.uniform(-0.6, 0.6))
    y, x = np.mgrid[0:rows, 0:cols].astype(np.float32)
    u = np.cos(angle) * x + np.sin(angle) * y + 18 * smooth_noise(rng, rows, cols, 320)
    v = -np.sin(angle) * x + np.cos(angle) * y + 14 * smooth_noise(rng, rows, cols, 260)
    latent, edge = _paint_fields(rng, u, v)
    _paint_texture(rng, latent)
    road = _paint_roads(rng, latent, u, v)
    hedge = (edge < 2.0) & ~road
    latent[:, hedge] *= np.array((0.62, 0.72, 0.62, 0.9), np.float32)[:, None]
    np.clip(latent, 0.02, 1.0, out=latent)
    return Terrain(latent, road, angle)


def _paint_fields(
    rng: np.random.Generator, u: FloatArray, v: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Latent (4, H, W) of the fields, and the distance in pixels to the nearest border (H, W)."""
    length, width = _FIELD_UV_PX
    column = np.floor(u / length)
    # Neighbouring columns are shifted against each other, as parcels are.
    row_place = v / width + 0.37 * column
    row = np.floor(row_place)
    table = 256
    number = (column.astype(np.int64) * 37 + row.astype(np.int64) * 101) % table
    shares = rng.dirichlet(np.full(len(_COVERS), 0.4), table).astype(np.float32)
    colours = shares @ _COVERS * rng.uniform(0.85, 1.1, (table, 1)).astype(np.float32)
    latent = np.stack([colours[:, band][number] for band in range(4)])
    amplitude = rng.choice([0.0, 0.0, 0.02, 0.045], table).astype(np.float32)[number]
    period = rng.uniform(4.0, 9.0, table).astype(np.float32)[number]
    latent += amplitude * np.sin(2 * np.pi * v / period, dtype=np.float32)
    along = np.abs(u / length - np.round(u / length)) * length
    across = np.abs(row_place - np.round(row_place)) * width
    return latent, np.minimum(along, across)


def _paint_texture(rng: np.random.Generator, latent: FloatArray) -> None:
    """Brightness texture from hills down to single pixels, with some hue of its own."""
    rows, cols = latent.shape[1:]
    brightness = np.ones((rows, cols), np.float32)
    for scale_px, amplitude in ((180, 0.06), (40, 0.05), (10, 0.045), (3, 0.05), (1, 0.035)):
        brightness += amplitude * smooth_noise(rng, rows, cols, scale_px)
    latent *= brightness
    latent += 0.012 * np.stack([smooth_noise(rng, rows, cols, 24) for _ in range(4)])


def _paint_roads(
    rng: np.random.Generator, latent: FloatArray, u: FloatArray, v: FloatArray
) -> NDArray[np.bool_]:
    """Asphalt with a dashed line along every third column border, gravel across; True on roads."""
    rows, cols = u.shape
    period = _FIELD_UV_PX[0] * _ROAD_PERIOD
    main = np.abs(u / period - np.round(u / period)) * period
    cross_period = period * 1.3
    cross = np.abs(v / cross_period - np.round(v / cross_period)) * cross_period
    grain = 1 + 0.06 * smooth_noise(rng, rows, cols, 1) + 0.05 * smooth_noise(rng, rows, cols, 14)
    gravel = np.clip(_ROAD_HALF_WIDTH_PX * 0.7 - cross, 0, 1)
    latent += gravel * ((_ASPHALT * 1.25)[:, None, None] * grain - latent)
    asphalt = np.clip(_ROAD_HALF_WIDTH_PX - main, 0, 1)
    latent += asphalt * (_ASPHALT[:, None, None] * grain - latent)
    dash = (main < 0.8) & (v % 24 < 12)
    latent[:, dash] = 0.8
    return np.asarray((gravel > 0) | (asphalt > 0))
