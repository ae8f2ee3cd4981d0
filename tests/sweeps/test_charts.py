"""What the pictures of a sweep show."""

from collections.abc import Sequence
from itertools import product

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from mnist_exp.sweeps.charts import Curves, importance_bars, objective_by_parameter, validation_curves
from mnist_exp.sweeps.formats import find_differences, shorten
from mnist_exp.sweeps.importance import Importance

pytestmark = pytest.mark.fast

LAYERS = [
    *(
        f"[Flatten,{{Dense:{{units:{units},activation:relu,use_bias:true}}}},{{Dropout:{{rate:{rate}}}}}]"
        for units, rate in product((16, 64), (0.1, 0.5))
    ),
    "[{Conv2D:{filters:8,kernel_size:3,activation:relu}},Flatten,{Dense:{units:64}}]",
]
SCHEDULES = [
    "0.01",
    "{CosineDecay:{initial_learning_rate:0.01,decay_steps:600}}",
    *(f"{{ExponentialDecay:{{initial_learning_rate:0.01,decay_steps:60,decay_rate:{rate}}}}}" for rate in (0.9, 0.96)),
]


def rows(count: int, *curves: Sequence[float]) -> list[Curves]:
    return [(str(place), f"hidden={place}", curves) for place in range(1, count + 1)]


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def ticks(figure: Figure, panel: int, axis: str = "x") -> list[str]:
    return [label.get_text() for label in getattr(figure.axes[panel], f"get_{axis}ticklabels")()]


def test_best_rows_have_colours_and_the_rest_is_grey() -> None:
    figure = validation_curves(rows(11, [0.5, 0.6], [0.7, 0.8]), "val_accuracy")
    lines = figure.axes[0].get_lines()
    colours = [to_hex(line.get_color()) for line in lines]
    grey = to_hex("lightgrey")
    assert colours[:3] == [grey] * 3
    assert len(set(colours[3:]) - {grey}) == 8 == len(legend(figure))
    assert legend(figure)[0] == "1  hidden=1, n=2"
    assert "the first 8 of 11" in figure.legends[0].get_title().get_text()
    assert len(figure.axes[0].collections) == 8  # bands


def test_a_line_is_the_mean_of_jobs_that_reached_the_epoch() -> None:
    figure = validation_curves(rows(1, [0.1, 0.2, 0.9], [0.3, 0.6], [0.5]), "val_accuracy")
    [line], [band] = figure.axes[0].get_lines(), figure.axes[0].collections
    assert np.asarray(line.get_ydata()).tolist() == pytest.approx([0.3, 0.4, 0.9])
    corners = band.get_paths()[0].vertices
    assert {(round(x), y) for x, y in np.asarray(corners)} == {
        (1, 0.1), (1, 0.5), (2, 0.2), (2, 0.6), (3, 0.9)
    }  # fmt: skip
    assert "from the smallest to the largest" in figure.legends[0].get_title().get_text()


def test_a_single_epoch_is_a_point_and_each_of_few_has_a_tick() -> None:
    [line] = validation_curves(rows(1, [0.5]), "val_accuracy").axes[0].get_lines()
    assert line.get_marker() == "o"
    assert ticks(validation_curves(rows(1, [0.5] * 20), "val_accuracy"), 0) == [str(n) for n in range(1, 21)]
    assert len(ticks(validation_curves(rows(1, [0.5] * 300), "val_accuracy"), 0)) < 20


def test_long_curves_are_thinned_and_keep_their_ends() -> None:
    values = [epoch / 1000 for epoch in range(1, 1001)]
    [line] = validation_curves(rows(1, values), "val_accuracy").axes[0].get_lines()
    epochs = np.asarray(line.get_xdata())
    assert (len(epochs), epochs[0], epochs[-1]) == (400, 1, 1000)
    assert np.asarray(line.get_ydata()).tolist() == (epochs / 1000).tolist()


def test_a_diverged_curve_does_not_flatten_the_others() -> None:
    good = rows(8, [0.5, 0.9])
    for diverged in (1e6, -1e6, 1e308):
        low, high = validation_curves([*good, ("9", "", [[0.5, diverged]])], "val_accuracy").axes[0].get_ylim()
        assert 0 < high - low < 1
    [line] = validation_curves(rows(1, [0.6, float("nan"), 0.7, float("inf")]), "val_accuracy").axes[0].get_lines()
    assert np.isnan(line.get_ydata()).tolist() == [False, True, False, True]


def test_a_legend_tells_layers_and_schedules_apart() -> None:
    swept = [{"model.layers": layers, "optimizer.learning_rate": rate} for layers, rate in product(LAYERS, SCHEDULES)]
    label = find_differences(swept, 1000).label
    chosen: list[Curves] = [("", label(values), [[0.5]]) for values in (*swept[:4], *swept[-4:])]
    labels = legend(validation_curves(chosen, "val_accuracy"))
    assert len(set(labels)) == 8
    assert labels[0].endswith("…learning_rate=0.01, n=1")


def test_shortened_texts_still_differ() -> None:
    ends = "Dropout(rate=0.1)", "Dropout(rate=0.15)", ""
    parts = product((0, 3, 30), ends, (0, 20))
    texts = [f"layers={'Dense ' * start}{middle}{' ReLU' * end}" for start, middle, end in parts]
    for most in (30, 60):
        short = shorten(texts, most)
        assert list(short) == texts
        assert len(set(short.values())) == len(texts)
        assert max(map(len, short.values())) <= most + 8


def test_a_heat_map_has_mean_spread_and_number_in_each_cell() -> None:
    jobs = [
        ({"layers": layers, "rate": rate, "seed": seed}, 0.8 + 0.02 * int(seed) + 0.1 * (rate == "0.01"))
        for layers, rate, seed in product(LAYERS, SCHEDULES, "01")
    ]
    figure = objective_by_parameter([*jobs, ({"layers": LAYERS[0], "rate": "0.01", "seed": "2"}, 0.94)], "val_accuracy")
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert len(texts) == 2 * len(LAYERS) * len(SCHEDULES)
    assert texts.count("0.8100") == 15
    assert texts.count("± 0.0141, n=2") == 19
    assert texts.count("± 0.0200, n=3") == 1
    assert len(set(ticks(figure, 0, "x"))) == len(SCHEDULES)
    assert len(set(ticks(figure, 0, "y"))) == len(LAYERS)
    single = objective_by_parameter([({"a": a, "b": b}, 0.5) for a, b in product("12", "34")], "val_accuracy")
    assert [text.get_text() for text in single.axes[0].texts] == ["0.5000", "n=1"] * 4


def test_few_values_stand_side_by_side_and_many_on_an_axis() -> None:
    jobs = [
        ({"layers": LAYERS[i % 5], "hidden": "8" if i % 2 else "128", "rate": str(0.0001 * 1.3**i)}, i / 20)
        for i in range(20)
    ]
    figure = objective_by_parameter(jobs, "val_accuracy")
    assert len(set(ticks(figure, 0))) == 5
    assert ticks(figure, 1) == ["8", "128"]
    points, means = figure.axes[1].get_lines()
    assert len(np.asarray(points.get_ydata())) == 20
    assert np.asarray(means.get_ydata()).tolist() == pytest.approx([0.5, 0.45])
    assert figure.axes[2].get_xscale() == "log"


def test_importance_is_a_bar_for_each_key_and_a_remainder() -> None:
    figure = importance_bars(Importance({"model.hidden": 0.7, "optimizer.learning_rate": 0.2}, "all", "chance"))
    assert [text.get_text() for text in figure.axes[0].texts] == ["70%", "20%", "10%"]
    assert ticks(figure, 0, "y") == ["hidden", "learning_rate", "chance"]
    assert to_hex(figure.axes[0].patches[-1].get_facecolor()) == to_hex("lightgrey")
