"""A static performance report of a run on a Dask cluster."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from geodl.base.errors import OptionError, OutputError
from geodl.base.packages import require


def check_report(client: Any, report: str | os.PathLike[str] | None) -> Path | None:
    """The absolute path of a report, or None where none is wanted.

    Raises
    ------
    OptionError
        There is no client, or the path does not end in ``.html``.
    OutputError
        Its folder does not exist.
    MissingPackageError
        bokeh, which draws it, is not installed.
    """
    if report is None:
        return None
    path = Path(os.path.abspath(os.path.expanduser(report)))
    if path.suffix.lower() not in (".html", ".htm"):
        raise OptionError(f"report={str(report)!r}: the report is a page, name it .html")
    if client is None:
        raise OptionError(
            f"report={str(report)!r}: reports are of Dask clusters; pass "
            f"client=geodl.connect('local')"
        )
    if not path.parent.is_dir():
        raise OutputError(f"The folder {path.parent} of report does not exist; make it first.")
    require("bokeh", "dashboard")
    return path


@contextmanager
def reported(client: Any, path: Path | None) -> Iterator[None]:
    """Write what the cluster does meanwhile into ``path``, also when the run fails."""
    if path is None:
        yield
        return
    from distributed import performance_report

    # "inline": the page brings its scripts along and opens without a network.
    with client.as_current(), performance_report(filename=str(path), mode="inline"):
        yield
