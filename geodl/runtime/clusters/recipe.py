"""Recipes: a YAML file that says which cluster to connect to, and with which options.

.. code-block:: yaml

    cluster: slurm
    options:
      workers: 8
      memory_limit: 16GB
      walltime: "02:00:00"
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from geodl.base.errors import FormatError
from geodl.base.options import check_known

SUFFIXES = (".yaml", ".yml")
_KEYS = ("cluster", "options")
# A recipe is a few lines; aliases that multiply need room to do so.
_LIMIT_BYTES = 64 * 1024


def read_recipe(path: Path) -> tuple[str, dict[str, Any]]:
    """The target and the options of a recipe.

    Raises
    ------
    FormatError
        Not such a file; names it.
    UnknownOptionError
        A key that nothing reads.
    """
    size = path.stat().st_size
    if size > _LIMIT_BYTES:
        raise FormatError(f"{path} has {size} bytes; a recipe has at most {_LIMIT_BYTES}.")
    try:
        value = yaml.safe_load(path.read_text("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise FormatError(f"{path} is no readable YAML: {' '.join(str(error).split())}") from error
    if not isinstance(value, dict) or not isinstance(value.get("cluster"), str):
        raise FormatError(
            f"{path} is no recipe; it holds 'cluster:' (local, cuda, slurm, an address or a "
            f"scheduler file) and 'options:'."
        )
    check_known(map(str, value), _KEYS, f"the recipe {path}")
    options = value.get("options") or {}
    if not isinstance(options, dict):
        raise FormatError(f"{path}: 'options:' is no mapping of names to values.")
    target = value["cluster"]
    if target.endswith(SUFFIXES):
        raise FormatError(f"{path}: the cluster is another recipe ({target}); name that one.")
    return target, {str(name): option for name, option in options.items()}
