"""PDAL pipelines over point files, where PDAL is installed."""

from __future__ import annotations

import atexit
import importlib.util
import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from geodl.base.errors import MissingPackageError, OptionError, SourceError
from geodl.io.cloud import cloud_locations
from geodl.io.las_file import open_las
from geodl.io.las_pieces import cut_file
from geodl.io.locations import Location

# Each run of PDAL holds all its points in memory: some 300 MB for a tile.
_AT_ONCE = 4
TILE_POINTS = 2_000_000
"""Files of more points run in tiles of about as many."""
# Stages after which a point may lie elsewhere, so that no tile could tell its own ones.
_MOVING = frozenset(
    f"filters.{name}"
    for name in ("reprojection", "transformation", "projpipeline", "icp", "cpd", "teaser",
                 "georeference", "straighten")
)  # fmt: skip
# LAS 1.4 holds what filters add; PDAL builds without LASzip write no LAZ.
_WRITER = {"type": "writers.las", "minor_version": 4, "extra_dims": "all", "forward": "all"}
# The steps of metres are too coarse for degrees.
_FINE = {"forward": "header,vlr"} | {
    f"{what}_{axis}": "auto" for what in ("scale", "offset") for axis in "xyz"
}
# Point formats without the waveforms that PDAL does not write.
_PLAIN = {4: 1, 5: 3, 9: 6, 10: 8}


def run_pipeline(source: Any, pipeline: Sequence[Any]) -> list[str]:
    """Run stages over each file, some at once; over large ones tile by tile.

    A tile sees the points around it, an eighth of its side, and keeps its own. Stages that move
    points run over whole files.

    Parameters
    ----------
    source
        Files, see :func:`geodl.open_points`.
    pipeline
        Stages without reader and writer: dicts with ``type``, or names such as ``filters.smrf``.

    Returns
    -------
    LAS files in a folder that lasts as long as this process, in the order of the sources and
    of the tiles' rows and columns.

    Raises
    ------
    MissingPackageError
        PDAL is not installed.
    OptionError
        No list of stages, or one with a reader or writer.
    SourceError
        PDAL refused a file or stage; with its message.
    """
    stages = _stages(pipeline)
    run = _runner()
    files = cloud_locations(source)
    folder = Path(tempfile.mkdtemp(prefix="geodl-pdal-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    targets: list[Path] = []
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        runs = []
        for number, place in enumerate(files):
            for name, job in _jobs(place, stages, folder / f"cut_{number}"):
                targets.append(folder / f"{number}_{place.stem}{name}.las")
                runs.append(pool.submit(job, run, targets[-1]))
        for done in runs:
            done.result()
    return [str(target) for target in targets if target.exists()]


def _jobs(
    place: Location, stages: Sequence[Mapping[str, Any]], folder: Path
) -> Iterator[tuple[str, Callable[[Any, Path], None]]]:
    """What is to be run for a file, and what it is called."""
    # Checked here first; PDAL would decode whatever a header says.
    file = open_las(place)
    own = _PLAIN.get(file.layout.format_id, file.layout.format_id)
    if file.count <= TILE_POINTS or _moves(stages):
        reader = _reader(place.text)
        if place.kind != "local":
            reader = {"type": "readers.copc", "filename": place.text}
        yield "", partial(_one, place.text, [reader, *stages], own)
        return
    for piece in cut_file(file, folder, TILE_POINTS):
        x0, y0, x1, y1 = piece.core
        chain: list[Mapping[str, Any]] = [
            _reader(str(piece.path)),
            *stages,
            {"type": "filters.range", "limits": f"X[{x0!r}:{x1!r}],Y[{y0!r}:{y1!r}]"},
        ]
        yield f"_{piece.path.stem}", partial(_piece, piece.path, place.text, chain, own)


def _moves(stages: Sequence[Mapping[str, Any]]) -> bool:
    return any(stage["type"] in _MOVING for stage in stages)


def _reader(path: str) -> dict[str, Any]:
    # PDAL drops the extra dimensions of files older than LAS 1.4 unless it is told not to.
    return {"type": "readers.las", "filename": path, "use_eb_vlr": True}


def _piece(
    path: Path, name: str, chain: Sequence[Mapping[str, Any]], own: int, run: Any, target: Path
) -> None:
    _one(name, chain, own, run, target, may_be_empty=True)
    path.unlink()


def _stages(pipeline: Any) -> list[dict[str, Any]]:
    if isinstance(pipeline, (str, bytes, Mapping)) or not isinstance(pipeline, Sequence):
        raise OptionError(
            f'pipeline={pipeline!r}: expected a list of stages, [{{"type": "filters.smrf"}}] for '
            "example."
        )
    stages = []
    for stage in pipeline:
        entry = {"type": stage} if isinstance(stage, str) else stage
        kind = entry.get("type") if isinstance(entry, Mapping) else None
        if not isinstance(kind, str) or not kind.startswith("filters."):
            raise OptionError(
                f"pipeline: the stage {stage!r} is no filter; reader and writer are added by "
                "geodl, list the filters between them."
            )
        stages.append(dict(entry))
    return stages


def _runner() -> Any:
    """How PDAL is run here: by its program, or by its Python package."""
    program = shutil.which("pdal")
    if program is not None:
        return partial(_by_program, program)
    if importlib.util.find_spec("pdal") is not None:
        return _by_package
    raise MissingPackageError(
        "pipeline= needs PDAL, which pip alone cannot install: `conda install -c conda-forge "
        "python-pdal`, or the program from your system (`apt install pdal`) on the PATH."
    )


def _one(
    name: str,
    chain: Sequence[Mapping[str, Any]],
    own: int,
    run: Any,
    target: Path,
    may_be_empty: bool = False,
) -> None:
    """Run reader and filters, and write what they give in a point format."""
    writer = {**_WRITER, "dataformat_id": own, "filename": str(target)}
    if _moves(chain):
        writer |= _FINE
    text = json.dumps({"pipeline": [*chain, writer]})
    problem = run(text)
    if problem is not None or not (may_be_empty or target.exists()):
        raise SourceError(f"{name}: the PDAL pipeline failed ({problem or 'no output'}).")


def _by_program(program: str, text: str) -> str | None:
    # In a stream the writer sees no extent, and takes the first point for "auto".
    done = subprocess.run(
        [program, "pipeline", "--nostream", "--stdin"],
        input=text.encode(),
        capture_output=True,
        check=False,
    )
    if done.returncode == 0:
        return None
    return " ".join(done.stderr.decode("utf-8", "replace").split())[-400:] or "no reason given"


def _by_package(text: str) -> str | None:
    pdal = importlib.import_module("pdal")
    try:
        pdal.Pipeline(text).execute()
    except RuntimeError as error:
        return " ".join(str(error).split())[-400:]
    return None
