"""``ds.geodl``: what a Dataset of points can do."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyproj
import xarray as xr
from pyproj.exceptions import CRSError

from geodl.base.errors import DataError, OptionError
from geodl.base.options import as_float, as_int
from geodl.base.packages import require
from geodl.io.crs import metres_per_unit

if TYPE_CHECKING:
    from geodl.io.point_tiles import PointTiles

_MOST_DRAWN = 50_000


@xr.register_dataset_accessor("geodl")
class PointsAccessor:
    """CRS, tiles, rasters and writers of a Dataset of points.

    Parameters
    ----------
    dataset
        With ``x``, ``y`` and ``z`` along ``point``, as `open_points` returns it; also thinned,
        filtered or with more variables.
    """

    def __init__(self, dataset: xr.Dataset) -> None:
        self._dataset = dataset

    @property
    def crs(self) -> pyproj.CRS | None:
        """The CRS that the files state, ``attrs["crs_wkt"]``; None where they state none.

        Raises
        ------
        OptionError
            An attribute that was set to no CRS.
        """
        text: Any = self._dataset.attrs.get("crs_wkt")
        try:
            return None if text is None else pyproj.CRS.from_user_input(text)
        except CRSError as error:
            raise OptionError(
                f"attrs['crs_wkt']={str(text)[:80]!r} is no CRS that PROJ knows ({error}); set it "
                "to WKT or a code such as 'EPSG:32633'."
            ) from error

    @property
    def _points(self) -> xr.Dataset:
        missing = {"x", "y", "z"} - set(self._dataset.data_vars)
        if missing or any(self._dataset[axis].dims != ("point",) for axis in "xyz"):
            raise DataError(
                "This Dataset holds no points; x, y and z along 'point' are needed, as "
                "geodl.open_points gives them."
            )
        return self._dataset

    def tiles(
        self,
        size: float,
        buffer: float = 0.0,
        *,
        dims: Sequence[str] | None = None,
        folder: str | os.PathLike[str] | None = None,
    ) -> PointTiles:
        """Square tiles with the points around them.

        The cloud is sorted once: in memory up to four million points, else on disk, part by part.

        Parameters
        ----------
        size, buffer
            Side of a tile, and how far around it points are seen, in units of the CRS. Tiles lie
            on a lattice from the CRS's origin; only those that own a point are given.
        dims
            Dimensions besides x, y and z; None takes all.
        folder
            Keeps the sorted points, so that the next call, or one after an interruption, goes on
            from there. None takes a temporary folder where one is needed.

        Returns
        -------
        A sequence of :class:`geodl.core.points.PointTile`, each read when it is asked for.
        """
        from geodl.io.point_tiles import tiles_of

        side = as_float(size, "size", minimum=1e-9)
        pad = as_float(buffer, "buffer", minimum=0)
        return tiles_of(self._points, side, pad, dims, folder)

    def within(self, bounds: Sequence[float]) -> xr.Dataset:
        """The points inside bounds.

        Of a Dataset as `open_points` returned it, files outside are not read, of a COPC file only
        the nodes that reach inside. Of any other, x and y are read once, the rest stays lazy.

        Parameters
        ----------
        bounds
            ``(xmin, ymin, xmax, ymax)`` in the CRS of the points, closed.

        Raises
        ------
        OptionError
            Bounds that are none.
        """
        from geodl.io.points import points_within

        return points_within(self._points, bounds)

    def thin(self, every: int | None = None, *, spacing: float | None = None) -> xr.Dataset:
        """Fewer points: each ``every``-th, or the first one in each cube of side ``spacing``.

        With ``spacing`` x, y and z are read once, chunk by chunk. The rest stays lazy.
        """
        from geodl.tools.point_rasters import thinned

        return self._points.isel(point=thinned(self._points, every, spacing))

    def height_above_ground(
        self,
        *,
        tile_size: float | None = None,
        buffer: float | None = None,
        spacing: float | None = None,
    ) -> xr.Dataset:
        """The points with a variable ``height_above_ground``, float32 in units of z.

        The ground is a triangulated surface through the points of class 2 and 8, tile by tile;
        where a tile and its buffer hold none of them, heights are NaN. They are worked out at
        once, not when they are asked for: a chunk of the file's order may lie in any tile. Four
        bytes for each point stay in memory, besides one tile.

        Parameters
        ----------
        tile_size, buffer
            In units of the CRS, 250 m and 50 m by default; the buffer should span the largest gap
            in the ground points.
        spacing
            Ground points are averaged in cells of this side before they are joined; 1 m.

        Raises
        ------
        DataError
            No point is classified as ground.
        """
        from geodl.tools.point_rasters import heights_above_ground

        crs = self._dataset.attrs.get("crs_wkt")
        metre = 1.0 if crs is None else 1 / metres_per_unit(crs)
        size = 250 * metre if tile_size is None else as_float(tile_size, "tile_size", minimum=1e-9)
        pad = 50 * metre if buffer is None else as_float(buffer, "buffer", minimum=0)
        side = metre if spacing is None else as_float(spacing, "spacing", minimum=1e-9)
        found = heights_above_ground(self._points, size, pad, side)
        chunks = self._points.x.chunksizes.get("point")
        variable = xr.Variable(("point",), found)
        if chunks is not None:
            variable = variable.chunk({"point": chunks})
        return self._points.assign(height_above_ground=variable)

    def rasterize(
        self, resolution: float, kind: str = "density", *, dim: str = "z", chunk: int | None = None
    ) -> xr.DataArray:
        """A raster of the points, Dask-backed; each chunk is made when it is asked for.

        Parameters
        ----------
        resolution
            Side of a cell, in units of the CRS; cells are whole ones from the CRS's origin.
        kind
            ``density`` (points per square unit), ``count``, ``dsm`` (highest point that is no
            noise), ``dtm`` (triangulated ground of classes 2 and 8, triangles of up to 32 cells
            outside a chunk are seen), or ``max``, ``min``, ``mean`` of a dimension.
        dim
            For the last three, and the height for ``dsm``.
        chunk
            Side of a chunk in cells; None takes 512.

        Returns
        -------
        ``(y, x)``, float32 with NaN where there is nothing, int32 for ``count``; CRS and transform
        in ``.rio``.

        Raises
        ------
        DataError
            No points, or no classification where it is needed.
        OptionError
            An argument outside its domain.
        """
        from geodl.tools.point_rasters import rasterize

        side = None if chunk is None else as_int(chunk, "chunk", minimum=1)
        return rasterize(self._points, resolution, kind, dim, side)

    def to_las(self, path: str | os.PathLike[str], *, point_format: int | None = None) -> Path:
        """Write LAS or LAZ, see :func:`geodl.io.writers.points.write_las`."""
        from geodl.io.writers.points import write_las

        return write_las(self._points, path, point_format=point_format)

    def to_parquet(self, path: str | os.PathLike[str]) -> Path:
        """Write a Parquet table, see :func:`geodl.io.writers.points.write_points_parquet`."""
        from geodl.io.writers.points import write_points_parquet

        return write_points_parquet(self._points, path)

    def plot(self, color: str = "z", *, most_points: int = _MOST_DRAWN) -> Any:
        """Points in three dimensions as a plotly figure, which a notebook shows.

        Parameters
        ----------
        color
            A dimension, or ``"rgb"`` for red, green and blue.
        most_points
            Of more, evenly spaced ones are drawn.

        Raises
        ------
        DataError
            There is no such dimension.
        MissingPackageError
            plotly is not installed.
        """
        graphs = require("plotly.graph_objects", "points")
        names = ["red", "green", "blue"] if color == "rgb" else [color]
        missing = [name for name in names if name not in self._points]
        if missing:
            raise DataError(f"color={color!r}: the points have no dimension {missing[0]!r}.")
        most = as_int(most_points, "most_points", minimum=1)
        step = max(1, -(-self._points.sizes["point"] // most))
        few = self._points[["x", "y", "z", *names]].isel(point=slice(None, None, step)).compute()
        # The largest coordinates are written as they are, thus from the cloud's corner.
        places = [few[axis].values - few[axis].values.min(initial=np.inf) for axis in "xy"]
        colours: Any = few[color].values if color != "rgb" else _hex(few)
        marker = {"size": 1.5, "color": colours, "showscale": color != "rgb"}
        cloud = graphs.Scatter3d(
            x=places[0], y=places[1], z=few.z.values, mode="markers", marker=marker
        )
        figure = graphs.Figure(cloud)
        figure.update_layout(scene={"aspectmode": "data"}, margin=dict.fromkeys("lrtb", 0))
        return figure


def _hex(few: xr.Dataset) -> list[str]:
    """``#rrggbb`` of colours in 8 or 16 bits."""
    table = np.stack([few[name].values for name in ("red", "green", "blue")], axis=1)
    if table.size and table.max() > 255:
        table = table // 256
    return [f"#{r:02x}{g:02x}{b:02x}" for r, g, b in table.tolist()]
