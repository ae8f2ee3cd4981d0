"""Pictures of digits in, labels out: drawn by script, and MNIST's own in other sizes and colours."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mnist_exp import digits, run
from mnist_exp.config.keras_backend import keras
from mnist_exp.data.datasets import Data
from mnist_exp.errors import InputError
from mnist_exp.predict import predict
from mnist_exp.tracking.logged_models import fetch_model
from mnist_exp.training.saved_models import load

from .conftest import QUICK, facts, in_process, runs_in, store, sweep_in
from .drawing import STYLES, draw, draw_all


def kept_model(folder: Path) -> Path:
    [path] = folder.glob("outputs/*/*/model.keras")
    return path


@pytest.mark.parametrize(
    ("overrides", "least"),
    [
        pytest.param(("experiment=convnet", "training.epochs=2", "dataset.limit=20000"), 0.93, marks=pytest.mark.slow),
        # The whole ways, of which docs/repeating.md has the scores.
        pytest.param(("experiment=convnet",), 0.99, marks=pytest.mark.release),
        pytest.param(("experiment=resnet",), 0.99, marks=pytest.mark.release),
    ],
)
def test_the_drawn_digits_preset_reads_drawn_digits(tmp_path: Path, overrides: tuple[str, ...], least: float) -> None:
    result = run(*overrides, "tracking=none")
    assert result.config.dataset.validation == 5000
    assert result.scores["test_accuracy"] >= least
    found = predict(str(result.output / "model.keras"), draw_all(tmp_path))
    assert sum(prediction.label == digit for digit, prediction in enumerate(found)) >= 9


def test_predict_prints_a_line_and_plots_the_models_input(
    tracked_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = draw_all(tmp_path)
    [recorded] = runs_in(tracked_folder)
    uri = f"tracking.uri=sqlite:///{tracked_folder}/mlflow.db"
    names = [path.name for path in paths]
    done = in_process(recorded.info.run_id, *names, uri, "--plot", "seen.png", cwd=tmp_path, module="mnist_exp.predict")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [line[0] for line in lines[:10]] == names
    assert sum(int(line[1]) == digit for digit, line in enumerate(lines[:10])) >= 9
    assert all(0.1 <= float(line[2]) <= 1 for line in lines[:10])
    assert lines[10] == ["What", "the", "model", "saw:", "seen.png"]
    assert Image.open(tmp_path / "seen.png").size == (1440, 600)
    here = predict(str(kept_model(tracked_folder)), paths)
    assert [(str(p.label), f"{p.probability:.3f}") for p in here] == [(line[1], line[2]) for line in lines[:10]]
    pair = tmp_path / "pair.png"
    Image.fromarray(np.hstack([np.asarray(draw(digit, STYLES[0])) for digit in (4, 2)])).save(pair)
    predict(str(kept_model(tracked_folder)), [pair])
    assert capsys.readouterr().err == f"{pair}: seems to hold several digits, which are read as one\n"


@pytest.mark.parametrize("change", ["ink on paper, five times as large", "off centre, in colour"])
def test_mnist_images_as_pictures_are_recognised_as_well(tracked_folder: Path, mnist: Data, change: str) -> None:
    x, y = mnist.x_test[:1000], mnist.y_test[:1000]
    if change == "off centre, in colour":
        colours = np.zeros((1000, 60, 90, 3), np.uint8) + np.array([30, 60, 20], np.uint8)
        colours[:, 20:48, 55:83] += (x[..., None] * np.array([0.8, 0.2, 0.5])).astype(np.uint8)
        pictures = [Image.fromarray(image) for image in colours]
    else:
        pictures = [Image.fromarray(255 - image).resize((140, 140), Image.Resampling.BICUBIC) for image in x]
    model = load(kept_model(tracked_folder))
    prepared = np.stack([digits.to_mnist_format(picture, 28, 28) for picture in pictures])
    raw, pictured = ((model.predict(images, verbose=0).argmax(1) == y).mean() for images in (x, prepared))
    assert pictured >= raw - 0.01


def test_a_prepared_digit_fills_20_by_20_and_is_centred_by_mass() -> None:
    for digit, style in STYLES.items():
        image = digits.to_mnist_format(draw(digit, style), 28, 28)
        rows, columns = (np.flatnonzero(image.any(axis=axis)) for axis in (1, 0))
        assert max(rows[-1] - rows[0], columns[-1] - columns[0]) + 1 == 20
        mass = image / image.sum()
        assert np.abs([(mass.sum(1) @ np.arange(28)) - 14, (mass.sum(0) @ np.arange(28)) - 14]).max() <= 0.51
        assert image.dtype == np.uint8
        assert image.max() == 255


@pytest.mark.parametrize("mode", ["LA", "P", "CMYK", "I;16"])
def test_a_picture_may_have_any_mode(mode: str) -> None:
    plain = draw(3, STYLES[0])
    if mode == "I;16":
        picture = Image.fromarray(np.asarray(plain.convert("L")).astype(np.uint16) * 257)
    else:
        picture = plain.convert(mode)
    expected = digits.to_mnist_format(plain, 28, 28).astype(int)
    assert np.abs(digits.to_mnist_format(picture, 28, 28) - expected).mean() < 10


def test_dirt_and_a_fine_pen_do_not_matter() -> None:
    clean = draw(4, STYLES[4])
    dirty = clean.copy()
    dirty.putpixel((10, 10), (0, 0, 0))
    dirty.putpixel((480, 20), (90, 0, 0))
    np.testing.assert_array_equal(digits.to_mnist_format(dirty, 28, 28), digits.to_mnist_format(clean, 28, 28))
    hair = draw(0, STYLES[0].__class__((600, 600), (0, 0, 0), (255, 255, 255), 2, (50, 50), 0.8))
    assert digits.to_mnist_format(hair, 28, 28).mean() > 20  # MNIST's mean is 33


def test_a_model_of_images_in_colour_gets_the_picture_resized(tmp_path: Path) -> None:
    x = np.zeros((60, 10, 10, 3), np.uint8) + np.arange(0, 250, 25, dtype=np.uint8)[None, :, None, None]
    x[..., 1] = 200
    np.savez(tmp_path / "colour.npz", x_train=x, y_train=np.arange(60) % 3, x_test=x, y_test=np.arange(60) % 3)
    result = run("dataset=npz", f"dataset.path={tmp_path}/colour.npz", "training.epochs=1", "tracking=none")
    Image.fromarray(x[0]).resize((80, 80), Image.Resampling.NEAREST).save(tmp_path / "big.png")
    [found] = predict(str(result.output / "model.keras"), [tmp_path / "big.png"])
    assert found.seen.shape == (10, 10, 3)
    np.testing.assert_allclose(found.seen, x[0], atol=10)


def test_a_sweeps_best_job_and_a_registered_model(tmp_path: Path) -> None:
    options = ("tracking.register=digits", *QUICK, "dataset.validation=500")
    done = in_process("-m", "model.hidden=8,64", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Registered as models:/digits/1, which is now the champion" in done.stdout
    parent, jobs = sweep_in(tmp_path)
    best = next(job for job in jobs if job.info.run_id == facts(parent)["best_run"])
    other = next(job for job in jobs if job is not best)
    client = store(tmp_path)
    assert client.get_model_version_by_alias("digits", "champion").run_id == best.info.run_id
    again = in_process("-m", "model.hidden=8,64", *options, "resume=true", cwd=tmp_path)
    assert "Registered before, as models:/digits/1" in again.stdout
    assert len(client.search_model_versions("name = 'digits'")) == 1
    draw(7, STYLES[7]).save(tmp_path / "seven.png")
    names = (parent.info.run_id, best.info.run_id, "models:/digits@champion", "models:/digits/1")
    printed = {in_process(name, "seven.png", cwd=tmp_path, module="mnist_exp.predict").stdout for name in names}
    assert len(printed) == 1
    assert printed.pop().startswith("seven.png  ")
    any_job = in_process(other.info.run_id, "seven.png", cwd=tmp_path, module="mnist_exp.predict")
    begins = in_process(other.info.run_id[:31], "seven.png", cwd=tmp_path, module="mnist_exp.predict")
    assert begins.stdout == any_job.stdout != ""
    (tmp_path / other.data.tags["mnist_exp.output"] / "run.json").unlink()  # another machine has no such folder
    refused = in_process(other.info.run_id, "seven.png", cwd=tmp_path, module="mnist_exp.predict")
    assert "kept no model, as only a sweep's best job does" in refused.stderr
    file = refused.stderr.split("type its file instead, ")[1].split(" on ")[0]
    assert in_process(file, "seven.png", cwd=tmp_path, module="mnist_exp.predict").stdout == any_job.stdout


def test_a_replaced_runs_model_is_not_taken_from_its_folder(tmp_path: Path) -> None:
    taken = "hydra.run.dir=taken"
    first, second = (run(*QUICK, taken, f"model.hidden={hidden}").run_id for hidden in (4, 8))
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    assert first is not None
    assert second is not None
    (tmp_path / "new").mkdir()
    assert fetch_model(uri, second[:8], tmp_path / "new") == tmp_path / "taken" / "model.keras"
    assert fetch_model(uri, first, tmp_path / "new").is_relative_to(tmp_path / "new")  # the store has it still


@pytest.mark.slow
def test_the_champion_is_the_best_of_those_measured_alike(capsys: pytest.CaptureFixture[str]) -> None:
    def registered(*overrides: str) -> str:
        run("tracking.register=digits", *QUICK, *overrides)
        return str(store(Path()).get_model_version_by_alias("digits", "champion").version)

    assert registered("dataset.validation=500") == "1"
    assert registered("dataset.validation=500", "model.hidden=64") == "2"
    assert re.search(
        r"models:/digits/2, which is now the champion: val_accuracy 0\.\d+ against 0\.", capsys.readouterr().out
    )
    assert registered("dataset.validation=500", "model.hidden=4") == "2"
    assert registered("dataset.validation=400", "model.hidden=128", "training.epochs=4") == "2"
    assert registered("dataset.validation=500", "model.hidden=128", "objective=val_loss") == "2"
    assert registered("dataset.validation=500", "model.hidden=128", "training.loss=MeanSquaredError") == "2"
    assert "champion stays version 2, whose objective was measured otherwise" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "picture", "message"),
    [
        ("no-such-run", "white.png", "no-such-run: no such run in sqlite:///"),
        ("models:/none@champion", "white.png", "models:/none@champion: no such model in sqlite:///"),
        ("models:/none", "white.png", "models:/none: must be models:/NAME@ALIAS"),
        ("MODEL", "white.png", "white.png: no digit stands out from the background"),
        ("MODEL", "none.png", "none.png: no such file"),
        ("MODEL", "text.png", "text.png: must be a whole picture"),
        ("MODEL", "dot.png", "dot.png: is 2 by 1 pixels; must be at least 8 by 8"),
        ("MODEL", "folder", "folder: must be a file; is a folder"),
        ("pipe.keras", "seven.png", "pipe.keras: must be a file; is a pipe, a socket or a device"),
        ("text.keras", "white.png", "text.keras: must be a file model.keras that a run wrote"),
    ],
)
def test_bad_input_is_one_message(tracked_folder: Path, tmp_path: Path, name: str, picture: str, message: str) -> None:
    Image.new("RGB", (50, 50), "white").save(tmp_path / "white.png")
    Image.new("RGB", (2, 1), "white").save(tmp_path / "dot.png")
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "text.keras").write_text("no model")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe.keras")
    draw(7, STYLES[7]).save(tmp_path / "seven.png")
    model = str(kept_model(tracked_folder)) if name == "MODEL" else name
    with pytest.raises(InputError) as caught:
        predict(model, [Path(picture)], [f"tracking.uri=sqlite:///{tracked_folder}/mlflow.db"])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_model_imports_neither_keras_nor_mlflow(tmp_path: Path) -> None:
    draw(7, STYLES[7]).save(tmp_path / "seven.png")
    heavy = "sorted({'keras', 'mlflow', 'tensorflow'} & set(sys.modules))"
    code = f"import atexit, sys; atexit.register(lambda: print({heavy})); from mnist_exp.predict import main; main()"
    program = [sys.executable, "-c", code, "none.keras", "seven.png"]
    done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("[]\n", "none.keras: no such file\n", 1)


def test_a_transparent_corner_or_margin_is_no_ink() -> None:
    page = draw(3, STYLES[0]).convert("RGBA")
    expected = digits.to_mnist_format(page, 28, 28)
    for corner in ((0, 0), (160, 0), (0, 260), (160, 260)):
        page.paste((0, 0, 0, 0), (*corner, corner[0] + 40, corner[1] + 40))
    np.testing.assert_array_equal(digits.to_mnist_format(page, 28, 28), expected)
    assert digits.resize(draw(7, STYLES[7]), 32, 32).max() == 255  # black on nothing: on white


@pytest.mark.parametrize("model", ["experiment=resnet", "rows as a sequence"])
def test_any_kept_model_can_be_loaded(mnist: Data, model: str) -> None:
    rows = "[{Reshape:{target_shape:[28,28]}},{Bidirectional:{layer:{LSTM:{units:4}}}},{Dense:{units:4,activation:gelu,kernel_regularizer:{L2:{l2:0.1}}}}]"  # noqa: E501, one override
    typed = (model,) if "=" in model else ("model=layers", f"model.layers={rows}")
    result = run(*typed, *QUICK, "dataset.limit=500", "dataset.validation=9", "training.epochs=1", "tracking=none")
    again = load(result.output / "model.keras")
    assert isinstance(again, keras.Model)
    np.testing.assert_array_equal(
        again.predict(mnist.x_test[:20], verbose=0), result.model.predict(mnist.x_test[:20], verbose=0)
    )
