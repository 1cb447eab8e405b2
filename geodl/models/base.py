"""The shared face of the models: what every model has, and what networks add."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from matplotlib.figure import Figure
from torch import nn

from geodl.base.errors import ModelDataError, NotSupportedError, OptionError
from geodl.base.options import as_bool, as_int, check_choice, check_known
from geodl.bundle.instantiate import NORM_KEY, apply_norm, instantiate
from geodl.bundle.read import Bundle, read_bundle
from geodl.bundle.weights import load_matching
from geodl.core.classes import ClassTable
from geodl.core.contract import ModelContract, TaskKind
from geodl.models.contracts import check_data_fits, contract_of_data
from geodl.tasks.base import Task
from geodl.train.record import TrainingRecord, plot_losses

# Batch statistics of fewer samples are too noisy to train with.
LEAST_BATCH_FOR_BATCH_NORM = 4


class Model(ABC):
    """What every model has, network or not."""

    dataset_types: ClassVar[tuple[str, ...]]
    """Chip formats the model trains on, by their documented names."""

    @property
    def supported_datasets(self) -> list[str]:
        """Dataset types the model can train on."""
        return list(self.dataset_types)

    @property
    @abstractmethod
    def available_metrics(self) -> list[str]:
        """Names that ``fit(monitor=...)`` takes."""

    @abstractmethod
    def fit(self, *args: Any, **kwargs: Any) -> None:
        """Train."""

    @abstractmethod
    def save(self, name_or_path: str | os.PathLike[str], **kwargs: Any) -> Path:
        """Write the model's package; return its folder."""

    @abstractmethod
    def load(self, name_or_path: str | os.PathLike[str], **kwargs: Any) -> None:
        """Take weights from a package."""


class TorchModel(Model):
    """A model around a torch network and a task.

    A subclass has the documented constructor, which checks its arguments and calls
    :meth:`_setup`; it states its network in :meth:`build`, from plain JSON parameters, so that a
    package builds the same network again without data. Everything else is here: device,
    training, freezing, packages, drawing. GroupNorm for small batches is applied to what
    ``build`` returns, so ``build`` itself uses BatchNorm.
    """

    kind: ClassVar[TaskKind]

    _data: Any
    _contract: ModelContract
    _parameters: dict[str, Any]
    _net: nn.Module
    _task: Task
    _record: TrainingRecord

    @classmethod
    @abstractmethod
    def build(
        cls,
        *,
        classes: ClassTable,
        bands: int,
        tile_px: int,
        parameters: Mapping[str, Any],
        pretrained: bool,
        batch_size: int | None,
    ) -> tuple[nn.Module, Task, bool]:
        """The network, its task, and whether pretrained weights are in its backbone.

        Parameters
        ----------
        classes
            K classes; the network has K + 1 outputs, 0 is background.
        bands
            Of the network's input.
        tile_px
            Side of the training tile.
        parameters
            What ``_setup`` was given: JSON values only.
        pretrained
            Fetch weights for the backbone; never when a package is opened.
        batch_size
            Of training, where known.
        """

    @classmethod
    def emd_keys(cls, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Further top-level keys of the model definition, as documented for this class."""
        return {}

    def score_for_package(self) -> dict[str, Any]:
        """Metrics that ``save(compute_metrics=True)`` puts into the definition, EMD key to value."""
        return {}

    def _setup(
        self,
        data: Any,
        parameters: Mapping[str, Any],
        pretrained_path: str | os.PathLike[str] | None = None,
    ) -> None:
        """Build the network for a data object; the end of every constructor.

        Raises
        ------
        ModelDataError
            Data of another kind, or none.
        """
        check_data_fits(data, type(self).__name__, self.kind, self.dataset_types)
        self._data = data
        self._contract = contract_of_data(data, type(self).__name__, self.kind)
        self._parameters = dict(parameters)
        with torch.random.fork_rng([]):
            torch.manual_seed(data.seed)
            net, task, loaded = self.build(
                classes=self._contract.classes,
                bands=len(self._contract.extract_bands),
                tile_px=self._contract.tile_px,
                parameters=self._parameters,
                pretrained=pretrained_path is None,
                batch_size=data.batch_size,
            )
        if data.batch_size is not None and data.batch_size < LEAST_BATCH_FOR_BATCH_NORM:
            self._parameters[NORM_KEY] = "group_head" if loaded else "group"
            apply_norm(net, self._parameters[NORM_KEY])
        self._take(net, task)
        if pretrained_path is not None:
            loaded = True
            load_matching(self._net, read_bundle(pretrained_path).trained_weights())
        if loaded:
            self._net.backbone.requires_grad_(False)

    def _take(self, net: nn.Module, task: Task) -> None:
        self._net = net.eval()
        self._task = task
        self._record = TrainingRecord()

    # ---- training

    @property
    def available_metrics(self) -> list[str]:
        """Names of the columns of the training table, which ``monitor`` takes."""
        return ["train_loss", "valid_loss", *self._task.metric_names]

    @property
    def _groups(self) -> int:
        return len(self._net.layer_groups())  # type: ignore[operator]

    def _need_data(self, what: str) -> Any:
        if self._data is None:
            raise ModelDataError(
                f"{what} needs data, and this model was opened for inference only; give "
                "from_model(path, data=prepare_data(...))."
            )
        return self._data

    def fit(
        self,
        epochs: int = 10,
        lr: float | slice | None = None,
        one_cycle: bool = True,
        early_stopping: bool = False,
        checkpoint: bool | str = True,
        tensorboard: bool = False,
        monitor: str = "valid_loss",
        **kwargs: Any,
    ) -> None:
        """Train, and print a table of losses and metrics, one line per epoch.

        A later call goes on from where this one ended.

        Parameters
        ----------
        epochs
            Passes over the training set.
        lr
            Learning rate; ``slice(low, high)`` spreads rates over the layers, ``slice(high)``
            gives all but the last ones a tenth; None takes what :meth:`lr_find` suggests.
        one_cycle
            Raise and lower the rate over the fit; False keeps it constant.
        early_stopping
            Stop once ``monitor`` has not improved by 0.001 for 5 epochs.
        checkpoint
            True: the best epoch's weights are in the model at the end; ``"all"``: also every
            epoch is saved in a folder ``checkpoints`` beside the data's models; False: the last
            epoch's weights stay.
        tensorboard
            Write a log in the folder ``training_log`` below the working folder.
        monitor
            One of ``available_metrics``.

        Raises
        ------
        OptionError, UnknownOptionError
            An argument outside its domain, or an unknown one.
        TrainingError
            The loss is no longer finite; the chips are named, the last good weights kept.
        """
        from geodl.models.training import fit_model

        check_known(kwargs, (), "fit()")
        check_choice(monitor, self.available_metrics, "monitor")
        check_choice(checkpoint, (True, False, "all"), "checkpoint")
        data = self._need_data("fit()")
        fit_model(
            self,
            data,
            lr=lr,
            epochs=as_int(epochs, "epochs", minimum=1),
            one_cycle=as_bool(one_cycle, "one_cycle"),
            early_stopping=as_bool(early_stopping, "early_stopping"),
            checkpoint="all" if checkpoint == "all" else bool(checkpoint),
            tensorboard=as_bool(tensorboard, "tensorboard"),
            monitor=monitor,
        )

    def lr_find(self, allow_plot: bool = True) -> float:
        """Look for a good learning rate; weights and random state stay as they are.

        Parameters
        ----------
        allow_plot
            Draw loss against rate with the suggestion, where a notebook can show it.

        Returns
        -------
        The suggested rate.
        """
        from geodl.models.training import find_model_rate

        return find_model_rate(self, self._need_data("lr_find()"), as_bool(allow_plot, "allow_plot"))

    def unfreeze(self) -> None:
        """Make the backbone trainable."""
        self._net.requires_grad_(True)

    def plot_losses(self) -> Figure:
        """Training and validation loss over all epochs so far.

        Raises
        ------
        TrainingError
            Nothing was trained yet.
        """
        return plot_losses(self._record)

    def show_results(self, rows: int = 5, **kwargs: Any) -> Figure:
        """Truth and prediction side by side for some validation chips.

        Parameters
        ----------
        rows
            How many chips.
        **kwargs
            Options of the task's prediction; others are refused.
        """
        from geodl.models.drawing import results_figure

        check_known(kwargs, self._task.predict_defaults, "show_results()")
        data = self._need_data("show_results()")
        return results_figure(
            self._net, self._task, data, self._contract, as_int(rows, "rows", minimum=1), kwargs
        )

    # ---- packages

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
            self,
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
                f"{type(self).__name__} is saved with framework='PyTorch' only, "
                f"not {framework!r}."
            )

    def write_bundle(self, folder: Path) -> Path:
        """Write definition and weights alone into ``folder``, for workers; return the EMD."""
        from geodl.models.packaging import write_definition

        return write_definition(self, folder, type(self).__name__, metrics={})

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
        load_into(self, name_or_path, strict=as_bool(kwargs.get("strict", True), "strict"))

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
        bundle = read_bundle(emd_path)
        bundle.require_class(cls.__name__)
        model = cls.__new__(cls)
        model._restore(bundle, data)
        return model

    @classmethod
    def from_emd(cls, data: Any, emd_path: str | os.PathLike[str]) -> Self:
        """Open a saved model; :meth:`from_model` with its arguments the other way round."""
        return cls.from_model(emd_path, data)

    def _restore(self, bundle: Bundle, data: Any) -> None:
        self._data = data
        self._contract = bundle.contract
        self._parameters = dict(bundle.parameters)
        if data is not None:
            check_data_fits(data, type(self).__name__, self.kind, self.dataset_types, bundle.contract)
        net, task = instantiate(bundle)
        self._take(net, task)
        self._net.backbone.requires_grad_(False)


def one_of_names(value: str | None, default: str, known: Sequence[str], what: str) -> str:
    """``value`` or the default, if it is among ``known``.

    Raises
    ------
    OptionError
        Names the nearest known one.
    """
    if value is not None and not isinstance(value, str):
        raise OptionError(f"{what}={value!r} is not a name.")
    return str(check_choice(value or default, known, what))


__all__ = ["Model", "TorchModel", "one_of_names"]
