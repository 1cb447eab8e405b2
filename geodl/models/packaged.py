"""The packages of a network model: save, load, from_model."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast

from geodl.base.errors import NotSupportedError
from geodl.base.options import as_bool, check_choice, check_known
from geodl.bundle.read import read_bundle

if TYPE_CHECKING:
    from geodl.models.base import TorchModel

FRAMEWORKS = ("PyTorch", "torchscript", "ONNX", "TF-ONNX", "TF-ONXX", "tflite")


class Packaged:
    """What :class:`geodl.models.base.TorchModel` has to do with packages; no use without it."""

    frameworks: ClassVar[tuple[str, ...]] = ("PyTorch",)
    """What :meth:`save` writes for, of ``FRAMEWORKS``."""

    @classmethod
    def emd_keys(cls, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Further top-level keys of the model definition, as documented for this class."""
        return {}

    @classmethod
    def parameter_keys(cls, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Further documented keys of ``ModelParameters``, which :meth:`build` leaves aside."""
        return {}

    def package_files(self) -> dict[str, bytes]:
        """Further files that the package cannot do without, by name."""
        return {}

    def score_for_package(self) -> dict[str, Any]:
        """Metrics for the definition, EMD key to value; what ``compute_metrics`` asks for."""
        return {}

    def save(
        self,
        name_or_path: str | os.PathLike[str],
        framework: str = "PyTorch",
        publish: bool = False,
        gis: Any = None,
        compute_metrics: bool = True,
        save_optimizer: bool = False,
        save_inference_file: bool = True,
        **kwargs: Any,
    ) -> Path:
        """Write the model's package: definition, weights, report and a ``.dlpk`` of them.

        Parameters
        ----------
        name_or_path
            A folder to write, whose last part is the model's name; a bare name goes below the
            data's ``models`` folder. ``m.dlpk`` and ``m.emd`` mean the folder ``m``, which holds
            these files.
        framework
            ``"PyTorch"``. Detectors and classifiers of pixels and images also write
            ``"torchscript"`` or ``"ONNX"`` (``"TF-ONNX"`` means that too) into the package: a
            function of the raw pixels of one tile that runs without geodl.
        publish, gis
            Also publish the package in the catalog ``gis``, a :class:`geodl.Catalog`; None takes
            the one that ``GEODL_CATALOG`` names.
        compute_metrics
            Score the validation set and store the metrics.
        save_optimizer
            Also store the optimiser's moments, for more training after ``load``.
        save_inference_file
            Also store the Python raster function by which ArcGIS Pro, with geodl installed in its
            Python, runs the model; there is one for models of pixels, objects, instances and chips.
        **kwargs
            ``overwrite``: replace a published item of that name. ``batch_size`` belongs to other
            frameworks.

        Returns
        -------
        The folder.

        Raises
        ------
        NotSupportedError
            Another framework; names the choice that works.
        OptionError
            ``publish`` without a catalog.
        OutputError
            The folder cannot be written.
        """
        from geodl.models.packaging import save_model

        check_known(kwargs, ("overwrite", "batch_size"), "save()", of=self.save)
        catalog = None
        if as_bool(publish, "publish"):
            from geodl.catalog.chosen import chosen_catalog

            catalog = chosen_catalog(gis, "save(publish=True)")
        self._check_framework(framework)
        folder = save_model(
            cast("TorchModel", self),
            name_or_path,
            framework=framework,
            compute_metrics=as_bool(compute_metrics, "compute_metrics"),
            save_optimizer=as_bool(save_optimizer, "save_optimizer"),
            save_inference_file=as_bool(save_inference_file, "save_inference_file"),
        )
        if catalog is not None:
            replace = as_bool(kwargs.get("overwrite", False), "overwrite")
            catalog.add(folder, id=folder.name, overwrite=replace)
        return folder

    def _check_framework(self, framework: str) -> None:
        check_choice(framework, FRAMEWORKS, "framework")
        if framework not in self.frameworks:
            offered = ", ".join(map(repr, self.frameworks))
            raise NotSupportedError(
                f"{type(self).__name__} is saved with framework={offered} only, not {framework!r}."
            )

    def exported(self, framework: str) -> dict[str, bytes]:
        """What another framework adds to the package: content by the file's suffix."""
        return {}

    def write_bundle(self, folder: Path) -> Path:
        """Write definition and weights alone into a folder in ``folder``; return the EMD."""
        from geodl.models.packaging import write_definition

        name = type(self).__name__
        return write_definition(cast("TorchModel", self), folder / name, name)

    def load(self, name_or_path: str | os.PathLike[str], **kwargs: Any) -> None:
        """Take the weights of a saved model of the same class.

        Parameters
        ----------
        name_or_path
            Path of an ``.emd``, a ``.dlpk`` or a saved folder, or a name below the data's
            ``models`` folder.
        **kwargs
            ``strict`` (True): demand that all weights match; False takes those that do.

        Raises
        ------
        BundleError
            A package that is corrupt, foreign, or whose weights do not fit.
        """
        from geodl.models.packaging import load_into

        check_known(kwargs, ("strict",), "load()")
        load_into(
            cast("TorchModel", self),
            name_or_path,
            strict=as_bool(kwargs.get("strict", True), "strict"),
        )

    @classmethod
    def from_model(cls, emd_path: str | os.PathLike[str], data: Any = None) -> Self:
        """Open a saved model.

        Parameters
        ----------
        emd_path
            Path of an ``.emd``, a ``.dlpk`` or a saved folder.
        data
            For more training; None opens it for inference only.

        Raises
        ------
        BundleError
            A package that is corrupt or foreign, or of another class.
        ModelDataError
            Classes or bands of ``data`` differ from the model's.
        """
        bundle = read_bundle(emd_path, verify=False)
        bundle.require_class(cls.__name__)
        model = cls.__new__(cls)
        model._restore(bundle, data)  # type: ignore[attr-defined]
        return model

    @classmethod
    def from_emd(cls, data: Any, emd_path: str | os.PathLike[str]) -> Self:
        """Open a saved model; :meth:`from_model` with its arguments the other way round."""
        return cls.from_model(emd_path, data)
