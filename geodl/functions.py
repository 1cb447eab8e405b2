"""Functions on rasters and features that stand on their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from geodl.base.registry import lazy_attributes

if TYPE_CHECKING:
    import xarray as xr

    from geodl.io.source import Bands
    from geodl.tools.confusion_matrix import compute_confusion_matrix
    from geodl.tools.extract_lines import extract_lines
    from geodl.tools.non_max_suppression import non_max_suppression
    from geodl.tools.polygonize import polygonize
    from geodl.tools.regularize_buildings import regularize_buildings


def extract_band(raster: Any, numbers: Bands) -> xr.DataArray:
    """Some bands of a raster, read lazily.

    Parameters
    ----------
    raster
        Anything that :func:`geodl.open_raster` takes.
    numbers
        Bands by number from 1 or by name, in the order wanted; one or several.

    Returns
    -------
    Dask-backed array ``(band, y, x)``, bands counted from 1 again, that every tool accepts; tools
    read windows of the raster itself and no other bands.

    Raises
    ------
    SourceNotFoundError, SourceError
        There is nothing at the path, or no raster; names it.
    OptionError
        No bands, or one that the raster does not have.
    """
    # Imported here: this module is light to import, the raster stack is not.
    from geodl.io.raster import open_raster

    return open_raster(raster, bands=numbers)


_LAZY = {
    "compute_confusion_matrix": "geodl.tools.confusion_matrix:compute_confusion_matrix",
    "extract_lines": "geodl.tools.extract_lines:extract_lines",
    "non_max_suppression": "geodl.tools.non_max_suppression:non_max_suppression",
    "polygonize": "geodl.tools.polygonize:polygonize",
    "regularize_buildings": "geodl.tools.regularize_buildings:regularize_buildings",
}
__getattr__ = lazy_attributes(__name__, _LAZY)
__all__ = [
    "compute_confusion_matrix",
    "extract_band",
    "extract_lines",
    "non_max_suppression",
    "polygonize",
    "regularize_buildings",
]
