"""What the pictures show."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from mnist_exp.datasets import Data
from mnist_exp.figures import confusion_matrix, curves, predictions

HISTORY = {
    "accuracy": [0.4, 0.7, 0.8],
    "loss": [2.0, 1.5, 1.2],
    "val_accuracy": [0.6, 0.75, 0.82],
    "val_loss": [1.7, 1.4, 1.1],
}


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def test_curves_show_loss_and_accuracy_for_training_and_validation() -> None:
    figure = curves(HISTORY, "held out")
    assert [axes.get_title() for axes in figure.axes] == ["loss", "accuracy"]
    for axes, name in zip(figure.axes, ("loss", "accuracy"), strict=True):
        training, validation = axes.get_lines()
        assert np.asarray(training.get_ydata()).tolist() == HISTORY[name]
        assert np.asarray(validation.get_ydata()).tolist() == HISTORY[f"val_{name}"]
        assert np.asarray(training.get_xdata()).tolist() == [1, 2, 3]
        legend = axes.get_legend()
        assert legend is not None
        assert [text.get_text() for text in legend.get_texts()] == ["training", "held out"]


@pytest.mark.parametrize("epochs", [1, 2, 3, 17])
def test_epochs_are_whole_and_values_fill_the_plot(epochs: int) -> None:
    history = {"loss": list(np.linspace(2, 1, epochs)), "val_loss": list(np.linspace(1.9, 0.9, epochs))}
    [axes] = curves(history, "validation").axes
    low, high = axes.get_xlim()
    ticks = [tick for tick in axes.get_xticks() if low <= tick <= high]
    assert ticks == [round(tick) for tick in ticks]
    bottom, top = axes.get_ylim()
    values = history["loss"] + history["val_loss"]
    assert max(values) - min(values) > 0.85 * (top - bottom)


def test_predictions_mark_the_mistakes(mnist: Data) -> None:
    labels = mnist.y_test[:200]
    predicted = labels.copy()
    predicted[[3, 50, 150]] = (predicted[[3, 50, 150]] + 1) % 10  # the last is not among the 96 shown
    figure = predictions(mnist.x_test[:200], labels, predicted)
    assert len(texts(figure)) == 96
    wrong = [text for text in figure.axes[0].texts if text.get_color() == "crimson"]
    assert [text.get_text() for text in wrong] == [f"{predicted[i]} ({labels[i]})" for i in (3, 50)]
    assert len(figure.axes[0].get_lines()) == 2
    assert "2 wrong" in figure.axes[0].get_title()


def test_few_images_and_colour_images(mnist: Data) -> None:
    colour = np.random.default_rng(0).integers(0, 256, (5, 8, 6, 3), np.uint8)
    figure = predictions(colour, mnist.y_test[:5], mnist.y_test[:5])
    [sheet] = figure.axes[0].get_images()
    drawn = np.asarray(sheet.get_array())
    np.testing.assert_array_equal(drawn[:8, :6], colour[0])


def test_the_confusion_matrix_counts() -> None:
    labels = np.array([0, 0, 0, 1, 1, 2])
    predicted = np.array([0, 0, 1, 1, 1, 0])
    figure = confusion_matrix(labels, predicted, 3)
    cells = {text.get_position(): text.get_text() for text in figure.axes[0].texts}
    assert cells == {(0, 0): "2", (1, 0): "1", (1, 1): "2", (0, 2): "1"}  # (predicted, true)
    assert "66.67%" in figure.axes[0].get_title()
