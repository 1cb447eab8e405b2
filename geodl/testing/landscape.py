"""Generated land from above: buildings, trees, pads and ponds on generated ground."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from geodl.testing.terrain import FloatArray, make_terrain, smooth_noise

# The sun stands in the north-west, as shaded relief is read best; shadows fall to the south-east.
_SHADOW_XY = (0.77, 0.64)
_COARSE_PX = 4
_ROOFS = np.array(
    [
        (0.62, 0.34, 0.27, 0.50),
        (0.55, 0.40, 0.34, 0.46),
        (0.42, 0.43, 0.46, 0.42),
        (0.70, 0.69, 0.68, 0.66),
        (0.34, 0.31, 0.31, 0.33),
    ],
    np.float32,
)
_CROWNS = np.array(
    [
        (0.14, 0.24, 0.11, 0.62),
        (0.18, 0.29, 0.13, 0.70),
        (0.22, 0.30, 0.15, 0.66),
        (0.10, 0.19, 0.12, 0.50),
    ],
    np.float32,
)
_SAND = np.array((0.78, 0.72, 0.60, 0.72), np.float32)
_WATER = np.array((0.10, 0.17, 0.22, 0.06), np.float32)
# One object to so many pixels of land.
_DENSITY_PX = {"building": 105**2, "tree": 52**2, "pad": 150**2, "pond": 260**2}
# Kinds that every landscape has; the others appear where they are asked for.
ALWAYS = ("building", "tree")
KINDS = tuple(_DENSITY_PX)


class Outline(NamedTuple):
    """An object's kind and its ring: float64 (V, 2), column and row in pixel edges, not closed."""

    kind: str
    ring: NDArray[np.float64]


@dataclass(slots=True)
class Landscape:
    """A painted canvas and what stands on it.

    Attributes
    ----------
    latent
        float32 (4, H, W), reflectance 0..1 in red, green, blue, near infrared.
    occupied
        bool (ceil(H / 4), ceil(W / 4)), True where nothing more may be placed.
    angle
        Radians by which fields and roads are turned.
    road
        bool (H, W), True on roads.
    outlines
        Every object, in the order it was painted.
    sites
        Places (x, y, radius) where buildings may still be put up.
    """

    latent: FloatArray
    occupied: NDArray[np.bool_]
    angle: float
    road: NDArray[np.bool_]
    outlines: list[Outline] = field(default_factory=list)
    sites: list[_Place] = field(default_factory=list)


_Place = tuple[float, float, float]


class _Patch(NamedTuple):
    """A view into the canvas and the pixel centres' offsets from the object's centre."""

    pixels: FloatArray
    dx: FloatArray
    dy: FloatArray
    slices: tuple[slice, slice]


def paint_landscape(
    rng: np.random.Generator,
    rows: int,
    cols: int,
    kinds: Collection[str],
    blocked: NDArray[np.bool_] | None = None,
    *,
    leave_sites: bool = False,
) -> Landscape:
    """Paint ground and objects.

    Parameters
    ----------
    rng
        All that varies comes from here.
    rows, cols
        Size in pixels.
    kinds
        Of :data:`KINDS`; buildings and trees stand there in any case.
    blocked
        bool (rows, cols), True where no object may stand.
    leave_sites
        Keep places free for :func:`build_more`.
    """
    terrain = make_terrain(rng, rows, cols)
    taken = terrain.road if blocked is None else terrain.road | blocked
    land = Landscape(terrain.latent, _coarse(taken), terrain.angle, terrain.road)
    leaf = 0.6 * smooth_noise(rng, rows, cols, 2.5) + 0.5 * smooth_noise(rng, rows, cols, 1)
    painters: dict[str, Callable[[], None]] = {
        "pond": lambda: _add_ponds(rng, land, leaf),
        "pad": lambda: _add_pads(rng, land, leaf),
        "building": lambda: _add_buildings(rng, land, leaf),
        "tree": lambda: _add_trees(rng, land, leaf),
    }
    for kind, painter in painters.items():
        if kind in kinds or kind in ALWAYS:
            painter()
        if kind == "building" and leave_sites:
            land.sites = _building_sites(rng, land)
    np.clip(land.latent, 0.01, 1.0, out=land.latent)
    return land


def build_more(rng: np.random.Generator, land: Landscape) -> list[Outline]:
    """Put up buildings on the sites that were left, in place; their outlines."""
    rows, cols = land.latent.shape[1:]
    before = len(land.outlines)
    _build(rng, land, 0.6 * smooth_noise(rng, rows, cols, 2.5), land.sites)
    np.clip(land.latent, 0.01, 1.0, out=land.latent)
    return land.outlines[before:]


def _coarse(taken: NDArray[np.bool_]) -> NDArray[np.bool_]:
    rows, cols = (-(-size // _COARSE_PX) * _COARSE_PX for size in taken.shape)
    padded = np.ones((rows, cols), bool)
    padded[: taken.shape[0], : taken.shape[1]] = taken
    blocks = padded.reshape(rows // _COARSE_PX, _COARSE_PX, cols // _COARSE_PX, _COARSE_PX)
    return np.asarray(blocks.any(axis=(1, 3)))


def _places(
    rng: np.random.Generator, land: Landscape, kind: str, radius_px: NDArray[np.float64]
) -> Iterator[_Place]:
    """Free places (x, y, radius), about as many as the density asks; marks them taken."""
    rows, cols = land.latent.shape[1:]
    wanted = max(2, round(rows * cols / _DENSITY_PX[kind]))
    found = 0
    for radius in rng.choice(radius_px, 6 * wanted):
        margin = radius + 2
        if 2 * margin >= min(rows, cols):
            continue
        x, y = rng.uniform(margin, cols - margin), rng.uniform(margin, rows - margin)
        spot = tuple(
            slice(int((c - radius) // _COARSE_PX), int((c + radius) // _COARSE_PX) + 1)
            for c in (y, x)
        )
        if land.occupied[spot].any():
            continue
        land.occupied[spot] = True
        yield float(x), float(y), float(radius)
        found += 1
        if found == wanted:
            return


def _patch(land: Landscape, x: float, y: float, half_px: float) -> _Patch:
    rows, cols = land.latent.shape[1:]
    row, row_stop = max(0, int(y - half_px)), min(rows, int(y + half_px) + 2)
    col, col_stop = max(0, int(x - half_px)), min(cols, int(x + half_px) + 2)
    dx = (np.arange(col, col_stop, dtype=np.float32) + np.float32(0.5 - x))[None, :]
    dy = (np.arange(row, row_stop, dtype=np.float32) + np.float32(0.5 - y))[:, None]
    slices = (slice(row, row_stop), slice(col, col_stop))
    return _Patch(land.latent[:, slices[0], slices[1]], dx, dy, slices)


def _blend(patch: _Patch, cover: FloatArray, colour: FloatArray) -> None:
    """Mix ``colour`` in with share ``cover`` (H, W) 0..1."""
    pixels = patch.pixels
    pixels += cover * (colour - pixels)


def _darken(patch: _Patch, cover: FloatArray) -> None:
    # Shadow is lit by the sky, so blue loses least.
    for band, loss in enumerate((0.52, 0.50, 0.42, 0.55)):
        patch.pixels[band] *= 1 - loss * cover


@dataclass(frozen=True, slots=True)
class _Footprint:
    """A rectangle of half sides ``a``, ``b`` turned by ``angle``, less one corner if ``cut``."""

    a: float
    b: float
    angle: float
    cut: bool

    def axes(self, dx: FloatArray, dy: FloatArray) -> tuple[FloatArray, FloatArray]:
        cos, sin = np.float32(np.cos(self.angle)), np.float32(np.sin(self.angle))
        return cos * dx + sin * dy, cos * dy - sin * dx

    def cover(self, dx: FloatArray, dy: FloatArray) -> FloatArray:
        """Share of each pixel inside, with soft edges."""
        p, q = self.axes(dx, dy)
        outside = np.maximum(np.abs(p) - self.a, np.abs(q) - self.b)
        if self.cut:
            outside = np.maximum(outside, np.minimum(p, q))
        return np.asarray(np.clip(0.5 - outside, 0, 1), np.float32)

    def ring(self, x: float, y: float) -> NDArray[np.float64]:
        a, b = self.a, self.b
        corners = [(-a, -b), (a, -b), (a, b), (-a, b)]
        if self.cut:
            corners = [(-a, -b), (a, -b), (a, 0), (0, 0), (0, b), (-a, b)]
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        return np.array([(x + cos * p - sin * q, y + sin * p + cos * q) for p, q in corners])


def _add_buildings(rng: np.random.Generator, land: Landscape, grain: FloatArray) -> None:
    _build(rng, land, grain, _building_sites(rng, land))


def _building_sites(rng: np.random.Generator, land: Landscape) -> list[_Place]:
    return list(_places(rng, land, "building", rng.uniform(12, 30, 512)))


def _build(
    rng: np.random.Generator, land: Landscape, grain: FloatArray, sites: list[_Place]
) -> None:
    for x, y, radius in sites:
        ratio = rng.uniform(0.5, 1.0)
        half = 0.93 * radius
        a, b = half / np.hypot(1, ratio), half * ratio / np.hypot(1, ratio)
        angle = land.angle + rng.normal(0, 0.05) + np.pi / 2 * rng.integers(0, 2)
        shape = _Footprint(float(a), float(b), float(angle), bool(rng.random() < 0.25))
        height = rng.uniform(3, 7)
        patch = _patch(land, x, y, radius + height)
        shadow = np.zeros(np.broadcast_shapes(patch.dx.shape, patch.dy.shape), np.float32)
        for step in np.linspace(0.25, 1, 4) * height:
            offset_x, offset_y = np.float32(step * _SHADOW_XY[0]), np.float32(step * _SHADOW_XY[1])
            np.maximum(shadow, shape.cover(patch.dx - offset_x, patch.dy - offset_y), out=shadow)
        _darken(patch, shadow)
        _paint_roof(rng, patch, shape, grain)
        land.outlines.append(Outline("building", shape.ring(x, y)))


def _paint_roof(
    rng: np.random.Generator, patch: _Patch, shape: _Footprint, grain: FloatArray
) -> None:
    """A gable roof: one side lit, one in the shade, courses of tiles, a ridge and a chimney."""
    p, q = shape.axes(patch.dx, patch.dy)
    lit = -(np.sin(shape.angle) * -_SHADOW_XY[0] + np.cos(shape.angle) * _SHADOW_XY[1])
    flat = rng.random() < 0.3
    slope = 0.0 if flat else 0.24 * float(lit)
    shade = 1 + slope * np.sign(q) + 0.05 * grain[patch.slices]
    if not flat:
        shade += 0.05 * np.sin(q * np.float32(2.1)) + 0.15 * (np.abs(q) < 0.7)
    colour = _ROOFS[rng.integers(len(_ROOFS))] * rng.uniform(0.85, 1.12)
    _blend(patch, shape.cover(patch.dx, patch.dy), (colour[:, None, None] * shade).astype("f4"))
    spot_p, spot_q = -shape.a * rng.uniform(0.3, 0.7), -shape.b * rng.uniform(0.2, 0.6)
    chimney = np.clip(1.6 - np.maximum(np.abs(p - spot_p), np.abs(q - spot_q)), 0, 1)
    _blend(patch, chimney.astype("f4"), np.full((4, 1, 1), 0.22, np.float32))


def _wobble(
    rng: np.random.Generator, radius: float, strength: float
) -> Callable[[NDArray[np.floating]], NDArray[np.floating]]:
    """An irregular closed curve: distance from the centre by direction."""
    orders = np.array((2, 3, 5, 7), np.float32)
    sizes = (strength * rng.uniform(0.2, 1, 4) / (1 + 0.35 * orders)).astype(np.float32)
    phases = rng.uniform(0, 2 * np.pi, 4).astype(np.float32)

    def distance(direction: NDArray[np.floating]) -> NDArray[np.floating]:
        total = np.ones_like(direction)
        for order, size, phase in zip(orders, sizes, phases, strict=True):
            total += size * np.cos(order * direction + phase)
        return np.asarray(radius * total)

    return distance


def _ring(
    curve: Callable[[NDArray[np.floating]], NDArray[np.floating]], x: float, y: float, points: int
) -> NDArray[np.float64]:
    direction = np.linspace(0, 2 * np.pi, points, endpoint=False)
    reach = curve(direction)
    return np.stack([x + reach * np.cos(direction), y + reach * np.sin(direction)], axis=1)


def _add_trees(rng: np.random.Generator, land: Landscape, leaf: FloatArray) -> None:
    radii = rng.gamma(5.0, 1.5, 1024).clip(5.0, 15.0)
    for x, y, radius in list(_places(rng, land, "tree", radii)):
        curve = _wobble(rng, 0.9 * radius, 0.16)
        patch = _patch(land, x, y, 1.9 * radius)
        shift = np.float32(0.55 * radius)
        sx, sy = patch.dx - shift * _SHADOW_XY[0], patch.dy - shift * _SHADOW_XY[1]
        _darken(patch, np.clip(0.9 * radius - np.hypot(sx, sy), 0, 1).astype("f4"))
        reach = np.hypot(patch.dx, patch.dy)
        cover = np.clip(0.5 + curve(np.arctan2(patch.dy, patch.dx)) - reach, 0, 1)
        dome = 1 - 0.34 * (patch.dx * _SHADOW_XY[0] + patch.dy * _SHADOW_XY[1]) / radius
        dome = dome - 0.25 * (reach / radius) ** 2 + 0.17 * leaf[patch.slices]
        colour = _CROWNS[rng.integers(len(_CROWNS))] * rng.uniform(0.85, 1.25)
        if rng.random() < 0.07:  # a few in autumn colours
            colour = np.array((0.42, 0.33, 0.12, 0.58), np.float32)
        _blend(patch, cover.astype("f4"), (colour[:, None, None] * dome).astype("f4"))
        land.outlines.append(Outline("tree", _ring(curve, x, y, 24)))


def _add_pads(rng: np.random.Generator, land: Landscape, grain: FloatArray) -> None:
    """Levelled sandy squares with tanks on them, as oil and gas wells have."""
    for x, y, radius in list(_places(rng, land, "pad", rng.uniform(24, 46, 256))):
        ratio = rng.uniform(0.75, 1.0)
        half = 0.93 * radius / np.hypot(1, ratio)
        shape = _Footprint(
            float(half), float(half * ratio), land.angle + float(rng.normal(0, 0.1)), False
        )
        patch = _patch(land, x, y, radius)
        shade = rng.uniform(0.9, 1.1) + 0.05 * grain[patch.slices]
        cover = shape.cover(patch.dx, patch.dy)
        _blend(patch, cover, (_SAND[:, None, None] * shade).astype("f4"))
        for _ in range(rng.integers(1, 5)):
            spot = rng.uniform(-0.5, 0.5, 2).astype(np.float32) * shape.b
            tank = np.clip(3.0 - np.hypot(patch.dx - spot[0], patch.dy - spot[1]), 0, 1)
            tone = np.full((4, 1, 1), rng.choice([0.25, 0.92]), np.float32)
            _blend(patch, tank.astype("f4"), tone)
        land.outlines.append(Outline("pad", shape.ring(x, y)))


def _add_ponds(rng: np.random.Generator, land: Landscape, grain: FloatArray) -> None:
    for x, y, radius in list(_places(rng, land, "pond", rng.uniform(18, 55, 128))):
        curve = _wobble(rng, 0.85 * radius, 0.25)
        patch = _patch(land, x, y, 1.3 * radius)
        inside = curve(np.arctan2(patch.dy, patch.dx)) - np.hypot(patch.dx, patch.dy)
        cover = np.clip(0.5 + inside, 0, 1).astype("f4")
        shade = 1 + 0.03 * grain[patch.slices]
        _blend(patch, cover, (_WATER[:, None, None] * shade).astype("f4"))
        land.outlines.append(Outline("pond", _ring(curve, x, y, 48)))
