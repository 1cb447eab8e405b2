"""What all pixel classifiers take besides their network: the options of the loss."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from geodl.base.errors import OptionError
from geodl.base.options import as_bool, as_int, check_known
from geodl.models.pixel_scores import balancing_weights
from geodl.tasks.pixels import PixelTask

# The caller says class_balancing; the weights are then measured on the data.
_DERIVED = "class_weights"
PIXEL_KEYWORDS = (
    "class_balancing", *(name for name in PixelTask.option_defaults if name != _DERIVED)
)  # fmt: skip


def loss_parameters(
    model: type, data: Any, given: Mapping[str, Any], own: Collection[str] = ()
) -> dict[str, Any]:
    """The documented keywords of a pixel classifier as parameters of its package.

    Parameters
    ----------
    model
        The class, for messages.
    given
        Keywords of the constructor: ``class_balancing``, ``mixup``, ``focal_loss``,
        ``dice_loss_fraction``, ``dice_loss_average``, ``ignore_classes``, and those in ``own``.
    own
        Keywords that only this model has; they are not in the answer.

    Raises
    ------
    UnknownOptionError
        Another keyword.
    """
    check_known(given, (*PIXEL_KEYWORDS, *own), model.__name__, of=model)
    options = PIXEL_KEYWORDS[1:]
    parameters = {name: given[name] for name in options if name in given}
    if as_bool(given.get("class_balancing", False), "class_balancing"):
        parameters[_DERIVED] = balancing_weights(data, given.get("ignore_classes") or ())
    return parameters


def task_options(parameters: Mapping[str, Any], own: Collection[str]) -> dict[str, Any]:
    """The parameters but those of the network, which ``own`` names."""
    return {name: value for name, value in parameters.items() if name not in own}


def refuse_more(args: Sequence[Any], model_name: str) -> None:
    """Positional arguments without a documented meaning are an OptionError."""
    if args:
        raise OptionError(f"{model_name} has no meaning for the further arguments {args!r}.")


def pooling_sizes(value: Any) -> list[int]:
    """Sides of the grids of a pyramid pooling.

    Raises
    ------
    OptionError
        No list of numbers from 1 on.
    """
    if isinstance(value, str | int) or not value:
        raise OptionError(f"pyramid_sizes={value!r}: give a list of sizes, such as [1, 2, 3, 6].")
    return [as_int(size, "pyramid_sizes", minimum=1) for size in value]


def ignored_classes(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The definition's key for the classes that take no part."""
    return {"ignore_mapped_class": list(parameters.get("ignore_classes") or ())}
