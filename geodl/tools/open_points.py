"""``open_points``: a point cloud as a lazily read ``xarray.Dataset`` with ``ds.geodl``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import geodl.tools.points_accessor  # noqa: F401  (registers ds.geodl)
from geodl.io.points import Chunks, open_dataset

if TYPE_CHECKING:
    import xarray as xr


def open_points(
    source: Any,
    *,
    dims: str | Sequence[str] | None = None,
    bounds: Sequence[float] | None = None,
    chunks: Chunks = "auto",
    pipeline: Sequence[Any] | None = None,
) -> xr.Dataset:
    """Open a point cloud lazily: headers are read, and of files at the edge of ``bounds`` x and y.

    Parameters
    ----------
    source
        LAS 1.0 to 1.4, LAZ or COPC: a path, a pattern (``**`` for any folders), a folder (searched
        below too), a URL or fsspec location, or a list of these; each file is taken once. Files in
        other CRS than the first are reprojected as they are read (x and y; heights stay).
    dims
        Dimensions besides x, y and z, by laspy's names; all by default. A dimension that a file
        lacks is 0 there, or NaN.
    bounds
        ``(xmin, ymin, xmax, ymax)`` in the cloud's CRS, closed. Files outside are not read, of a
        COPC file only the nodes that reach inside.
    chunks
        ``"auto"``: about a million points; or a number of points. LAZ files are cut between their
        own chunks, usually of 50,000 points, so that a chunk may hold fewer or one of those.
    pipeline
        Stages of PDAL (dicts or names, without reader and writer) that run over each file first,
        over one of more than two million points tile by tile, with an eighth of a tile's side
        around it; needs PDAL. Points then come by tile.

    Returns
    -------
    Dataset along ``point`` in the files' own order, Dask-backed: ``x``, ``y``, ``z`` float64, and
    the other dimensions with laspy's names and dtypes; extra dimensions of several columns are
    2-D. Header facts are in ``attrs``; CRS, tiles, rasters and writers in ``ds.geodl``.

    Raises
    ------
    SourceNotFoundError, SourceError
        Nothing there, or a file that cannot be read; says what is wrong with it.
    OptionError, UnknownOptionError
        Bounds or chunks that are none; a dimension that no file has.
    MissingPackageError
        laspy, or for ``pipeline`` PDAL, is not installed.
    """
    return open_dataset(source, dims=dims, bounds=bounds, chunks=chunks, pipeline=pipeline)
