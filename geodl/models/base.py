"""What networks add to a model: building, training, freezing, drawing."""

from __future__ import annotations

import os
import warnings
from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from matplotlib.figure import Figure
from torch import nn

from geodl.base.errors import DataWarning, ModelDataError
from geodl.base.options import as_bool, as_int, check_choice, check_known
from geodl.bundle.instantiate import NORM_KEY, apply_norm, instantiate
from geodl.bundle.read import Bundle, read_bundle
from geodl.bundle.weights import load_matching
from geodl.core.classes import ClassTable
from geodl.core.contract import ModelContract, TaskKind
from geodl.data.figure import ShownFigure, show
from geodl.models.contracts import check_data_fits, contract_of_data, data_for_contract
from geodl.models.model import Model
from geodl.models.packaged import Packaged
from geodl.tasks.base import Meter, Task
from geodl.train.record import TrainingRecord, draw_losses

if TYPE_CHECKING:
    from geodl.train.evaluate import Evaluation

# Batch statistics of fewer samples are too noisy to train with.
LEAST_BATCH_FOR_BATCH_NORM = 4


class TorchModel(Packaged, Model):
    """A model around a torch network and a task.

    A subclass has the documented constructor, which checks its arguments and calls
    :meth:`_setup`; it states its network in :meth:`build`, from plain JSON parameters, so that a
    package builds the same network again without data. Everything else is here: device,
    training, freezing, packages, drawing. GroupNorm for small batches is applied to what
    ``build`` returns, so ``build`` itself uses BatchNorm.
    """

    kind: ClassVar[TaskKind]
    variable_tile: ClassVar[bool] = True
    """Whether the network takes tiles of other sizes than it was trained on."""
    images: ClassVar[int] = 1
    """How many images of the same ground the network takes, as one stack of bands."""
    norm_counts_items: ClassVar[bool] = True
    """Whether batch statistics of few items are poor; those over points are not."""
    fit_keywords: ClassVar[tuple[str, ...]] = ()
    """Further keywords of ``fit``: ``iters_per_epoch``."""
    keywords: ClassVar[tuple[str, ...]] = ()
    """What the constructor takes as ``**kwargs``; it refuses others by name."""
    raster_arguments: ClassVar[Mapping[str, Any] | None] = None
    """``model_arguments`` with their defaults of a model that tells one thing from background."""
    gives_lines: ClassVar[bool] = False
    """Whether what it finds are lines, which features of it then follow."""

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
        self._contract = contract_of_data(data, type(self).__name__, self.kind, self.variable_tile)
        self._parameters = dict(parameters)
        package = None if pretrained_path is None else read_bundle(pretrained_path, verify=False)
        with torch.random.fork_rng([]):
            torch.manual_seed(data.seed)
            net, task, loaded = self.build(
                classes=self._contract.classes,
                bands=self._contract.inputs,
                tile_px=self._contract.tile_px,
                parameters=self._parameters,
                pretrained=package is None,
                batch_size=data.batch_size,
            )
        small = data.batch_size is not None and data.batch_size < LEAST_BATCH_FOR_BATCH_NORM
        # Weights work only with the normalisation that they were trained with.
        norm = package.parameters.get(NORM_KEY) if package is not None else None
        if norm is None and small and self.norm_counts_items:
            norm = "group_head" if loaded or package is not None else "group"
        if norm is not None:
            self._parameters[NORM_KEY] = norm
            apply_norm(net, norm)
        self._take(net, task)
        if package is not None:
            loaded = self._start_from(package)
        if loaded:
            self._net.backbone.requires_grad_(False)

    def _start_from(self, package: Bundle) -> bool:
        """Take what fits of a package's weights; whether that is the whole backbone."""
        left = set(load_matching(self._net, package.trained_weights()))
        backbone = {id(p) for p in self._net.get_submodule("backbone").parameters()}
        other = [n for n, p in self._net.named_parameters() if id(p) in backbone and n in left]
        if other:
            warnings.warn(
                f"{package.where}: {len(other)} weights of the backbone do not fit, {other[0]!r} "
                f"first, and start at random; the backbone is left unfrozen. The package has the "
                f"backbone {package.parameters.get('backbone')!r} on {package.contract.inputs} "
                "bands.",
                DataWarning,
                stacklevel=4,
            )
        return not other

    def _take(self, net: nn.Module, task: Task) -> None:
        self._net = net.eval()
        self._task = task
        self._record = TrainingRecord()

    def __repr__(self) -> str:
        contract, rows = self._contract, self._record.rows
        classes = ", ".join(f"{e.value} {e.name}" for e in contract.classes) or "none"
        trained = f"{len(rows)} epochs" if rows else "not in this session"
        if rows:
            trained += f", valid_loss {rows[-1]['valid_loss']:.4f} in the last"
        data = "none: for inference only" if self._data is None else str(self._data.path)
        lines = [
            f"{type(self).__name__} of {self.kind}",
            f"  classes  {classes}",
            f"  input    {contract.input_text()}",
            f"  trained  {trained}",
            f"  data     {data}",
        ]
        return "\n".join(lines)

    # ---- training

    @property
    def available_metrics(self) -> list[str]:
        """Names of the columns of the training table, which ``monitor`` takes."""
        return ["train_loss", "valid_loss", *self._task.metric_names]

    @property
    def data(self) -> Any:
        """The data object, or None in a model that was opened for inference only."""
        return self._data

    @property
    def net(self) -> nn.Module:
        """The plain torch network."""
        return self._net

    @property
    def task(self) -> Task:
        """What turns the network's outputs into losses, scores and predictions."""
        return self._task

    @property
    def contract(self) -> ModelContract:
        """What the model demands of rasters, and its classes."""
        return self._contract

    @property
    def parameters(self) -> Mapping[str, Any]:
        """Plain values that build the network again."""
        return self._parameters

    @property
    def record(self) -> TrainingRecord:
        """The history of training."""
        return self._record

    def _score(self, *, meter: Meter | None = None, progress: bool = False) -> Evaluation:
        """Run the validation set through the network."""
        from geodl.train.device import net_device
        from geodl.train.evaluate import evaluate

        data = self._need_data("Scoring")
        loader = data.valid_loader(self._task.collate)
        return evaluate(
            self._net, self._task, loader, net_device(self._net), meter=meter, progress=progress
        )

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
            One of ``available_metrics``. The validation loss decides among epochs where it is
            undefined; the training loss, with a warning, where no validation chip holds a label.

        Raises
        ------
        OptionError, UnknownOptionError
            An argument outside its domain, or an unknown one.
        TrainingError
            The loss is no longer finite; the chips are named, the last good weights kept.
        """
        from geodl.models.training import fit_model

        check_known(kwargs, self.fit_keywords, "fit()", of=self.fit)
        iterations = kwargs.get("iters_per_epoch")
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
            iterations=None
            if iterations is None
            else as_int(iterations, "iters_per_epoch", minimum=1),
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

        return find_model_rate(
            self, self._need_data("lr_find()"), as_bool(allow_plot, "allow_plot")
        )

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
        return show(draw_losses(self._record))

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

        check_known(kwargs, self._task.predict_defaults, "show_results()", of=self.show_results)
        data = self._need_data("show_results()")
        count = as_int(rows, "rows", minimum=1)
        return show(results_figure(self._net, self._task, data, self._contract, count, kwargs))

    def results_picture(self, rows: int) -> ShownFigure:
        """The picture of results that a package holds."""
        from geodl.models.drawing import results_figure

        return results_figure(self._net, self._task, self._data, self._contract, rows, {})

    def _restore(self, bundle: Bundle, data: Any) -> None:
        """Become the model of a package; the end of ``from_model``."""
        self._data = data
        self._contract = bundle.contract
        self._parameters = dict(bundle.parameters)
        if data is not None:
            check_data_fits(data, type(self).__name__, self.kind, self.dataset_types)
            self._data = data_for_contract(data, bundle.contract)
        net, task = instantiate(bundle)
        self._take(net, task)
        self._net.backbone.requires_grad_(False)
