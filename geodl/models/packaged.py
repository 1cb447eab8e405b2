"""The packages of a network model: save, load, from_model."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

from geodl.base.errors import NotSupportedError
from geodl.base.options import as_bool, check_choice, check_known
from geodl.bundle.read import read_bundle

if TYPE_CHECKING:
    from geodl.models.base import TorchModel


class Packaged:
    """What :class:`geodl.models.base.TorchModel` has to do with packages; no use without it."""

    @classmethod
    def emd_keys(cls, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Further top-level keys of the model definition, as documented for this class."""
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
            data's ``models`` folder.
        framework
            ``"PyTorch"``; what else the model's class offers.
        publish, gis
            Publishing to a portal is not offered.
        compute_metrics
            Score the validation set and store the metrics.
        save_optimizer
            Also store the optimiser's moments, for more training after ``load``.
        save_inference_file
            Also store a Python raster function where the model has one.
        **kwargs
            ``overwrite`` and ``batch_size`` belong to publishing and other frameworks.

        Returns
        -------
        The folder.

        Raises
        ------
        NotSupportedError
            Another framework or publishing; names the choice that works.
        OutputError
            The folder cannot be written.
        """
        from geodl.models.packaging import save_model

        check_known(kwargs, ("overwrite", "batch_size"), "save()")
        as_bool(save_inference_file, "save_inference_file")
        if as_bool(publish, "publish") or gis is not None:
            raise NotSupportedError(
                "save(publish=True) uploads to a portal, which is not offered; share the .dlpk "
                "file that save() writes."
            )
        self._check_framework(framework)
        return save_model(
            cast("TorchModel", self),
            name_or_path,
            compute_metrics=as_bool(compute_metrics, "compute_metrics"),
            save_optimizer=as_bool(save_optimizer, "save_optimizer"),
        )

    def _check_framework(self, framework: str) -> None:
        check_choice(
            framework, ("PyTorch", "tflite", "torchscript", "TF-ONNX", "TF-ONXX"), "framework"
        )
        if framework != "PyTorch":
            raise NotSupportedError(
                f"{type(self).__name__} is saved with framework='PyTorch' only, not {framework!r}."
            )

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
