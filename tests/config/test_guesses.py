"""Mistyped overrides: each row of docs/mistakes.md has what the program answers."""

import re
import shlex
from pathlib import Path

import pytest

from mnist_exp.config.composition import compose

from ..conftest import in_process

pytestmark = pytest.mark.fast

PAGE = (Path(__file__).parents[2] / "docs/mistakes.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(("typed", "answer"), re.findall(r"^\| `(.*)` \| `(.*)` \|$", PAGE, re.MULTILINE))
def test_mistyped_override_is_answered_with_the_meant_one(tmp_path: Path, typed: str, answer: str) -> None:
    done = in_process(*shlex.split(typed), cwd=tmp_path)
    assert done.returncode == 1
    assert answer in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_keras_short_names_are_recorded_as_classes() -> None:
    training = compose(
        ["training.metrics=[acc,auc,{top_k_categorical_accuracy:{k:3}}]", "training.loss=mse"]
    ).config.training
    assert training.loss == "MeanSquaredError"
    assert training.metrics == ["accuracy", "AUC", {"TopKCategoricalAccuracy": {"k": 3}}]
