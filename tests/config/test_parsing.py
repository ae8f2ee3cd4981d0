"""What of Hydra's grammar is read, and how many values it lists."""

import pytest

from mnist_exp.config.composition import compose
from mnist_exp.config.parsing import count, parse
from mnist_exp.errors import InputError


@pytest.mark.fast
@pytest.mark.parametrize(
    "text",
    ["range(10)", "range(0,1,0.1)", "sort(range(5,0,-2))", "shuffle(range(3,9))", "range(3,0)", "1,2,3"],
)
def test_values_are_counted_as_hydra_lists_them(text: str) -> None:
    [one] = parse([f"seed={text}"])
    assert count(one) == len(list(one.sweep_string_iterator()))


@pytest.mark.fast
@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("range(2000000000)", 2e9),
        ("shuffle(range(0,2000000000))", 2e9),
        ("range(0,1e300,1e-300)", float("inf")),
    ],
)
def test_range_is_counted_without_a_list(text: str, number: float) -> None:
    assert count(parse([f"seed={text}"])[0]) == number


@pytest.mark.fast
@pytest.mark.parametrize("text", ["range(0,10,0)", "range(0,nan)", "range(inf)"])
def test_a_range_without_an_end_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="finite numbers, with a step that is not 0"):
        count(parse([f"seed={text}"])[0])


@pytest.mark.fast
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("=1", "=1: cannot be read"),
        ("model.hidden=extend_list(8)", "cannot be read"),
        ("seed=" + "9" * 5000, "cannot be read; write KEY=VALUE"),
        ("model.layers=" + "[" * 2000 + "]" * 2000, "cannot be read"),
        ("model.layers=" + "{a:" * 150 + "1" + "}" * 150, "have too many levels"),
        ("k" * 10_000 + "=1", "no key has more than 250 characters"),
        ("seed=" + "1" * 40_000, "seed: is too long; all overrides together may have 30,000 characters"),
        ("experiment=" + "e" * 300, "must be GROUP=CHOICE"),
        ("~model", "~model: must be GROUP=CHOICE, such as model=cnn"),
        ("tracking=null", "tracking=null: must be GROUP=CHOICE"),
        ("model=[mlp,cnn]", "must be GROUP=CHOICE"),
    ],
)
def test_unusable_override_is_one_short_message(text: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        compose([text])
    assert message in str(caught.value)
    assert len(str(caught.value)) <= 1000
    assert "\n" not in str(caught.value)


@pytest.mark.fast
def test_a_long_list_of_layers_is_read() -> None:
    layers = ",".join(["{Dense:{units:64,activation:relu}}"] * 570)
    config = compose(["model=layers", f"model.layers=[Flatten,{layers}]"]).config
    assert len(config.model.layers) == 571  # type: ignore[attr-defined]


@pytest.mark.fast
@pytest.mark.parametrize("text", ["~experiment", "~sweep", "~prune", "model='cnn'", "model={hidden:8}"])
def test_group_values_that_hydra_accepts_are_read(text: str) -> None:
    compose([text])
