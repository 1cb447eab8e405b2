"""Checking folders of training chips."""

from __future__ import annotations

import argparse
from typing import Any

from geodl.cli.main import Run, Word


def add_validate(parser: argparse.ArgumentParser) -> tuple[Run, Word]:
    """Faults of an export; the exit status is 1 if one of them is an error."""
    parser.add_argument("path", help="folder of exported training chips")
    parser.add_argument(
        "--dataset-type",
        default=None,
        metavar="FORMAT",
        help="what a folder without the export's own metadata holds",
    )

    def run(options: argparse.Namespace) -> dict[str, Any]:
        from geodl.formats import validate_export

        faults = validate_export(options.path, options.dataset_type)
        errors = sum(fault.level == "error" for fault in faults)
        options.status = int(errors > 0)
        return {
            "path": options.path,
            "errors": errors,
            "warnings": len(faults) - errors,
            "faults": [fault.to_json() for fault in faults],
        }

    return run, _as_lines


def _as_lines(value: dict[str, Any]) -> str:
    from geodl.formats.fault import Fault

    lines = [str(Fault(**fault)) for fault in value["faults"]]
    verdict = f"{value['path']}: {value['errors']} errors, {value['warnings']} warnings"
    return "\n".join([*lines, verdict])
