"""Classes of a point cloud, written back into a copy that differs in nothing else."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from geodl.base.errors import OptionError, OutputError, OutputExistsError
from geodl.base.options import as_bool, as_int, check_choice, check_known
from geodl.core.points import PointInput, PointPlan
from geodl.infer.points import ClassifiedTiles, label_dtype
from geodl.io.cloud import SUFFIXES, Cloud
from geodl.io.point_cells import SortedCloud
from geodl.io.points import cloud_of
from geodl.runtime.connect import chosen_client
from geodl.runtime.future import RunFuture, start
from geodl.runtime.ledger import Ledger
from geodl.runtime.report import check_report, reported
from geodl.tools.open_points import open_points
from geodl.tools.point_copies import ClassRules, check_targets, copy_targets, write_copies
from geodl.tools.point_job import PointRun, estimated_point_hours, matched, point_plan, run_points
from geodl.tools.product import Product

if TYPE_CHECKING:
    import xarray as xr

# Folder of a run that holds the classes of each tile.
_LABELS = "labels"
_RULES = ("overwrite", "keep", "write")


@dataclass(frozen=True, kw_only=True)
class PointJob(PointRun):
    """A run that classifies.

    Parameters
    ----------
    rules
        Which points get which classes.
    """

    rules: ClassRules

    def task(self, cloud: SortedCloud, folder: Path) -> ClassifiedTiles:
        labels = folder / _LABELS
        labels.mkdir(exist_ok=True)
        return ClassifiedTiles(
            cloud=cloud,
            model=self.model,
            device=self.device,
            folder=labels,
            confidence=self.rules.confidence,
            probabilities=self.rules.probabilities,
            write_codes=self.rules.write,
        )

    def finish(self, ledger: Ledger, plan: PointPlan, path: Path) -> None:
        """Write the copies of the files."""
        rules = self.rules
        dtype = label_dtype(
            self.points, confidence=rules.confidence, probabilities=rules.probabilities
        )
        names = [ledger.folder / _LABELS / f"{row}_{col}.npy" for row, col in plan.tiles]
        targets = copy_targets(self.cloud, path)
        write_copies(self.cloud, targets, names, dtype, rules, ledger.folder)


def classify_points(
    points: Any,
    model: Any,
    output: str | os.PathLike[str],
    *,
    tile_size: float | None = None,
    buffer: float | None = None,
    classes: Any = None,
    confidence: bool = False,
    probabilities: bool = False,
    client: Any = None,
    progress: bool = True,
    overwrite: bool = False,
    future: bool = False,
    estimate: bool = False,
    dry_run: bool = False,
    report: str | os.PathLike[str] | None = None,
) -> xr.Dataset:
    """Classify every point of a cloud.

    Square tiles with a buffer are cut into the blocks that the model was trained on, each point in
    four of them; the mean of their scores decides. The result is the same for every tile size and
    number of workers as long as the buffer is at least as wide as a block. A run that was stopped
    goes on when the same call is made again.

    Parameters
    ----------
    points
        Whatever :func:`geodl.open_points` takes, or what it returned.
    model
        A trained object, a ``.emd`` or ``.dlpk`` file, or the folder that ``save`` returned.
    output
        ``.las`` or ``.laz`` for one file; or a folder, which takes a copy of each. Only
        class codes differ from the input: header, records, order and all other dimensions are the
        same bit for bit. A COPC file stays one under a name in ``.copc.laz``, else it becomes a
        LAZ file of the same order.
    tile_size, buffer
        Side of the tiles and what is seen around them, in units of the CRS. By default tiles of
        about two million points or less, and the side of a block.
    classes
        Which points change: None all; a list of present codes (or ``"2,5"``) only those; or a
        dict with the lists
        ``overwrite`` and ``keep`` (present codes that may, or must not, be replaced) and ``write``
        (codes that may be given).
    confidence, probabilities
        Add the extra dimensions ``confidence`` (of the best class) and ``probability_<code>``,
        float32 in 0..1. They describe the model's answer also where a class was kept; points
        outside the bounds of the cloud have 0.
    client
        A Dask client; None takes the active one, or this process.
    progress
        Show a bar, the plan before the run and the speed after it.
    overwrite
        Replace a finished product; begin anew where an unfinished run has other settings.
    future
        Return at once a future with ``progress``; ``cancel()`` leaves the run resumable.
    estimate
        Return the expected worker-hours as a float instead.
    dry_run
        Only say what would be done: a :class:`geodl.tools.preview.PointRunPlan`.
    report
        ``.html`` page to write on what the client's workers did and when.

    Returns
    -------
    The result as :func:`geodl.open_points` opens it, files in the order of ``points``;
    ``.attrs["path"]`` says where it is.

    Raises
    ------
    ModelDataError
        The points lack a dimension that the model takes, or the model is for something else.
    OptionError
        An argument outside its domain, or codes that the point format cannot hold.
    OutputExistsError
        A finished product is there.
    BlockError
        Some tiles failed; the others are kept, the same call goes on.
    """
    cloud = cloud_of(points)
    client = chosen_client(client)
    options = {
        "tile_size": tile_size,
        "buffer": buffer,
        "classes": classes,
        "confidence": as_bool(confidence, "confidence"),
        "probabilities": as_bool(probabilities, "probabilities"),
        "client": client,
    }
    product = _product(cloud, output, overwrite=overwrite, check=not estimate)
    suffix = product.path.suffix.lower()
    suffix = suffix if suffix in SUFFIXES else ""
    targets = copy_targets(cloud, product.path)
    if estimate or dry_run:
        with _prepared(cloud, model, suffix=suffix, **options) as job:
            check_targets(cloud, targets, job.rules)
            expected: Any = point_plan(job, product.path) if dry_run else estimated_point_hours(job)
            return expected
    page = check_report(client, report)

    def make(handle: RunFuture | None) -> Any:
        with (
            _prepared(cloud, model, suffix=suffix, **options) as job,
            reported(client, page),
        ):
            check_targets(cloud, targets, job.rules)
            run_points(job, product, client=client, progress=progress, future=handle)
        # In the order of the input, whatever else lies in the folder.
        found = open_points(targets)
        found.attrs["path"] = str(product.path)
        return found

    # With future=True a RunFuture, as documented.
    result: Any = start(make) if future else make(None)
    return result


@contextmanager
def _prepared(
    points: Any,
    model: Any,
    *,
    classes: Any,
    confidence: bool,
    probabilities: bool,
    suffix: str,
    **options: Any,
) -> Iterator[PointJob]:
    """Cloud, model and rules, checked."""
    with matched(
        points,
        model,
        tool="classify_points",
        kind="points",
        gives="gives classes of points",
        **options,
    ) as found:
        rules = class_rules(
            classes, found["points"], confidence=confidence, probabilities=probabilities
        )
        settings = {**found.pop("settings"), "classes": rules.answer(), "suffix": suffix}
        yield PointJob(**found, settings=settings, rules=rules)


def class_rules(
    classes: Any, spec: PointInput, *, confidence: bool, probabilities: bool
) -> ClassRules:
    """Read the argument ``classes``.

    Raises
    ------
    OptionError, UnknownOptionError
        Neither a list of codes nor a dict of such lists; codes the model does not give.
    """
    given = classes
    if given is not None and not isinstance(given, Mapping):
        given = {"overwrite": given}
    check_known(given or {}, _RULES, "classes")
    lists = {name: _codes((given or {}).get(name), name) for name in _RULES}
    write = lists["write"]
    strange = sorted(set(write or ()) - set(spec.codes))
    if strange or write == ():
        raise OptionError(
            f"classes: write={list(write or ())} must name classes of the model "
            f"({', '.join(map(str, spec.codes))})."
        )
    return ClassRules(
        overwrite=lists["overwrite"],
        keep=lists["keep"] or (),
        write=write,
        codes=spec.codes,
        confidence=confidence,
        probabilities=probabilities,
    )


def _codes(given: Any, name: str) -> tuple[int, ...] | None:
    if given is None:
        return None
    if isinstance(given, str):
        # As on a command line: 2,5
        given = [part for part in given.split(",") if part.strip()]
    if isinstance(given, np.ndarray):
        given = given.tolist()
    if isinstance(given, int) and not isinstance(given, bool):
        given = [given]
    if isinstance(given, bytes) or not isinstance(given, (Sequence, set, frozenset)):
        raise OptionError(f"classes: {name}={given!r} is no list of class codes.")
    return tuple(sorted(as_int(code, f"classes: {name}", minimum=0) for code in given))


def _product(
    cloud: Cloud, output: str | os.PathLike[str], *, overwrite: bool, check: bool
) -> Product:
    if not isinstance(output, (str, os.PathLike)) or "://" in os.fspath(output):
        raise OptionError(
            f"output={output!r} is no path on this machine; copies are written there."
        )
    path = Path(os.path.abspath(os.path.expanduser(output)))
    one = path.suffix.lower() in SUFFIXES
    if one and len(cloud.files) > 1:
        raise OptionError(
            f"output={str(output)!r}: {len(cloud.files)} files are classified into a copy of "
            "each; name a folder."
        )
    if not one and len(cloud.files) == 1 and path.suffix and not path.is_dir():
        check_choice(path.suffix.lower(), SUFFIXES, f"output {path.name}: the suffix")
    if not path.parent.is_dir():
        raise OutputError(f"The folder {path.parent} of output does not exist; make it first.")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise OutputError(f"The folder {path.parent} cannot be written; choose another.")
    product = Product(path, overwrite)
    unfinished = path.is_dir() and (product.run_folder.exists() or not any(path.iterdir()))
    if check and path.exists() and not unfinished and not overwrite:
        raise OutputExistsError(
            f"{path} exists already; pass overwrite=True to replace it, or another output."
        )
    return product
