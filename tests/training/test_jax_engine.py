"""The JAX engine and stacks of jobs: in a process of its own, since Keras has one backend a process."""

import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mnist_exp.config import CONF
from mnist_exp.config.composition import compose
from mnist_exp.config.schema import Config
from mnist_exp.data.datasets import Data
from mnist_exp.errors import InputError
from mnist_exp.experiment import Child, Experiment
from mnist_exp.tracking.folder import Folder
from mnist_exp.tracking.records import Record
from mnist_exp.training.engine import stack_key

from ..conftest import (
    QUICK,
    Command,
    OnJax,
    facts,
    in_process,
    installed,
    runs_in,
    start,
    sweep_in,
    wait_for_line,
)

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not installed("jax"), reason="needs pip install -e '.[jax]'")]

JAX = ("backend=jax",)
STACKED = ("-m", "hydra/launcher=stacked", *JAX)
History = dict[str, list[float]]

# Dropout, batch normalisation, a regularizer: state and losses beyond the weights.
WITH_STATE = (
    "preprocessing=image",
    "model=layers",
    "model.layers=[{Conv2D:{filters:4,kernel_size:3}},BatchNormalization,ReLU,MaxPooling2D,Flatten,{Dropout:{rate:0.5}},"
    "{Dense:{units:8,activation:relu,kernel_regularizer:{L2:{l2:0.01}}}}]",
)
# Blocks of layers, which make a graph of a model.
WITH_BLOCKS = (
    "preprocessing=image",
    "model=layers",
    "model.layers=[{MaxPooling2D:{pool_size:4}},Flatten,{Residual:[{Dense:{units:8,activation:relu}},{Dense:{units:49}}]},"
    "{Branches:[[],[{Residual:[{Dense:{units:8}}]}]]}]",
)
AUGMENTED = "preprocessing.augment=[{RandomTranslation:{height_factor:0.1,width_factor:0.1}}]"


def _experiment(*overrides: str) -> Experiment:
    return compose(["tracking=none", *JAX, *QUICK, *overrides])


def _alone(*overrides: str) -> dict[str, Any]:
    """What a run alone gives, as plain values."""
    from mnist_exp import run

    result = run("tracking=none", *JAX, *QUICK, *overrides)
    return {
        "history": result.history,
        "scores": result.scores,
        "weights": result.model.get_weights(),
        "figures": sorted(path.name for path in result.output.glob("figures/*.png")),
        "heavy": sorted({"tensorflow"} & sys.modules.keys()),
    }


def _together(*jobs: tuple[str, ...]) -> list[dict[str, Any]]:
    """What the same jobs give as one program; of one that failed, its error."""
    from mnist_exp.runner import go_on
    from mnist_exp.stack import run_stack
    from mnist_exp.tracking.tracker import open_run

    experiments = [replace(_experiment(*job), child=Child("", {})) for job in jobs]
    assert len({stack_key(experiment.config) for experiment in experiments}) == 1
    return [
        {"error": str(outcome)}
        if isinstance(outcome, Exception)
        else {
            "history": outcome.history,
            "scores": outcome.scores,
            "weights": outcome.model.get_weights(),
            "files": sorted(path.name for path in outcome.output.iterdir()),
            "log": (outcome.output / "run.log").read_text(),
        }
        for outcome in run_stack(experiments, open_run, go_on)
    ]


def _by_keras(*overrides: str) -> tuple[History, list[Any]]:
    """What Keras's own `fit` makes, on JAX, of the same model and batches, an epoch a call."""
    from mnist_exp.config.keras_backend import keras
    from mnist_exp.training import models, training
    from mnist_exp.training.preprocessing import fit_preprocessor
    from mnist_exp.training.split import load_data

    config = _experiment(*overrides).config
    data = load_data(config.dataset)
    preprocessor = fit_preprocessor(config.preprocessing, data)
    models.set_seed(config.seed)
    model = models.build(config.model, preprocessor.shape, data.classes)
    shape = data.x_train.shape[1:]
    trained = models.serving_model(model, preprocessor, shape, config.preprocessing.augment)
    training.compile_model(trained, config.optimizer, config.training, one_hot=preprocessor.one_hot)
    assert keras.backend.backend() == "jax"
    history: History = {}
    labels, validated = (np.asarray(preprocessor.labels(y)) for y in (data.y_train, data.y_validation))
    for epoch in range(config.training.epochs):
        order = training.epoch_order(len(data.x_train), config.training.shuffle, config.dataset.seed, epoch)
        measured = trained.fit(
            data.x_train[order],
            labels[order],
            batch_size=config.training.batch_size,
            validation_data=(data.x_validation, validated),
            validation_batch_size=2000,
            shuffle=False,
            verbose=0,
        )
        for name, values in measured.history.items():
            history.setdefault(name, []).extend(values)
    return history, model.get_weights()


@pytest.mark.parametrize(
    "overrides",
    [
        (
            *WITH_STATE,
            "optimizer=sgd",
            "optimizer.learning_rate=0.1",
            "optimizer.clipnorm=1.0",
            "dataset.validation=100",
        ),
        (
            AUGMENTED,
            "optimizer.learning_rate={CosineDecay:{initial_learning_rate:0.01,decay_steps:40}}",
            "dataset.limit=1950",  # the last batch is half as large
            "preprocessing.one_hot=false",
        ),
        (
            "training.loss=MeanSquaredError",
            "training.metrics=[accuracy,AUC,{TopKCategoricalAccuracy:{k:3}}]",
            "dataset.validation=500",
            "dataset.limit=1700",
            "optimizer=sgd",
            "optimizer.momentum=0.9",
        ),
        WITH_BLOCKS,
    ],
    ids=["layers with state", "augmented", "other metrics", "blocks of layers"],
)
def test_epoch_as_one_program_equals_keras(on_jax: OnJax, overrides: tuple[str, ...]) -> None:
    expected, weights = on_jax(_by_keras, *overrides)
    run = on_jax(_alone, *overrides)
    rates = run["history"].pop("learning_rate", None)
    # Of 40 steps, the rate falls by half a cosine: that of step 19 and of step 39.
    cosine = [0.005 * (1 + math.cos(math.pi * step / 40)) for step in (19, 39)]
    assert rates == (pytest.approx(cosine, rel=1e-4) if AUGMENTED in overrides else None)
    assert set(run["history"]) == set(expected)
    for name, values in expected.items():
        two_images = 2 / 500 if "accuracy" in name else 1e-4
        assert run["history"][name] == pytest.approx(values, abs=two_images + 1e-6), name
    for own, of_keras in zip(run["weights"], weights, strict=True):
        np.testing.assert_allclose(own, of_keras, atol=1e-4)


def test_averaged_weights_are_saved_and_scored(on_jax: OnJax) -> None:
    plain, mean = (on_jax(_alone, *typed) for typed in ((), ("optimizer.use_ema=true", "optimizer.ema_momentum=0.5")))
    assert mean["history"]["loss"] == pytest.approx(plain["history"]["loss"], abs=1e-5)
    assert plain["scores"]["test_loss"] == plain["history"]["val_loss"][-1]
    assert mean["scores"]["test_loss"] > plain["scores"]["test_loss"] + 0.001


def test_run_on_jax_writes_the_same_files(on_jax: OnJax) -> None:
    run = on_jax(_alone, "dataset.validation=400")
    assert set(run["history"]) == {"loss", "accuracy", "val_loss", "val_accuracy"}
    assert set(run["scores"]) == {"test_loss", "test_accuracy", "fit_seconds"}
    drawn = ("classes", "confusion_matrix", "curves", "mistakes", "predictions")
    assert run["figures"] == [f"{name}.png" for name in drawn]
    assert run["heavy"] == []


# The optimizers whose state has a shape of its own: a mean, factors, one for matrices alone, one that is evaluated.
OPTIMIZERS = ("sgd", "adafactor", "muon", "schedule_free_adamw")
ALL_OPTIMIZERS = tuple(path.stem for path in sorted((CONF / "optimizer").glob("*.yaml")))


def _optimizers(names: tuple[str, ...]) -> dict[str, list[float]]:
    short = ("optimizer.learning_rate=0.01", "dataset.limit=500")
    return {name: _alone(f"optimizer={name}", *short)["history"]["loss"] for name in names}


@pytest.mark.parametrize("names", [OPTIMIZERS, pytest.param(ALL_OPTIMIZERS, marks=pytest.mark.release)], ids=len)
def test_every_optimizer_trains(on_jax: OnJax, names: tuple[str, ...]) -> None:
    losses = on_jax(_optimizers, names)
    assert len(losses) == len(names)
    for name, of_optimizer in losses.items():
        assert of_optimizer[-1] < of_optimizer[0], name


SEEDS_AND_NUMBERS = (
    ("seed=2", "optimizer.beta_1=0.5", "optimizer.beta_2=0.9", "optimizer.epsilon=1"),
    ("seed=1", "optimizer.learning_rate=0.01"),
    ("seed=0",),
)


def test_stacked_job_equals_single_job(on_jax: OnJax) -> None:
    together = on_jax(_together, *SEEDS_AND_NUMBERS)
    for job, of_stack in zip(SEEDS_AND_NUMBERS, together, strict=True):
        alone = on_jax(_alone, *job)
        for name, values in alone["history"].items():
            assert of_stack["history"][name] == pytest.approx(values, abs=1e-5), (job, name)
        for own, stacked in zip(alone["weights"], of_stack["weights"], strict=True):
            np.testing.assert_allclose(own, stacked, atol=1e-5)
        assert of_stack["files"] == ["config.yaml", "metrics.jsonl", "model.keras", "run.json", "run.lock", "run.log"]
        assert "trained as one program with 2 others" in of_stack["log"]
        assert of_stack["log"].count("epoch 1 ") == of_stack["log"].count("scores ") == 1
    assert len({str(of_stack["history"]) for of_stack in together}) == 3


def test_a_stack_of_layers_differs_by_rounding(on_jax: OnJax) -> None:
    """Of 2,000 images and two epochs: losses by less than 1e-3, accuracies by less than 3 images in 1,000."""
    jobs = [(*WITH_STATE, f"seed={seed}") for seed in range(2)]
    for job, of_stack in zip(jobs, on_jax(_together, *jobs), strict=True):
        alone = on_jax(_alone, *job)
        for name, values in alone["history"].items():
            assert of_stack["history"][name] == pytest.approx(values, abs=3e-3 if "accuracy" in name else 1e-3), name


SETS_THE_RATE = """
import keras

@keras.saving.register_keras_serializable()
class Tenth(keras.callbacks.LearningRateScheduler):
    def __init__(self):
        super().__init__(lambda epoch, rate: rate / 10)

    def get_config(self):
        return {}
"""


def test_epoch_uses_the_learning_rate_of_a_callback(on_jax: OnJax) -> None:
    Path("tenth.py").write_text(SETS_THE_RATE)
    own = ("code=tenth.py", "+training.callbacks={Tenth:{}}", "optimizer.learning_rate=0.1", "training.epochs=1")
    run = on_jax(_alone, *own)
    plain = on_jax(_alone, "optimizer.learning_rate=0.01", "training.epochs=1")
    assert run["history"].pop("learning_rate") == pytest.approx([0.01])
    assert run["history"] == {name: pytest.approx(values, abs=1e-5) for name, values in plain["history"].items()}


def test_a_job_whose_loss_is_no_number_fails_alone(on_jax: OnJax) -> None:
    linear = ("optimizer=sgd", "model.activation=linear")
    jobs = [(*linear, f"optimizer.learning_rate={rate}") for rate in ("0.1", "1e30", "1")]
    first, second, third = on_jax(_together, *jobs)
    assert "loss became nan in epoch 1; try a smaller optimizer.learning_rate" in second["error"]
    for job, of_stack in ((jobs[0], first), (jobs[2], third)):
        assert "FAILED" not in of_stack["log"]
        assert of_stack["history"]["loss"] == pytest.approx(on_jax(_alone, *job)["history"]["loss"], abs=1e-5)


def test_each_job_stops_on_its_own_and_keeps_its_best_weights(on_jax: OnJax) -> None:
    stopping = (
        "training.callbacks={EarlyStopping:{monitor:val_loss,patience:1,min_delta:0.1,restore_best_weights:true},"
        "ReduceLROnPlateau:{monitor:val_loss,patience:1,min_delta:0.05}}"
    )
    jobs = [
        (stopping, "training.epochs=12", "dataset.validation=500", f"optimizer.learning_rate={rate}")
        for rate in (0.05, 0.01, 0.02)
    ]
    together = on_jax(_together, *jobs)
    epochs = [len(of_stack["history"]["loss"]) for of_stack in together]
    assert len(set(epochs)) > 1
    assert min(epochs) < 12
    for job, of_stack in zip(jobs, together, strict=True):
        alone = on_jax(_alone, *job)
        assert set(of_stack["history"]) == set(alone["history"]) >= {"learning_rate"}
        assert "'learning_rate': " in of_stack["log"]
        for name, values in alone["history"].items():
            assert of_stack["history"][name] == pytest.approx(values, abs=1e-4), name
        assert of_stack["scores"]["test_loss"] == pytest.approx(alone["scores"]["test_loss"], abs=1e-4)
        for own, stacked in zip(alone["weights"], of_stack["weights"], strict=True):
            np.testing.assert_allclose(own, stacked, atol=1e-3)


def _sizes(memory: int) -> tuple[int, int]:
    from mnist_exp.training import jax_engine

    engine: Any = jax_engine
    of_machine = engine.memory
    engine.memory = lambda: memory  # the data does not fit into the smallest
    try:
        convolutions = _experiment("model=cnn", "preprocessing=image")
        return jax_engine.stack_size(_experiment(), 10**6), jax_engine.stack_size(convolutions, 9)
    finally:
        engine.memory = of_machine


def test_a_stack_fits_in_memory_without_convolutions_on_a_cpu(on_jax: OnJax) -> None:
    much, one = on_jax(_sizes, 2**27)
    little, _ = on_jax(_sizes, 2**24)
    assert one == 1
    assert 8 * little <= much < 8 * (little + 1)
    assert 1 < little < much < 10**6 == on_jax(_sizes, 2**60)[0]
    assert on_jax(_sizes, 1)[0] == 1


def configured(*overrides: str) -> Config:
    return _experiment(*overrides).config


def test_keys_of_the_program_split_stacks() -> None:
    base = stack_key(configured())
    for alike in ("seed=3", "optimizer.learning_rate=1", "optimizer.epsilon=0.1", "optimizer.beta_1=0.8"):
        assert stack_key(configured(alike)) == base, alike
    for apart in (
        "dataset.seed=1",
        "model.hidden=17",
        "training.batch_size=99",
        "optimizer=adamw",
        "optimizer.clipnorm=1.0",
        "optimizer.weight_decay=0.1",  # null in the base
        "optimizer.learning_rate={CosineDecay:{initial_learning_rate:0.01,decay_steps:40}}",
    ):
        assert stack_key(configured(apart)) != base, apart


def test_one_backend_a_process(on_jax: OnJax) -> None:
    with pytest.raises(InputError, match="backend=tensorflow: Keras already runs with jax in this process"):
        on_jax(_on_tensorflow)


def _on_tensorflow() -> None:
    from mnist_exp import run
    from mnist_exp.config import keras_backend

    assert keras_backend.keras.backend.backend() == "jax"
    run("tracking=none", *QUICK)


def test_jax_runs_repeat_and_their_models_load_on_tensorflow(tmp_path: Path, mnist: Data, jax_command: Command) -> None:
    assert jax_command(*JAX, *QUICK, cwd=tmp_path).returncode == 0
    [run] = runs_in(tmp_path)
    assert run.data.tags["mnist_exp.packages"].startswith("jax ")
    again = jax_command(run.info.run_id, cwd=tmp_path, module="mnist_exp.rerun")
    assert again.returncode == 0, again.stdout + again.stderr
    assert "Identical to" in again.stdout
    Image.fromarray(mnist.x_test[0]).save(tmp_path / "seven.png")
    done = in_process(run.info.run_id, "seven.png", cwd=tmp_path, module="mnist_exp.predict")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("seven.png")


def test_a_stacked_sweep_is_a_sweep(tmp_path: Path, jax_command: Command) -> None:
    swept = ("seed=0,1", "optimizer.learning_rate=0.001,0.01", "model.hidden=4,8", "dataset.validation=500", *QUICK)
    done = jax_command(*STACKED, *swept, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "8 of 8 done" in done.stdout
    assert "8 jobs, largest val_accuracy first" in done.stdout
    parent, jobs = sweep_in(tmp_path)
    assert [run.info.status for run in (parent, *jobs)] == ["FINISHED"] * 9
    assert {facts(job)["trained_together"] for job in jobs} == {"4"}
    assert len({job.data.metrics["val_loss"] for job in jobs}) == 8
    assert len({job.data.tags["mnist_exp.output"] for job in jobs}) == 8
    for job in jobs:
        assert (tmp_path / job.data.tags["mnist_exp.output"] / "model.keras").is_file()
        assert math.isfinite(job.data.metrics["fit_seconds"])
    assert {str(job.info.run_name) for job in jobs} >= {"seed=0 learning_rate=0.001 hidden=4"}
    again = jax_command(*STACKED, *swept, "resume=true", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "8 of 8 finished before" in again.stdout
    assert len(runs_in(tmp_path)) == 9


def test_the_launcher_says_which_engine_it_needs(tmp_path: Path) -> None:
    done = in_process("-m", "hydra/launcher=stacked", "seed=0,1", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr == ("hydra/launcher=stacked: trains jobs as one program, which needs backend=jax\n")
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_stack_is_killed_whole(tmp_path: Path) -> None:
    typed = ("seed=0,1", "training.epochs=100000", "dataset.limit=2000", "training.checkpoint_seconds=1e-9")
    process = start(*STACKED, *typed, cwd=tmp_path)
    wait_for_line(process, "2 jobs as one program: epoch")
    process.terminate()
    process.communicate(timeout=300)
    assert process.returncode == 143
    parent, jobs = sweep_in(tmp_path)
    assert [run.info.status for run in (parent, *jobs)] == ["KILLED"] * 3
    assert not list(tmp_path.rglob("checkpoint.npz"))


@pytest.mark.parametrize("first", [0, 2], ids=["stack", "alone"])
def test_jobs_of_an_interrupted_stack_begin_anew(tmp_path: Path, jax_command: Command, first: int) -> None:
    typed = (*STACKED, "seed=0,1,2", "tracking=none", "dataset.limit=300", "training.epochs=1")
    assert jax_command(*typed, cwd=tmp_path).returncode == 0
    before = _jobs(tmp_path)
    for name, job in before.items():
        if int(name) >= first:
            Folder(Path(job.output)).change(status="KILLED", stage="begun")
    assert jax_command(*typed, "resume=true", cwd=tmp_path).returncode == 0
    after = _jobs(tmp_path)
    assert {name: job.status for name, job in after.items()} == dict.fromkeys("012", "FINISHED")
    assert {int(name) for name, job in after.items() if job.id != before[name].id} == set(range(first, 3))


def _jobs(folder: Path) -> dict[str, Record]:
    """Return the records of a sweep's jobs by the names of their folders."""
    return {path.parent.name: Folder(path.parent).read() for path in folder.glob("multirun/*/*/*/run.json")}
