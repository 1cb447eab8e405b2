"""PDAL pipelines over point files, where PDAL is installed."""

from __future__ import annotations

import atexit
import importlib.util
import json
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from geodl.base.errors import MissingPackageError, OptionError, SourceError
from geodl.io.cloud import cloud_locations
from geodl.io.las_file import open_las
from geodl.io.locations import Location

# Each run of PDAL holds a whole file in memory.
_AT_ONCE = 4
# LAS 1.4 holds what filters add; PDAL builds without LASzip write no LAZ.
_WRITER = {"type": "writers.las", "minor_version": 4, "extra_dims": "all", "forward": "all"}
# Point formats without the waveforms that PDAL does not write.
_PLAIN = {4: 1, 5: 3, 9: 6, 10: 8}


def run_pipeline(source: Any, pipeline: Sequence[Any]) -> list[str]:
    """Run stages over each file, some at once.

    Parameters
    ----------
    source
        Files, see :func:`geodl.open_points`.
    pipeline
        Stages without reader and writer: dicts with ``type``, or names such as ``filters.smrf``.

    Returns
    -------
    LAS files in a folder that lasts as long as this process, in the order of the sources.

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
    targets = [folder / f"{number}_{place.stem}.las" for number, place in enumerate(files)]
    with ThreadPoolExecutor(min(_AT_ONCE, len(files))) as pool:
        list(pool.map(partial(_one, run, stages), files, targets))
    return [str(target) for target in targets]


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


def _one(run: Any, stages: Sequence[Mapping[str, Any]], place: Location, target: Path) -> None:
    # Checked here first; PDAL would decode whatever a header says.
    layout = open_las(place).layout
    reader = {"type": "readers.las", "filename": place.text}
    if place.kind != "local":
        reader["type"] = "readers.copc"
    own = _PLAIN.get(layout.format_id, layout.format_id)
    writer = {**_WRITER, "dataformat_id": own, "filename": str(target)}
    text = json.dumps({"pipeline": [reader, *stages, writer]})
    problem = run(text)
    if problem is not None or not target.exists():
        raise SourceError(f"{place.text}: the PDAL pipeline failed ({problem or 'no output'}).")


def _by_program(program: str, text: str) -> str | None:
    done = subprocess.run(
        [program, "pipeline", "--stdin"], input=text.encode(), capture_output=True, check=False
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
