"""What the pictures show."""

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from mnist_exp.data.datasets import Data
from mnist_exp.figures import ImageGrid, curves, draw_predictions, epoch_ticks, image, predictions, samples, to_uint8
from mnist_exp.tracking.run_figures import classes, confusion_matrix, draw_run, mistakes

pytestmark = pytest.mark.fast

HISTORY = {
    "accuracy": [0.4, 0.7, 0.8],
    "loss": [2.0, 1.5, 1.2],
    "val_accuracy": [0.6, 0.75, 0.82],
    "val_loss": [1.7, 1.4, 1.1],
}


def test_curves_show_training_and_validation() -> None:
    figure = curves(HISTORY, "held out")
    assert [axes.get_title() for axes in figure.axes] == ["loss", "accuracy"]
    for axes, name in zip(figure.axes, ("loss", "accuracy"), strict=True):
        assert axes.get_xticks().tolist() == [1, 2, 3]
        training, validation = axes.get_lines()
        assert np.asarray(training.get_ydata()).tolist() == HISTORY[name]
        assert np.asarray(validation.get_ydata()).tolist() == HISTORY[f"val_{name}"]
        assert np.asarray(training.get_xdata()).tolist() == [1, 2, 3]
        legend = axes.get_legend()
        assert legend is not None
        assert [text.get_text() for text in legend.get_texts()] == ["training", "held out"]
    rate = curves(HISTORY | {"learning_rate": [0.1, 0.1, 0.01]}, "held out").axes[2]
    assert rate.get_title() == "learning rate"
    assert np.asarray(rate.get_lines()[0].get_ydata()).tolist() == [0.1, 0.1, 0.01]


@pytest.mark.parametrize(
    ("epochs", "ticks"),
    [
        (1, [1]),
        (20, list(range(1, 21))),
        (21, [1, *range(2, 21, 2)]),
        (1000, [1, *range(100, 1001, 100)]),
    ],
)
def test_each_of_few_epochs_has_a_tick_and_of_many_the_first(epochs: int, ticks: list[int]) -> None:
    axes: Axes = Figure().subplots()
    axes.plot(range(1, epochs + 1), range(epochs))
    epoch_ticks(axes, epochs)
    assert axes.get_xticks().tolist() == ticks


def test_predictions_mark_the_mistakes(mnist: Data) -> None:
    labels = mnist.y_test[:200]
    predicted = labels.copy()
    predicted[[3, 50, 150]] = (predicted[[3, 50, 150]] + 1) % 10  # the last is not among the 96 shown
    sheet = predictions(mnist.x_test[:200], labels, predicted, mnist.names)
    assert len(sheet.captions) == len(sheet.images) == 96
    assert np.flatnonzero(sheet.framed).tolist() == [3, 50]
    assert [sheet.captions[i] for i in (0, 3, 50)] == ["7", *(f"{predicted[i]} ({labels[i]})" for i in (3, 50))]
    assert "2 wrong" in sheet.title


def test_the_surest_mistakes_come_first(mnist: Data) -> None:
    labels, names = np.array([0, 1, 1, 0, 1]), ["cat", "$dog$"]
    sure_of_cat = np.array([0.9, 0.6, 0.3, 0.2, 0.99], np.float32)
    sheet = mistakes(mnist.x_test[:5], labels, np.stack([sure_of_cat, 1 - sure_of_cat], axis=1), names)
    assert sheet.captions == ["cat 0.990\n($dog$)", "$dog$ 0.800\n(cat)", "cat 0.600\n($dog$)"]
    assert sheet.title.startswith("All mistakes on 5 test images")
    np.testing.assert_array_equal(sheet.images, mnist.x_test[[4, 3, 1]])


def test_at_most_forty_mistakes_are_drawn(mnist: Data) -> None:
    right = np.eye(10, dtype=np.float32)[mnist.y_test]
    drawn = draw_run(HISTORY, mnist, right)
    assert set(drawn) == {"curves", "predictions", "confusion_matrix", "classes"}
    drawn = draw_run(HISTORY, mnist, np.roll(right, 1, axis=1))
    sheet = drawn["mistakes"]
    assert isinstance(sheet, ImageGrid)
    assert len(sheet.captions) == len(sheet.images) == 40
    assert sheet.title.startswith("The 40 surest of 10000 mistakes")


def test_classes_are_drawn_with_their_accuracy_the_worst_first() -> None:
    labels, predicted = np.array([0, 0, 0, 0, 1, 1, 2]), np.array([0, 0, 0, 1, 0, 1, 2])
    [axes] = classes(labels, predicted, ["a", "b", "c"]).axes
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["b", "a", "c"]
    assert [bar.get_width() for bar in axes.patches if isinstance(bar, Rectangle)] == [0.5, 0.75, 1]
    assert [text.get_text() for text in axes.texts] == ["50.0% of 2", "75.0% of 4", "100.0% of 1"]
    assert "71.43%" in axes.get_xlabel()
    many = np.arange(500)
    [axes] = classes(many, np.where(many == 77, 0, many), [str(label) for label in many]).axes
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["77", *map(str, range(19))]
    assert axes.get_title().endswith("the worst 20 of 500 classes")


def test_a_sheet_frames_wrong_images_above_their_captions(mnist: Data) -> None:
    drawn = np.asarray(
        ImageGrid(mnist.x_test[:3], ["7", "2", "1\n(0)"], "Three", columns=2, framed=(False, True, False)).draw()
    )
    assert drawn.shape == (42 + 2 * (470 + 36), 1080, 3)
    white, crimson = [255, 255, 255], [220, 20, 60]
    assert (drawn[:42] != white).any()
    for index, (left, top) in enumerate([(35, 42), (575, 42), (35, 548)]):
        pixels = drawn[top + 8 : top + 470 : 17, left + 8 : left + 470 : 17].mean(axis=2)  # one of each, nearly
        np.testing.assert_array_equal(pixels, 255 - mnist.x_test[index])
        assert (drawn[top + 471 : top + 506, left : left + 470] != white).any()
        assert (drawn[top, left] == (crimson if index == 1 else white)).all()
    assert (drawn[548:, 540:] == white).all()


def test_the_confusion_matrix_counts() -> None:
    labels = np.array([0, 0, 0, 1, 1, 2])
    predicted = np.array([0, 0, 1, 1, 1, 0])
    figure = confusion_matrix(labels, predicted, ["0", "1", "2"])
    cells = {text.get_position(): text.get_text() for text in figure.axes[0].texts}
    assert cells == {(0, 0): "2", (1, 0): "1", (1, 1): "2", (0, 2): "1"}  # (predicted, true)
    assert "66.67%" in figure.axes[0].get_title()


def test_names_of_classes_stand_where_their_numbers_would(mnist: Data) -> None:
    names = ["cat", "a dog with a very long name", "$x_1$"]
    labels, predicted = np.array([0, 1, 2, 2]), np.array([0, 1, 2, 1])
    [axes, _] = confusion_matrix(labels, predicted, names).axes
    short = ["cat", "a dog with a ve…", r"\$x_1\$"]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == short
    assert [tick.get_text() for tick in axes.get_yticklabels()] == short
    sheet = predictions(mnist.x_test[:4], labels, predicted, names)
    assert sheet.captions == ["cat", "a dog with …", "$x_1$", "a dog with …\n($x_1$)"]
    rows = samples(mnist.x_test[:4], labels, names).axes[0]
    assert [tick.get_text() for tick in rows.get_yticklabels()] == short
    [label] = image(mnist.x_train[0], "cat").axes[0].texts
    assert label.get_text() == "cat"


def test_raw_images_of_any_scale_and_channels_become_bytes() -> None:
    raw = np.random.default_rng(0).integers(0, 256, (3, 12, 10, 4), np.uint8)
    np.testing.assert_array_equal(to_uint8(raw), raw[..., :3])
    np.testing.assert_array_equal(to_uint8(raw[..., :2]), raw[..., :1])
    np.testing.assert_array_equal(to_uint8(raw[..., 0]), raw[..., 0])
    np.testing.assert_array_equal(to_uint8(raw[..., :3].astype(np.uint16) * 257, 65535), raw[..., :3])
    np.testing.assert_array_equal(to_uint8(np.asarray(raw[..., 0] / 255, np.float32), 1), raw[..., 0])


def test_an_image_is_ink_on_paper_with_its_label_in_a_corner(mnist: Data) -> None:
    [axes] = image(mnist.x_train[0], int(mnist.y_train[0])).axes
    np.testing.assert_array_equal(axes.get_images()[0].get_array(), 255 - mnist.x_train[0])
    [label] = axes.texts
    assert (label.get_text(), label.get_color()) == ("5", "cornflowerblue")
    assert label.get_position() == (0.97, 0.03)
    light = 255 - mnist.x_train[0]  # is on paper already
    np.testing.assert_array_equal(image(light, 5).axes[0].images[0].get_array(), light)


def test_samples_have_a_row_a_class_beside_augmented_forms(mnist: Data) -> None:
    x, y = mnist.x_train[:500], mnist.y_train[:500]
    plain = np.asarray(samples(x, y, mnist.names).axes[0].get_images()[0].get_array())
    assert plain.shape == (10 * 28, 10 * 28)
    np.testing.assert_array_equal(plain[3 * 28 : 4 * 28, 28:56], 255 - x[y == 3][1])
    pairs = np.asarray(samples(x, y, mnist.names, lambda images: images / 2).axes[0].get_images()[0].get_array())
    assert pairs.shape == (10 * 28, 10 * 28)
    np.testing.assert_array_equal(pairs[3 * 28 : 4 * 28, 2 * 28 : 3 * 28], 255 - x[y == 3][1])
    np.testing.assert_array_equal(pairs[3 * 28 : 4 * 28, 3 * 28 : 4 * 28], 255 - np.rint(x[y == 3][1] / 2))
    many = samples(x, y, [str(label) for label in range(100)]).axes[0]
    assert "first 20 of 100 classes" in many.get_title()


def test_plot_has_a_picture_for_each_image(mnist: Data) -> None:
    axes = draw_predictions(mnist.x_test[:7], [str(n) for n in range(7)], [f"{n}.png" for n in range(7)]).axes
    shown = [axis for axis in axes if axis.get_visible()]
    assert [(axis.get_title(), axis.get_xlabel()) for axis in shown] == [(str(n), f"{n}.png") for n in range(7)]
    np.testing.assert_array_equal(shown[6].get_images()[0].get_array(), mnist.x_test[6])
