"""Errors of geodl. Each is also the builtin that fits, so callers may catch either.

A message says what came, what was expected and the remedy, and names the file, block or column.
"""

from __future__ import annotations


class GeodlError(Exception):
    """Base of everything geodl raises on purpose."""


class OptionError(GeodlError, ValueError):
    """An argument has a value outside its documented domain."""


class UnknownOptionError(GeodlError, TypeError):
    """A keyword, ``model_arguments`` key or ``context`` key that nothing reads."""


class DataError(GeodlError, ValueError):
    """Labels, features or arrays that cannot be used as they are."""


class FormatError(DataError):
    """A chip folder, label file or product that breaks its format; names the file."""


class GridMismatchError(GeodlError, ValueError):
    """Two inputs lie in different CRS or on grids that cannot be brought together."""


class PlanError(GeodlError, ValueError):
    """Sizes that no plan can satisfy."""


class SourceError(GeodlError, OSError):
    """A raster, cloud or feature source that cannot be read; names the path."""


class SourceNotFoundError(SourceError, FileNotFoundError):
    """The path of a source does not exist."""


class SourceRefusedError(SourceError, PermissionError):
    """A source that this user may not read, or not without credentials."""


class OutputError(GeodlError, OSError):
    """A product or working folder that cannot be written."""


class OutputExistsError(OutputError, FileExistsError, RuntimeError):
    """A finished product stands where the output would go."""


class RunMismatchError(GeodlError, RuntimeError):
    """An unfinished run with other inputs, model or settings stands at the output."""


class RunLockedError(GeodlError, RuntimeError):
    """Another live process writes the same output."""


class RunCancelledError(GeodlError, RuntimeError):
    """The caller stopped the run; finished blocks are kept."""


class BlockError(GeodlError, RuntimeError):
    """One or more blocks failed; the message names them, finished ones are kept."""


class ClusterError(GeodlError, RuntimeError):
    """Workers that cannot do the run; names them, what they lack and the remedy."""


class BundleError(GeodlError, ValueError):
    """A model package that is corrupt, foreign, unsafe or of a newer schema."""


class ModelDataError(GeodlError, ValueError):
    """Data that does not fit the contract of a model (bands, classes, cell size)."""


class TrainingError(GeodlError, RuntimeError):
    """Training that cannot go on, for example a loss that is not finite."""


class NotSupportedError(GeodlError, ValueError):
    """A documented choice that this build does not offer; names the supported one."""


class MissingPackageError(GeodlError, ImportError):
    """An optional package is needed; names the extra that brings it."""


class GeodlWarning(UserWarning):
    """Something a user can act on."""


class OfflineWarning(GeodlWarning):
    """Pretrained weights could not be had; random ones are used."""


class DataWarning(GeodlWarning):
    """Data that is used, though something in it was repaired, dropped or assumed."""
