"""The schema: what is refused, and in which words."""
# ruff: noqa: E501, a case a line reads best

from dataclasses import asdict

import pytest
import yaml

from mnist_exp.config import CONF
from mnist_exp.config.composition import check_composed, compose
from mnist_exp.config.hydra_compose import compose_values
from mnist_exp.errors import InputError

pytestmark = pytest.mark.fast

IMAGES = "model=layers"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ("model.hidden=0", "model.hidden=0: must be a whole number, at least 1, or a list"),
        ("model.hidden=[]", "model.hidden=[]: must be"),
        ("model.hidden=[16,0]", "model.hidden[1]=0: must be a whole number, at least 1"),
        ("model.hidden=true", "model.hidden=true: must be a whole number"),
        ("model.dropout=1", "model.dropout=1: must be a number from 0"),
        ("model.activation=sigmod", "model.activation=sigmod: not one of the activations that can be used here; did you mean model.activation=sigmoid?"),
        ("training.epochs=0", "training.epochs=0: must be a whole number, at least 1"),
        *((f"training.checkpoint_seconds={value}", "must be a number greater than 0, such as 30, or null") for value in (0, "inf", "soon")),
        ("training.shuffle=1", "training.shuffle=1: must be true or false"),
        ("training.callbacks={EarlyStoping:{}}", "did you mean training.callbacks.EarlyStopping?"),
        ("training.callbacks={EarlyStopping:{patince:3}}", "patince=3: EarlyStopping has no such argument; did you mean training.callbacks.EarlyStopping.patience=3?"),
        ("training.callbacks={EarlyStopping:{monitor:val_acc}}", "monitor=val_acc: no such metric; did you mean val_accuracy?"),
        ("training.callbacks={ModelCheckpoint:{}}", "ModelCheckpoint needs filepath"),
        ("training.callbacks={ModelCheckpoint:{filepath:../a.keras}}", "must be the name of a new file"),
        ("training.callbacks={SwapEMAWeights:{}}", "needs optimizer.use_ema=true"),
        ("preprocessing.augment.a=3", "preprocessing.augment is a list; set all of it"),
        ("training.metrics.a=3", "training.metrics is a list; set all of it, such as 'training.metrics=[A,B]'"),
        ("training.metrics=[F1Score]", "gives a value per class; use {F1Score: {average: macro}} for one"),
        ("training.callbacks={RemoteMonitor:{}}", "not one of the callbacks that can be used here"),
        ("optimizer.momentum=0.9", "Adam has no such argument; it is an argument of Muon, RMSprop, SGD"),
        ("model.activation=true", "model.activation=true: must be a name, such as relu"),
        ("optimizer.learning_rate=-0.1", "optimizer.learning_rate=-0.1: must be greater than 0, such as 0.001"),
        ("optimizer.learning_rate=nan", "optimizer.learning_rate=nan: must be greater than 0, such as 0.001"),
        ("optimizer.learning_rate=fast", "optimizer.learning_rate=fast: not a number, nor one of the schedules"),
        ("optimizer.learning_rate={CosineDecay:{decay_steps:10}}", "CosineDecay needs initial_learning_rate"),
        (f"optimizer.beta_1=1{'0' * 300}", "must be null, true, false, text, a number of at most 300 digits"),
        (f"{IMAGES} model.layers=[{{Dense:{{units:3,dtype:[{{class_name:Lambda}}]}}}}]", "model.layers[0].Dense.dtype=[{class_name: Lambda}]: must be null, true"),
        ("optimizer.kind=Adan", "optimizer.kind=Adan: not one of the optimizers that can be used here; did you mean optimizer.kind=Adam?"),
        ("dataset.validation=0", "dataset.validation=0: must be test, or a whole number, at least 1, or a fraction"),
        ("dataset.validation=tset", "dataset.validation=tset: must be test"),
        ("dataset.limit=9 dataset.validation=9", "dataset.validation=9: must be less than dataset.limit=9, or a share"),
        ("dataset=npz dataset.path=nowhere.npz", "dataset.path=nowhere.npz: must be an existing file or folder"),
        ("dataset=keras dataset.name=mnst", "dataset.name=mnst: must be one of mnist, fashion_mnist, cifar10, cifar100; did you mean dataset.name=mnist?"),
        ("dataset.kind=csv", "dataset.kind=csv: must be one of mnist, npz, idx, keras"),
        ("seed=-1", "seed=-1: must be a whole number from 0"),
        ("preprocessing.scale=yes please", "preprocessing.scale=yes please: must be true or false"),
        ("tracking.uri=foo://bar", "tracking.uri: must be the address of a store"),
        ("tracking.uri=http://127.0.0.1:abc", "tracking.uri: must be the address of a store"),
        ("tracking.uri='sqlite:///:memory:'", "tracking.uri: must be the address of a store"),
        ("tracking.tags={mnist_exp.signature:mine}", "tracking.tags.mnist_exp.signature: begins with mlflow. or mnist_exp."),
        ("tracking.register=..", "tracking.register=..: must be a name of letters, digits, _ - and ., and no folder"),
        ("tracking.experiment='\x1b[2J'", "must be some text, on one line"),
        ("training.metrics=[{MeanSquaredError:{name:objective}}]", "training.metrics[0]={MeanSquaredError: {name: objective}}: would be logged as objective"),
        ("training.metrics=[accuracy,{MeanSquaredError:{name:test_accuracy}}]", "training.metrics[1]={MeanSquaredError: {name: test_accuracy}}: would be logged as test_accuracy"),
        ("training.metrics=[accuracy,accuracy]", "training.metrics[1]=accuracy: would be logged as accuracy"),
        ("model.hidden=99999999999999", "model.hidden=99999999999999: must be a whole number"),
        ("training.callbacks={CSVLogger:{filename:Predictions.CSV}}", "must be the name of a new file; the run, or an"),
        ("training.callbacks={CSVLogger:{filename:a.h5},ModelCheckpoint:{filepath:A.h5}}", "must be the name of a new"),
        ("training.callbacks={ModelCheckpoint:{filepath:'..{epoch:c}x.keras'}}", "must be the name of a new file"),
        ("training.callbacks={ModelCheckpoint:{filepath:'{nope}.keras'}}", "no such metric as nope"),
        ("training.metrics=[{AUC:{name:5}}]", "AUC.name=5: must be a word"),
        ("model=cnn preprocessing=flatten", "model=cnn needs images; preprocessing=image fits"),
        ("model=mlp preprocessing=image", "model=mlp needs vectors; preprocessing=flatten fits"),
        (f"{IMAGES} model.layers=[Flaten]", "model.layers[0]=Flaten: not one of the layers that can be used here; did you mean Flatten?"),
        (f"{IMAGES} model.layers=[Flatten,{{Dense:{{}}}}]", "model.layers[1].Dense: Dense needs units"),
        (f"{IMAGES} model.layers=[{{Dense:{{units:3,activation:rlu}}}}]", "activation=rlu: not one of the activations"),
        (f"{IMAGES} model.layers=[{{Dense:{{units:3,kernel_initializer:{{HeNorml:{{}}}}}}}}]", "did you mean HeNormal?"),
        (f"{IMAGES} model.layers=[{{Bidirectional:{{layer:Lambda}}}}]", "layer=Lambda: not one of the layers"),
        (f"{IMAGES} model.layers=[{{Residual:Flatten}}]", "model.layers[0].Residual=Flatten: must be a list of layers"),
        (f"{IMAGES} model.layers=[{{Residual:[{{Dense:{{unit:3}}}}]}}]", "model.layers[0].Residual[0].Dense.unit=3: Dense has no such argument"),
        (f"{IMAGES} model.layers=[{{Branches:[[Flatten]]}}]", "model.layers[0].Branches=[[Flatten]]: must be two or more lists of layers"),
        (f"{IMAGES} model.layers=[{{Branches:[[],[Flaten]]}}]", "model.layers[0].Branches[1][0]=Flaten: not one of the layers that can be used here; did you mean Flatten?"),
        (f"{IMAGES} model.layers=[{{Bidirectional:{{layer:{{Residual:[Flatten]}}}}}}]", "must be a name"),
        (f"{IMAGES} model.layers=Flatten", "model.layers=Flatten: must be a list"),
        ("experiment=convnet optimizer.learning_rate.CosineDecay.nope.x=1", "optimizer.learning_rate.CosineDecay.nope={x: 1}: CosineDecay has no such argument"),
        ("experiment=convnet optimizer.learning_rate={ExponentialDecay:{decay_rate:0.9}}", "; optimizer.learning_rate=null before it takes the other away"),
        ("experiment=convnet model=mlp", "model (mlp) has no such key; it is a key of model=layers"),
        ("experiment=convnet training.callbacks={ReduceLROnPlateau:{}}", "a schedule; choose one"),
        ("objective=f1", "objective=f1: this run logs no such metric; it logs loss, accuracy, val_loss"),
        ("tracking=none tracking.tags.study=x", "tracking (none) has no such key; it is a key of tracking=mlflow"),
    ],
)  # fmt: skip
def test_bad_values_are_refused(overrides: str, message: str) -> None:
    typed = overrides.split(" ") if "please" not in overrides else [overrides]
    with pytest.raises(InputError) as caught:
        compose(typed)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "sparse", ["training.loss=SparseCategoricalCrossentropy", "training.metrics=[SparseCategoricalAccuracy]"]
)
def test_labels_must_fit_the_loss_and_the_metrics(sparse: str) -> None:
    with pytest.raises(InputError, match=r"preprocessing\.one_hot=false does"):
        compose([sparse])
    compose([sparse, "preprocessing.one_hot=false", "objective=val_loss"])
    with pytest.raises(InputError, match=r"preprocessing\.one_hot=true does"):
        compose(["training.loss=MeanSquaredError", "preprocessing.one_hot=false"])


@pytest.mark.parametrize(
    "choice",
    [f"{path.parent.name}={path.stem}" for path in sorted(CONF.glob("*/*.yaml")) if path.parent.name != "sweep"],
)
def test_every_choice_composes_and_keeps_the_shape_of_its_file(choice: str) -> None:
    group, _, name = choice.partition("=")
    needed = {
        "npz": ["dataset.path=."],
        "idx": ["dataset.path=."],
        "folder": ["dataset.path=."],
        "image": ["model=cnn"],
        "threshold": ["prune.lower=0.5"],
    }.get(name, [])
    config = asdict(check_composed(compose_values([choice, *needed]), None))
    if group != "experiment":
        written = yaml.safe_load((CONF / group / f"{name}.yaml").read_text())
        assert set(config[group]) == set(written) - {"defaults"}


def test_every_file_of_conf_opens_with_its_purpose_and_a_command() -> None:
    for path in CONF.rglob("*.yaml"):
        comment = [line for line in path.read_text().splitlines()[:5] if line.startswith("# ") and "@" not in line]
        assert comment, path
        assert any("python -m mnist_exp" in line for line in comment), path
