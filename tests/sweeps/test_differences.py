"""What is said of runs that differ."""

import pytest

from mnist_exp.sweeps.formats import find_differences

pytestmark = pytest.mark.fast

MLP = {"model.kind": "mlp", "model.hidden": "16", "optimizer.kind": "Adam", "optimizer.beta_1": "0.9"}
LINEAR = {"model.kind": "linear", "optimizer.kind": "SGD", "optimizer.momentum": "0.0"}


def said(*values: str, key: str = "model.layers", width: int = 0) -> list[str]:
    runs = [{key: value} for value in values]
    differences = find_differences(runs, width)
    return [differences.label(run) for run in runs]


def test_mixed_keys_get_columns_within_the_width() -> None:
    differences = find_differences([MLP, LINEAR], 30)
    assert set(differences.columns) <= set(differences.names)
    assert sum(2 + max(len(name), 6) for name in differences.columns.values()) <= 40
    assert differences.label(MLP) == "model=mlp hidden=16 optimizer=Adam beta_1=0.9"
    assert differences.label(LINEAR) == "model=linear optimizer=SGD momentum=0.0"


def test_the_most_mixed_key_gets_the_only_column() -> None:
    runs = [{"a": str(index), "b": "few" if index == 3 else "most", "seed": str(index // 3)} for index in range(4)]
    assert list(find_differences(runs, 4).columns) == ["a"]


@pytest.mark.parametrize(
    "values",
    [
        ("[Flatten,{Dense:{units:16}}]", "[Flatten,{Dense:{units:16}},{Dropout:{rate:0.2}}]"),
        ("0.01", "{CosineDecay:{decay_steps:9}}", "{}"),
        ("[16]", "[128, 64]"),
        ("[{Dense: &a {x: *a}}]", "[{Dense: 1}"),
    ],
)
def test_layers_and_schedules_are_said_as_they_were_typed(values: tuple[str, ...]) -> None:
    assert said(*values) == [f"layers={value}" for value in values]
    column = find_differences([{"model.layers": value} for value in values], 200)
    assert list(column.columns) == ["model.layers"]
    assert [column.cell("model.layers", value) for value in values] == list(values)


def test_long_layer_lists_show_their_start_and_differences() -> None:
    deep = ",".join(["[Flatten", *["{Dense:{units:64,activation:relu,use_bias:true}}"] * 4])
    shown = said(*(f"{deep},{{Dropout:{{rate:{rate}}}}}]" for rate in (0.1, 0.2)))
    assert [text.partition("…")[2] for text in shown] == ["rate:0.1}}]", "rate:0.2}}]"]
    assert all(text.startswith("layers=[Flatten,{Dense:{units:64,") for text in shown)
    assert [len(text) < 130 for text in said("1", "[" * 3000 + "{")] == [True, True]


def test_refused_job_shows_the_typed_override() -> None:
    differences = find_differences([MLP, LINEAR], 30)
    assert differences.label({"model.hidden": "[1,"}) == "hidden=[1,"
