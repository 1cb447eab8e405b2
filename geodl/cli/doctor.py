"""``geodl doctor``: versions, devices and drivers of this machine, and what to do about faults."""

from __future__ import annotations

import argparse
import os
import platform
import re
import shutil
import sys
import tempfile
from importlib import import_module
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

from geodl.cli.main import Run, Word
from geodl.cli.reach import examine_cluster

_SETTINGS = (
    "GEODL_OFFLINE", "GEODL_WEIGHTS", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "GDAL_DATA",
    "PROJ_DATA", "PROJ_LIB",
)  # fmt: skip
# What sources, chips and products are made of.
_DRIVERS = ("GTiff", "COG", "VRT", "PNG", "JPEG", "MRF", "netCDF")
_LITTLE_ROOM_BYTES = 2 * 2**30
# What binaries raise that were built for other libraries.
_BROKEN = (ImportError, OSError, RuntimeError, AttributeError, ValueError)


def add_doctor(parser: argparse.ArgumentParser) -> tuple[Run, Word]:
    parser.add_argument(
        "--client",
        dest="connect_to",
        metavar="TARGET",
        default=os.environ.get("GEODL_CLIENT") or None,
        help="also look at a Dask cluster: an address, a scheduler file or a recipe "
        "(default: GEODL_CLIENT)",
    )

    def run(options: argparse.Namespace) -> dict[str, Any]:
        report = examine(options.connect_to)
        options.status = 1 if report["faults"] else 0
        return report

    return run, _word


def examine(cluster: str | None = None) -> dict[str, Any]:
    """Facts and faults; a fault is a sentence with its remedy.

    Parameters
    ----------
    cluster
        What ``geodl.connect`` takes, to look at that as well.
    """
    faults: list[str] = []
    found = {
        "python": f"{platform.python_version()} on {platform.platform(terse=True)}",
        "cores": os.cpu_count(),
        "packages": _packages(faults),
        "raster": _raster(faults),
        "devices": _devices(faults),
        "laz": _laz(),
        "room": _room(faults),
        "settings": {name: os.environ[name] for name in _SETTINGS if name in os.environ},
        "faults": faults,
    }
    if cluster is not None:
        found["cluster"] = examine_cluster(cluster, faults)
    return found


def _packages(faults: list[str]) -> dict[str, str | None]:
    """Versions of geodl, what it needs, and what its extras bring (None where absent)."""
    found: dict[str, str | None] = {"geodl": version("geodl")}
    for text in requires("geodl") or []:
        name = re.split(r"[\[<>=!~; ]", text, maxsplit=1)[0]
        optional = "extra ==" in text
        if name == "geodl" or (optional and "extra == 'test'" in text.replace('"', "'")):
            continue
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found.setdefault(name, None)
            if not optional:
                faults.append(f"The package {name} is missing: pip install --upgrade geodl.")
    return found


def _raster(faults: list[str]) -> dict[str, Any]:
    try:
        rasterio = import_module("rasterio")
        with rasterio.Env() as environment:
            drivers = environment.drivers()
        pyproj = import_module("pyproj")
        pyproj.CRS.from_epsg(4326)
    except _BROKEN as error:
        faults.append(
            f"Rasters cannot be read ({type(error).__name__}: {error}): reinstall rasterio and "
            "pyproj, and unset GDAL_DATA and PROJ_DATA if another GDAL set them."
        )
        return {}
    absent = [name for name in _DRIVERS if name not in drivers]
    if absent:
        faults.append(f"GDAL lacks the drivers {', '.join(absent)}: reinstall rasterio's wheel.")
    return {
        "rasterio": rasterio.__version__,
        "gdal": rasterio.__gdal_version__,
        "proj": pyproj.proj_version_str,
    }


def _devices(faults: list[str]) -> dict[str, Any]:
    try:
        torch = import_module("torch")
        import_module("torchvision.ops")
    except _BROKEN as error:
        faults.append(
            f"torch or torchvision does not load ({type(error).__name__}: {error}): install the "
            "pair named in constraints.txt, both from the same index."
        )
        return {}
    found = {"torch": torch.__version__, "threads": torch.get_num_threads(), "cuda": []}
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            facts = torch.cuda.get_device_properties(number)
            found["cuda"].append(f"{facts.name}, {facts.total_memory / 2**30:.0f} GB")
    elif shutil.which("nvidia-smi") and torch.version.cuda:
        faults.append(
            f"There is an NVIDIA driver, but torch {torch.__version__} sees no device: the driver "
            f"must support CUDA {torch.version.cuda}, and CUDA_VISIBLE_DEVICES must not hide it."
        )
    found["mps"] = torch.backends.mps.is_available()
    return found


def _laz() -> str:
    for module in ("lazrs", "laszip"):
        try:
            import_module(module)
        except ImportError:
            continue
        return f"through {module}"
    return "not readable; pip install 'geodl[points]'"


def _room(faults: list[str]) -> dict[str, Any]:
    """Free space where products and temporary files go, and whether it can be written."""
    found = {}
    for name, folder in (("working folder", Path.cwd()), ("temporary", tempfile.gettempdir())):
        free = shutil.disk_usage(folder).free
        found[name] = f"{folder}, {free / 2**30:.1f} GB free"
        if not os.access(folder, os.W_OK):
            faults.append(f"The {name} {folder} cannot be written: work in another, or set TMPDIR.")
        elif free < _LITTLE_ROOM_BYTES:
            faults.append(f"The {name} {folder} has only {free / 2**30:.1f} GB free.")
    return found


def _word(report: dict[str, Any]) -> str:
    lines = [f"python {report['python']}, {report['cores']} cores, {sys.prefix}"]
    there = {name: text for name, text in report["packages"].items() if text}
    width = max(map(len, there))
    lines += [f"  {name.ljust(width)}  {text}" for name, text in sorted(there.items())]
    gone = sorted(set(report["packages"]) - set(there))
    lines.append(f"not installed (extras): {', '.join(gone) or 'none'}")
    raster, devices = report["raster"], report["devices"]
    if raster:
        lines.append(f"rasters: GDAL {raster['gdal']}, PROJ {raster['proj']}")
    if devices:
        gpus = devices["cuda"] or (["Apple GPU"] if devices["mps"] else ["no GPU"])
        lines.append(f"devices: {'; '.join(gpus)}; {devices['threads']} torch threads")
    lines.append(f"LAZ: {report['laz']}")
    if "cluster" in report:
        lines.append(_word_cluster(report["cluster"]))
    lines += [f"{name}: {text}" for name, text in report["room"].items()]
    lines += [f"{name}={text}" for name, text in report["settings"].items()]
    lines += [f"FAULT: {text}" for text in report["faults"]] or ["no faults found"]
    return "\n".join(lines)


def _word_cluster(found: dict[str, Any]) -> str:
    if "scheduler" not in found:
        return f"cluster: {found['target']} cannot be reached"
    return (
        f"cluster: {found['scheduler']}, {found['workers']} workers, {found['threads']} threads, "
        f"{found['memory_gb']} GB; dashboard {found['dashboard']}"
    )
