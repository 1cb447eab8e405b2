"""Model: a package for the inferencing tools, and its place in a catalog."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import warnings
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from geodl.base.errors import (
    BundleError,
    DataWarning,
    NotSupportedError,
    OptionError,
    SourceNotFoundError,
)
from geodl.base.options import as_bool, check_known
from geodl.base.places import is_remote, reached
from geodl.bundle.code import trust
from geodl.bundle.read import Bundle, read_bundle
from geodl.catalog.catalog import Catalog
from geodl.catalog.chosen import chosen_catalog
from geodl.catalog.index import ROOT_NAME
from geodl.catalog.items import FACTS_KEY
from geodl.infer.options import known_arguments
from geodl.runtime.future import start
from geodl.tools.label_job import label_defaults

INSTALLED_KEY = "geodl:installed"
_SHA_FACT = "sha256"
# A definition in memory gets a file of this name beside a copy of its weights.
_NAME = "model"


class Model:
    """A model package for the inferencing tools.

    Parameters
    ----------
    model
        The path of an ``.emd``, a ``.dlpk`` or the folder that ``save`` returned; an item of a
        catalog; a definition as a dict or JSON text; or None, filled later by
        :meth:`from_model_path` or :meth:`from_json`.
    trust_code
        Let Python source in the package run, here and on the workers of a run: that of
        ``ModelExtension``.

    Raises
    ------
    OptionError
        Something else.
    SourceNotFoundError
        There is nothing at the path.
    """

    def __init__(self, model: Any = None, *, trust_code: bool = False) -> None:
        self._trust = as_bool(trust_code, "trust_code")
        self._path: Path | None = None
        if model is None:
            return
        if isinstance(model, Mapping) or (
            isinstance(model, str) and model.lstrip().startswith("{")
        ):
            self.from_json(model)
        else:
            self.from_model_path(model)

    def __repr__(self) -> str:
        return f"Model({str(self._path)!r})" if self._path else "Model()"

    def from_json(self, model: Mapping[str, Any] | str) -> None:
        """Take a model definition.

        Parameters
        ----------
        model
            The content of an EMD. ``ModelFile`` is the path of its weights.

        Raises
        ------
        OptionError
            No definition, or one without ``ModelFile``.
        SourceNotFoundError
            There are no weights at ``ModelFile``.
        """
        emd = _as_definition(model)
        named = emd.get("ModelFile")
        if not isinstance(named, str) or not named:
            raise OptionError("The definition has no ModelFile; it names the file of the weights.")
        weights = Path(named.removeprefix(".\\")).expanduser()
        if not weights.is_file():
            raise SourceNotFoundError(
                f"There are no weights at {weights}; give ModelFile as a path, or use "
                "from_model_path() with the EMD's own."
            )
        place = Path(tempfile.mkdtemp(prefix="geodl-definition-"))
        weakref.finalize(self, shutil.rmtree, place, ignore_errors=True)
        shutil.copyfile(weights, place / weights.name)
        text = json.dumps({**emd, "ModelFile": weights.name}, allow_nan=False)
        (place / f"{_NAME}.emd").write_text(text, encoding="utf-8")
        self._path = place / f"{_NAME}.emd"

    def from_model_path(self, model: Any) -> None:
        """Take a package.

        Parameters
        ----------
        model
            Path of an ``.emd``, a ``.dlpk`` or a saved folder, or an item of a catalog.

        Raises
        ------
        NotSupportedError
            The URL of a portal's item, or of an object store.
        SourceNotFoundError
            There is nothing at the path.
        OptionError
            Something else.
        """
        if hasattr(model, "assets") and "data" in model.assets:
            model = model.assets["data"].href
        if not isinstance(model, str | os.PathLike):
            raise OptionError(
                f"A {type(model).__name__} is no model package; give the path of an .emd, a .dlpk "
                "or a saved folder, or an item of a catalog."
            )
        if is_remote(os.fspath(model)):
            raise NotSupportedError(
                f"{os.fspath(model)} is not on this machine; download the .dlpk and give its path."
            )
        path = Path(model).expanduser().absolute()
        if not path.exists():
            raise SourceNotFoundError(f"There is no model at {path}.")
        self._path = path

    @property
    def package_path(self) -> Path:
        """Where the package lies.

        Raises
        ------
        OptionError
            The model is empty.
        """
        if self._path is None:
            raise OptionError("This Model is empty; fill it with from_model_path() or from_json().")
        if self._trust:
            trust(read_bundle(self._path, verify=False))
            self._trust = False
        return self._path

    def _bundle(self) -> Bundle:
        return read_bundle(self.package_path)

    def install(self, *, gis: Any = None, future: bool = False, **kwargs: Any) -> Any:
        """Put the package into a catalog, where :func:`list_models` finds it.

        Parameters
        ----------
        gis
            A :class:`geodl.Catalog`; None takes the one that ``GEODL_CATALOG`` names.
        future
            Return a future at once.

        Returns
        -------
        Path of the installed package.

        Raises
        ------
        OptionError
            No catalog.
        BundleError
            A package that is refused.
        """
        check_known(kwargs, (), "install()")

        def work() -> str:
            catalog, bundle = chosen_catalog(gis, "install()"), self._bundle()
            found = _item_of(catalog, bundle)
            item = catalog.add(self.package_path) if found is None else catalog.get(found)
            return str(catalog.update(item.id, {INSTALLED_KEY: True}).assets["data"].href)

        return _now_or_later(work, future)

    def query_info(self, *, gis: Any = None, future: bool = False, **kwargs: Any) -> Any:
        """What the model is, takes and gives.

        Parameters
        ----------
        gis
            Not needed; the package itself is read.
        future
            Return a future at once.

        Returns
        -------
        dict with ``model_name``, ``kind``, ``classes``, ``extract_bands``, ``band_names``,
        ``tile_px``, ``cell_size``, ``parameters``, ``metrics``, ``arguments`` (those of the
        inferencing tools) and ``sha256``.

        Raises
        ------
        BundleError
            A package that is refused.
        """
        check_known(kwargs, (), "query_info()")
        return _now_or_later(self._info, future)

    def _info(self) -> dict[str, Any]:
        bundle = self._bundle()
        return {
            **bundle.contract.describe(),
            "parameters": dict(bundle.parameters),
            "metrics": dict(bundle.metrics),
            "arguments": _arguments(bundle),
            "sha256": bundle.sha256,
            "foreign": bundle.foreign,
            "path": str(self.package_path),
        }

    def uninstall(self, *, gis: Any = None, future: bool = False, **kwargs: Any) -> Any:
        """Take the model off the list of a catalog; its item stays.

        Parameters
        ----------
        gis
            A :class:`geodl.Catalog`; None takes the one that ``GEODL_CATALOG`` names.
        future
            Return a future at once.

        Returns
        -------
        Id of the item.

        Raises
        ------
        SourceNotFoundError
            The model is not in the catalog.
        """
        check_known(kwargs, (), "uninstall()")

        def work() -> str:
            catalog = chosen_catalog(gis, "uninstall()")
            found = _item_of(catalog, self._bundle())
            if found is None:
                raise SourceNotFoundError(
                    f"The model {self.package_path} is not in the catalog {catalog.root}."
                )
            return str(catalog.update(found, {INSTALLED_KEY: False}).id)

        return _now_or_later(work, future)


def list_models(*, gis: Any = None, future: bool = False, **kwargs: Any) -> Any:
    """Models in a catalog that the inferencing tools can use.

    Parameters
    ----------
    gis
        A :class:`geodl.Catalog`; None takes the one that ``GEODL_CATALOG`` names.
    future
        Return a future at once.

    Returns
    -------
    list of :class:`Model`, by id; those that were uninstalled are left out. Empty, with a warning,
    where there is no catalog yet.

    Raises
    ------
    OptionError
        No catalog.
    """
    check_known(kwargs, (), "list_models()")

    def work() -> list[Model]:
        catalog = chosen_catalog(gis, "list_models()")
        items = catalog.search(kind="model")
        # It is written with the first item.
        if not items and not reached(catalog.root, (catalog.root / ROOT_NAME).exists):
            warnings.warn(
                f"There is no catalog at {catalog.root}; check its path. It is made when the first "
                "product or model is published.",
                DataWarning,
                stacklevel=3,
            )
        return [Model(item) for item in items if item.properties.get(INSTALLED_KEY) is not False]

    return _now_or_later(work, future)


def _as_definition(model: Mapping[str, Any] | str) -> dict[str, Any]:
    if isinstance(model, str):
        try:
            model = json.loads(model)
        except ValueError as error:
            raise OptionError(f"The definition is no JSON: {error}.") from error
    if not isinstance(model, Mapping):
        raise OptionError(f"A {type(model).__name__} is no model definition; give a dict.")
    return dict(model)


def _item_of(catalog: Catalog, bundle: Bundle) -> str | None:
    """Id of the item that holds the same model, whatever its package is called."""
    for item in catalog.search(kind="model"):
        if item.properties.get(FACTS_KEY, {}).get(_SHA_FACT) == bundle.sha256:
            return str(item.id)
    return None


def _arguments(bundle: Bundle) -> list[str]:
    """Names of the ``model_arguments`` that the tools take for a model."""
    try:
        bundle.require_own()
    except BundleError:
        return []
    if bundle.contract.chip is not None:
        return list(
            label_defaults(
                bool(bundle.parameters.get("multilabel")), "cpu", bundle.contract.tile_px
            )
        )
    return known_arguments(bundle.contract)


def _now_or_later(work: Callable[[], Any], future: bool) -> Any:
    return start(lambda _: work()) if as_bool(future, "future") else work()
