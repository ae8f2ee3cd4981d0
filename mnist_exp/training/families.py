"""Declare the kinds of models, each a class with the keys of its conf/model/ file.

To add a kind, write a class, its name in `FAMILIES`, and a file in conf/model/.
"""

from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

from mnist_exp.config.conversion import KerasName
from mnist_exp.config.own_code import own_choices
from mnist_exp.config.values import Activation, Count, Counts, DropoutRate


@dataclass(frozen=True, kw_only=True)
class Model:
    """The base of all kinds of model.

    `preprocessing` is the kind that a model needs, or None for any.
    """

    kind: str
    preprocessing: ClassVar[Literal["flatten", "image"] | None] = None

    def hidden_layers(self) -> list[Any]:
        """Return the layers before the output: `Name`, `{Name: arguments}` or functions."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Linear(Model):
    """Softmax regression."""

    kind: Literal["linear"]
    preprocessing = "flatten"

    def hidden_layers(self) -> list[Any]:
        """Return no layer."""
        return []


@dataclass(frozen=True, kw_only=True)
class MLP(Model):
    """A multilayer perceptron."""

    kind: Literal["mlp"]
    hidden: Count | Counts
    activation: Activation
    dropout: DropoutRate
    preprocessing = "flatten"

    def hidden_layers(self) -> list[Any]:
        """Return a dense layer for each number in `hidden`.

        >>> MLP(kind="mlp", hidden=16, activation="sigmoid", dropout=0.0).hidden_layers()
        [{'Dense': {'units': 16, 'activation': 'sigmoid'}}]
        """
        return _dense(self.hidden, self.activation, self.dropout)


@dataclass(frozen=True, kw_only=True)
class CNN(Model):
    """A convolutional network."""

    kind: Literal["cnn"]
    filters: Count | Counts
    kernel_size: Count
    hidden: Count | Counts
    activation: Activation
    dropout: DropoutRate
    preprocessing = "image"

    def hidden_layers(self) -> list[Any]:
        """Return a convolution with 2 by 2 max pooling for each filter, then dense layers."""
        convolution = {"kernel_size": self.kernel_size, "padding": "same", "activation": self.activation}
        convolutions = [
            spec
            for filters in _as_list(self.filters)
            for spec in ({"Conv2D": {"filters": filters, **convolution}}, "MaxPooling2D")
        ]
        return [*convolutions, "Flatten", *_dense(self.hidden, self.activation, self.dropout)]


@dataclass(frozen=True, kw_only=True)
class Layers(Model):
    """Any list of layers and blocks of layers."""

    kind: Literal["layers"]
    layers: list[Annotated[Any, KerasName("layers")]]

    def hidden_layers(self) -> list[Any]:
        """Return the layers as configured."""
        return self.layers


FAMILIES = (Linear, MLP, CNN, Layers)


@dataclass(frozen=True, kw_only=True)
class OwnModel(Model):
    """A function with `@mnist_exp.model` in the user's file.

    Its arguments after the first are the keys.
    """

    def hidden_layers(self) -> list[Any]:
        """Return the function with its keys."""
        from mnist_exp.config.own_code import call

        return [partial(call, "model", self)]


def families() -> list[type[Model]]:
    """Return the kinds that can be chosen, the user's own included."""
    return [*FAMILIES, *own_choices("model", OwnModel)]


def _dense(hidden: int | list[int], activation: str, dropout: float) -> list[Any]:
    layers: list[Any] = []
    for units in _as_list(hidden):
        layers.append({"Dense": {"units": units, "activation": activation}})
        if dropout:
            layers.append({"Dropout": {"rate": dropout}})
    return layers


def _as_list(numbers: int | list[int]) -> list[int]:
    return [numbers] if isinstance(numbers, int) else numbers
