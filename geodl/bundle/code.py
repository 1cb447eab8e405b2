"""Python source in a package: never run unless this process was told to trust it by its sha256."""

from __future__ import annotations

import ast
import hashlib
import inspect
import sys
import textwrap
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geodl.base.errors import BundleError, OptionError

if TYPE_CHECKING:
    from geodl.bundle.read import Bundle

SOURCE_NAME = "ModelConfiguration.py"
CODE_KEY, CLASS_KEY = "code_sha256", "code_class"

# Classes by the sha256 of their source: those made here, and those that were trusted.
_classes: dict[str, type] = {}
_sources: dict[str, str] = {}


def register(found: type) -> dict[str, str]:
    """Know a class of the caller's own; returns its parameters for a package.

    Raises
    ------
    OptionError
        Its source cannot be had, so that a package could not hold it.
    """
    source = _source_of(found)
    sha = hashlib.sha256(source.encode()).hexdigest()
    _classes[sha], _sources[sha] = found, source
    return {CODE_KEY: sha, CLASS_KEY: found.__name__}


def source_bytes(sha256: str) -> bytes:
    """The source of a known class."""
    return _sources[sha256].encode()


def known_class(sha256: str) -> type:
    """The class with that source.

    Raises
    ------
    BundleError
        It was not trusted in this process.
    """
    found = _classes.get(sha256)
    if found is None:
        raise BundleError(
            f"the package holds Python source ({SOURCE_NAME}, sha256 {sha256}), which is not run "
            "unless you trust it: read it, and give trust_code=True to ModelExtension.from_model() "
            "or to geodl.learn.Model()"
        )
    return found


def code_of(parameters: Any) -> str | None:
    """The sha256 of the source that a package needs; None for nearly all."""
    sha = parameters.get(CODE_KEY)
    return sha if isinstance(sha, str) else None


def trust(bundle: Bundle) -> str | None:
    """Run the source of a package, and know its class from now on.

    Returns
    -------
    The sha256 of the source; None where the package has none.

    Raises
    ------
    BundleError
        The source is missing, not the one that the definition states, or cannot be run.
    """
    sha = code_of(bundle.parameters)
    if sha is None or sha in _classes:
        return sha
    source = bundle.checked_file(SOURCE_NAME, sha).decode("utf-8", "replace")
    name = str(bundle.parameters.get(CLASS_KEY))
    module = types.ModuleType(f"geodl_trusted_{sha[:16]}")
    module.__file__ = f"{bundle.where}:{SOURCE_NAME}"
    try:
        # The caller has asked for it by name.
        exec(compile(source, module.__file__, "exec"), module.__dict__)
        found = getattr(module, name)
    except Exception as error:
        raise BundleError(
            f"{bundle.where}: {SOURCE_NAME} cannot be run: {type(error).__name__}: {error}."
        ) from error
    sys.modules[module.__name__] = module
    _classes[sha], _sources[sha] = found, source
    return sha


def trusted_here(sha256: str | None) -> bool:
    """Whether nothing has to be trusted, or it was."""
    return sha256 is None or sha256 in _classes


def _source_of(found: type) -> str:
    """The class's own source, with the imports of its module before it."""
    try:
        own = textwrap.dedent(inspect.getsource(found))
        file = inspect.getsourcefile(found)
    except (OSError, TypeError) as error:
        raise OptionError(
            f"The source of {found.__name__} cannot be found ({error}), so a package could not "
            "hold it; define the class in a .py file and import it."
        ) from error
    imports: list[str] = []
    if file is not None and Path(file).is_file():
        text = Path(file).read_text(encoding="utf-8")
        for node in ast.parse(text).body:
            future = isinstance(node, ast.ImportFrom) and node.module == "__future__"
            if isinstance(node, ast.Import | ast.ImportFrom) and not (future and imports):
                imports.append(ast.get_source_segment(text, node) or "")
    return "\n".join(imports) + "\n\n\n" + own
