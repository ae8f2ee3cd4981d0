"""Fit and evaluate: the order of batches, the loss that fits the labels, callbacks, and runs that go wrong."""
# ruff: noqa: E501, a case a line reads best

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mnist_exp import run
from mnist_exp.config import CONF
from mnist_exp.config.composition import compose
from mnist_exp.config.keras_backend import keras
from mnist_exp.config.keras_names import ALLOWED, metric_name
from mnist_exp.data.datasets import Data
from mnist_exp.errors import InputError, format_value
from mnist_exp.experiment import Result
from mnist_exp.tracking.folder import Folder
from mnist_exp.training import tensorflow_engine
from mnist_exp.training.models import augmentation_model, build
from mnist_exp.training.preprocessing import Preprocessor
from mnist_exp.training.split import load_data
from mnist_exp.training.tensorflow_engine import Batches
from mnist_exp.training.training import TrainingResult, compile_model

from ..conftest import QUICK

RAW = Preprocessor(shape=(28, 28, 1), factor=1.0, offset=0.0, classes=10, one_hot=False)


def quick(*overrides: str) -> Result:
    return run("tracking=none", *QUICK, *overrides)


def trained(*overrides: str) -> TrainingResult:
    """What `quick` trains, without the figures and files of a run, which take as long."""
    experiment = compose(["tracking=none", *QUICK, *overrides])
    [outcome] = tensorflow_engine.train([experiment], load_data(experiment.config.dataset), lambda *_: ())
    assert isinstance(outcome, TrainingResult)
    return outcome


def epochs_of(mnist: Data, *, seed: int, shuffle: bool = True) -> list[list[int]]:
    """What two epochs of 95 images give, each image with its position as label."""
    batches = Batches(mnist.x_train[:95], np.arange(95), RAW, None, batch_size=10, shuffle=shuffle, seed=seed)
    epochs: list[list[int]] = []
    for epoch in range(2):
        batches.set_epoch(epoch)
        epochs.append([])
        for images, positions in batches.dataset.as_numpy_iterator():
            np.testing.assert_array_equal(images[..., 0], mnist.x_train[positions])
            epochs[-1] += positions.tolist()
    return epochs


def test_an_epoch_has_every_image_once_in_an_order_of_its_own(mnist: Data) -> None:
    first, second = epochs_of(mnist, seed=0)
    assert sorted(first) == sorted(second) == list(range(95))
    assert first != second != list(range(95))
    assert epochs_of(mnist, seed=0) == [first, second]
    assert epochs_of(mnist, seed=1)[0] != first
    assert epochs_of(mnist, seed=0, shuffle=False) == [list(range(95))] * 2


def test_training_images_alone_are_augmented_anew_each_epoch(mnist: Data) -> None:
    keras.utils.set_random_seed(0)
    augment = augmentation_model([{"RandomTranslation": {"height_factor": 0.1, "width_factor": 0.1}}], (28, 28))
    batches = Batches(mnist.x_train[:20], mnist.y_train[:20], RAW, augment, batch_size=20)
    [first], [second] = (list(batches.dataset.as_numpy_iterator()) for _ in range(2))
    assert first[0].shape == (20, 28, 28, 1)
    assert not np.array_equal(first[0][..., 0], mnist.x_train[:20])
    assert not np.array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], mnist.y_train[:20])


AUGMENTED = "preprocessing.augment=[{RandomRotation:{factor:0.1,fill_mode:constant}}]"


def test_augmentation_follows_the_seed_and_spares_scores(mnist: Data) -> None:
    held_out = ("model=cnn", "dataset.limit=1000", "dataset.validation=300")
    plain, one, two = trained(*held_out), trained(*held_out, AUGMENTED), trained(*held_out, AUGMENTED)
    assert one.history == two.history != plain.history
    assert one.history["loss"][-1] > one.history["val_loss"][-1]
    accuracy = (one.model.predict(mnist.x_test, verbose=0).argmax(1) == mnist.y_test).mean()
    assert accuracy == pytest.approx(one.scores["test_accuracy"], abs=2e-4)
    assert not any(type(layer).__name__.startswith("Random") for layer in one.model.layers)


def test_an_augmentation_that_keras_refuses_is_named() -> None:
    named = r"preprocessing\.augment\[0\]\.Random\w+\.(fill_mode|height_factor)=.*: "
    for layer in ("{RandomRotation:{factor:0.1,fill_mode:sideways}}", "{RandomZoom:{height_factor:[0.1,0.2,0.3]}}"):
        with pytest.raises(InputError, match=named):
            quick(f"preprocessing.augment=[{layer}]")
    with pytest.raises(InputError, match=r"preprocessing\.augment\[0\]=Dense: not one of the augmentations"):
        quick("preprocessing.augment=[Dense]")


def test_weights_and_batches_have_seeds_of_their_own() -> None:
    def first_layer(*overrides: str) -> Any:
        # A rate this small leaves the initial weights visible.
        return trained("optimizer.learning_rate=1e-12", *overrides).model.get_weights()[0]

    base = first_layer()
    np.testing.assert_allclose(base, first_layer("dataset.seed=1"), atol=1e-6)
    assert np.abs(base - first_layer("seed=1")).max() > 0.01


def test_loss_fits_whole_number_labels() -> None:
    result, reference = trained("preprocessing.one_hot=false"), trained().history
    assert result.history["loss"] == pytest.approx(reference["loss"], rel=1e-5)
    assert result.history["val_accuracy"] == pytest.approx(reference["val_accuracy"], abs=1e-6)


def test_other_losses_and_metrics() -> None:
    metrics = "training.metrics=[accuracy,{TopKCategoricalAccuracy:{k:3}},{AUC:{name:val_auc}}]"
    result = trained("training.loss=MeanSquaredError", metrics)
    assert 0 < result.history["loss"][-1] < 0.1
    assert result.scores["test_val_auc"] == result.history["val_val_auc"][-1] != result.history["val_auc"][-1]
    assert result.scores["test_top_k_categorical_accuracy"] > result.scores["test_accuracy"]


@pytest.mark.parametrize("one_hot", [True, False])
def test_every_metric_gives_a_number_under_its_name(one_hot: bool) -> None:
    names = sorted(name for name in ALLOWED["metrics"] if name.startswith("Sparse") != one_hot)
    specs: list[Any] = [{"F1Score": {"average": "macro"}} if name == "F1Score" else name for name in names]
    typed = f"training.metrics={format_value(specs).replace(': ', ':')}"
    result = trained(typed, "objective=loss", f"preprocessing.one_hot={str(one_hot).lower()}", "training.epochs=1")
    assert set(result.history) == {
        *map(metric_name, specs),
        *(f"val_{metric_name(spec)}" for spec in specs),
        "loss",
        "val_loss",
    }
    assert all(np.isfinite(values).all() for values in result.history.values())


@pytest.mark.parametrize("path", sorted((CONF / "optimizer").glob("*.yaml")))
def test_every_optimizer_trains(path: Path, mnist: Data) -> None:
    config = compose([f"optimizer={path.stem}", "optimizer.learning_rate=0.01"]).config
    model = build(config.model, (784,), 10)
    compile_model(model, config.optimizer, config.training, one_hot=False)
    images, labels = mnist.x_train[:200].reshape(200, 784) / 255, mnist.y_train[:200]
    losses = model.fit(images, labels, batch_size=20, epochs=3, verbose=0).history["loss"]
    assert losses[-1] < losses[0]


def test_early_stopping_stops_and_restores_the_best_epoch() -> None:
    stopping = "training.callbacks={EarlyStopping:{monitor:val_loss,patience:1,restore_best_weights:true}}"
    result = trained(stopping, "training.epochs=50", "optimizer.learning_rate=0.3", "dataset.validation=500")
    losses = result.history["val_loss"]
    assert len(losses) < 50
    assert min(losses) < losses[-1]
    again = trained(
        f"training.epochs={int(np.argmin(losses)) + 1}", "optimizer.learning_rate=0.3", "dataset.validation=500"
    )
    for restored, best in zip(result.model.get_weights(), again.model.get_weights(), strict=True):
        np.testing.assert_array_equal(restored, best)


def test_callbacks_write_only_into_the_output_folder(tmp_path: Path) -> None:
    callbacks = "{ModelCheckpoint:{filepath:best.keras,save_best_only:true},CSVLogger:{filename:epochs.csv}}"
    result = quick(f"training.callbacks={callbacks}")
    assert len((result.output / "epochs.csv").read_text().splitlines()) == 3
    keras.saving.load_model(result.output / "best.keras")
    assert {path.name for path in tmp_path.iterdir()} == {"outputs", ".mnist_exp"}


def test_a_learning_rate_can_fall_by_schedule_or_on_a_plateau() -> None:
    # 2,000 images in batches of 100 are 20 steps an epoch; after the first, nothing is left to learn with.
    schedule = (
        "optimizer.learning_rate={PolynomialDecay:{initial_learning_rate:0.01,decay_steps:20,end_learning_rate:0.0}}"
    )
    fallen = quick(schedule, "training.epochs=3")
    losses, rates = fallen.history["val_loss"], fallen.history["learning_rate"]
    assert losses[1] == pytest.approx(losses[2], abs=1e-6)
    assert rates == pytest.approx([0.0005, 0, 0])  # after the last of 20 steps, and then none
    assert Folder(fallen.output).history() == fallen.history
    plateau = "training.callbacks={ReduceLROnPlateau:{monitor:loss,patience:1,min_delta:100,factor:0.5}}"
    rates = trained(plateau, "training.epochs=4").history["learning_rate"]
    assert rates[0] == pytest.approx(0.001)
    assert rates[-1] < rates[0]


def test_nan_loss_stops_the_run() -> None:
    with pytest.raises(InputError, match=r"loss became nan in epoch \d; try a smaller optimizer.learning_rate"):
        quick("optimizer=sgd", "optimizer.learning_rate=1e30", "model.activation=linear", "training.epochs=5")


CANNOT = "Keras cannot train with these arguments: "


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ("optimizer=muon optimizer.exclude_layers=['(']", f"optimizer=Muon: {CANNOT}missing ), unterminated subpattern"),
        ("optimizer.beta_1=x", f"optimizer=Adam: {CANNOT}unsupported operand"),
        ("training.metrics=[accuracy,{Precision:{class_id:70}}]", f"training.metrics[1]={{Precision: {{class_id: 70}}}}: {CANNOT}"),
        ("training.callbacks={ModelCheckpoint:{filepath:best.txt}}", "training.callbacks.ModelCheckpoint.filepath=best.txt: "),
        ("training.callbacks={EarlyStopping:{patience:abc,min_delta:100}}", "training.callbacks={EarlyStopping: {patience: abc, min_delta: 100}}: '>=' not supported"),
        ("preprocessing=image model=layers model.layers=[{ZeroPadding2D:{padding:1000000}},GlobalAveragePooling2D]", "model=layers: does not fit into memory (OOM when allocating"),
    ],
)  # fmt: skip
def test_a_value_that_keras_refuses_names_its_key(overrides: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        trained(*overrides.split(), "training.epochs=4", "dataset.limit=200")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
