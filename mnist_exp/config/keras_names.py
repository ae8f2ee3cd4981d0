"""Check the Keras names in a configuration, without importing Keras.

A name stands alone (`Flatten`) or with its arguments (`{Dropout: {rate: 0.5}}`). A configuration can reach only the
names below, none of which loads files, runs code or opens connections, and those that the file in use registers.
"""

import re
from collections.abc import Mapping
from typing import Any

from mnist_exp.config.keras_source import REQUIRED, has_class, is_plain, read_signature
from mnist_exp.config.own_code import hint_registration, own_classes, read_arguments
from mnist_exp.errors import InputError, did_you_mean, format_value

ALLOWED: dict[str, frozenset[str]] = {
    kind: frozenset(names.split())
    for kind, names in {
        "activations": """
            celu elu exponential gelu hard_shrink hard_sigmoid hard_silu hard_tanh leaky_relu linear log_sigmoid
            log_softmax mish relu relu6 selu sigmoid silu soft_shrink softmax softplus softsign sparse_plus
            sparse_sigmoid sparsemax squareplus tanh tanh_shrink""",
        "augmentations": """
            RandomBrightness RandomContrast RandomErasing RandomFlip RandomGaussianBlur
            RandomInvert RandomPerspective RandomRotation RandomSharpness RandomShear RandomTranslation RandomZoom""",
        "callbacks": """
            CSVLogger EarlyStopping ModelCheckpoint ReduceLROnPlateau SwapEMAWeights TerminateOnNaN""",
        "constraints": "MaxNorm MinMaxNorm NonNeg UnitNorm",
        "initializers": """
            Constant GlorotNormal GlorotUniform HeNormal HeUniform Identity LecunNormal LecunUniform Ones Orthogonal
            RandomNormal RandomUniform TruncatedNormal VarianceScaling Zeros""",
        "layers": """
            Activation ActivityRegularization AlphaDropout AveragePooling1D AveragePooling2D AveragePooling3D
            BatchNormalization Bidirectional Conv1D Conv1DTranspose Conv2D Conv2DTranspose Conv3D ConvLSTM1D
            Cropping1D Cropping2D Dense DepthwiseConv1D DepthwiseConv2D Dropout ELU Flatten GRU GaussianDropout
            GaussianNoise GlobalAveragePooling1D GlobalAveragePooling2D GlobalMaxPooling1D GlobalMaxPooling2D
            GroupNormalization Identity LSTM LayerNormalization LeakyReLU MaxPooling1D MaxPooling2D MaxPooling3D PReLU
            Permute RMSNormalization RandomBrightness RandomContrast RandomErasing RandomFlip RandomRotation
            RandomShear RandomTranslation RandomZoom ReLU RepeatVector Rescaling Reshape Resizing SeparableConv1D
            SeparableConv2D SimpleRNN Softmax SpatialDropout1D SpatialDropout2D SpectralNormalization TimeDistributed
            UnitNormalization UpSampling1D UpSampling2D ZeroPadding1D ZeroPadding2D""",
        "losses": """
            BinaryCrossentropy BinaryFocalCrossentropy CategoricalCrossentropy CategoricalFocalCrossentropy
            CategoricalHinge CosineSimilarity Dice Hinge Huber KLDivergence LogCosh MeanAbsoluteError MeanSquaredError
            Poisson SparseCategoricalCrossentropy SquaredHinge Tversky""",
        "metrics": """
            AUC CategoricalAccuracy CategoricalCrossentropy CategoricalHinge CosineSimilarity F1Score KLDivergence
            MeanAbsoluteError MeanSquaredError Poisson Precision Recall RootMeanSquaredError
            SparseCategoricalAccuracy SparseCategoricalCrossentropy SparseTopKCategoricalAccuracy
            TopKCategoricalAccuracy""",
        "optimizers": """
            Adadelta Adafactor Adagrad Adam AdamW Adamax Ftrl Lamb Lion Muon Nadam RMSprop SGD ScheduleFreeAdamW""",
        "regularizers": "L1 L1L2 L2 OrthogonalRegularizer",
        "schedules": """
            CosineDecay CosineDecayRestarts ExponentialDecay InverseTimeDecay PiecewiseConstantDecay
            PolynomialDecay""",
    }.items()
}

# Keras's own short names of losses and metrics.
_ALIASES = {"acc": "accuracy", "bce": "BinaryCrossentropy", "kld": "KLDivergence", "mae": "MeanAbsoluteError"}
_ALIASES |= {"mse": "MeanSquaredError", "rmse": "RootMeanSquaredError"}

LARGER_IS_BETTER = {"accuracy", "AUC", "CosineSimilarity", "F1Score", "Precision", "Recall"} | {
    name for name in ALLOWED["metrics"] if name.endswith("Accuracy")
}

# Numbers of Keras's optimizers that are used only in arithmetic, so that a traced program can take them as values.
# Others decide which code runs, as in `if self.momentum != 0`.
SCALARS = ("beta_1", "beta_2", "epsilon", "rho", "weight_decay", "ema_momentum")

PATH_ARGUMENTS = frozenset({"filepath", "filename"})

# Letters, digits and dots, and in braces what ModelCheckpoint fills in, in formats of numbers only, as {epoch:c} is a
# slash in epoch 47.
_FILE_NAME = re.compile(r"(?!\.)(?:[\w.-]|\{[a-z]\w*(?::\d{0,2}(?:\.\d{1,2})?[df]?)?\}){1,100}", re.ASCII)


def fold(text: str) -> str:
    """Return a text's letters and digits in lower case, by which names compare."""
    return re.sub("[^a-z0-9]", "", text.lower())


def canonical(kind: str, spec: Any) -> Any:
    """Return the spec of a loss or a metric under its class's name.

    >>> canonical("losses", "mse"), canonical("metrics", {"top_k_categorical_accuracy": {"k": 3}})
    ('MeanSquaredError', {'TopKCategoricalAccuracy': {'k': 3}})
    """
    if isinstance(spec, Mapping) and len(spec) == 1:
        return {canonical(kind, name): arguments for name, arguments in spec.items()}
    if kind not in ("losses", "metrics") or not isinstance(spec, str) or spec in own_classes(kind):
        return spec
    return _ALIASES.get(spec.lower(), {fold(name): name for name in ALLOWED[kind]}.get(fold(spec), spec))


def check_name(kind: str, name: Any, key: str) -> None:
    """Check that `name` is the user's own, or one of `ALLOWED[kind]` in this Keras.

    Args:
        kind: a kind of `ALLOWED`, such as "layers".
        name: the class.
        key: of the name, for messages.

    Raises:
        InputError: with the nearest name, or all names if none is near.
    """
    allowed, own = ALLOWED[kind], own_classes(kind)
    if isinstance(name, str) and (name in own or (name in allowed and has_class(kind, name))):
        return
    if isinstance(name, str) and name in allowed:
        raise InputError(f"{key}={name}: the installed Keras has no {name}; a newer Keras may have it")
    nearest = allowed | own.keys() | {"metrics": {"accuracy"}, "layers": {"Branches", "Residual"}}.get(kind, set())
    choices = [*own, *sorted(allowed, key=str.lower)]
    is_last = key.endswith(f".{name}")
    above = key.removesuffix(str(name)) if is_last else "" if "[" in key or "." not in key else f"{key}="
    near = did_you_mean(str(name), nearest, above)
    hint = hint_registration(name) or near or f"; the choices are {', '.join(choices)}"
    where = key if is_last else f"{key}={format_value(name)}"
    number = "a number, nor " if kind == "schedules" else ""
    raise InputError(f"{where}: not {number}one of the {kind} that can be used here{hint}")


def check_spec(kind: str, spec: Any, key: str) -> None:
    """Check the spec of a Keras object: `Name` or `{Name: {argument: value}}`.

    Args:
        kind: a kind of `ALLOWED`, such as "layers".
        spec: as it was configured.
        key: of the object, for messages.

    Raises:
        InputError: if its form, its name or an argument is wrong, or one is missing.
    """
    if kind == "activations" and not isinstance(spec, str | Mapping):
        raise InputError(f"{key}={format_value(spec)}: must be a name, such as relu")
    name, arguments = parse_spec(spec, key)
    if kind == "metrics" and spec == "accuracy":  # Keras chooses the class by the labels
        return
    check_name(kind, name, key)
    if kind == "activations":
        if arguments:
            raise InputError(f"{key}={format_value(spec)}: an activation takes no arguments here; write {name}")
    else:
        check_arguments(kind, name, arguments, key if isinstance(spec, str) else f"{key}.{name}")


def parse_spec(spec: Any, key: str) -> tuple[str, dict[str, Any]]:
    """Split a spec into its name and arguments.

    >>> parse_spec("Flatten", "key"), parse_spec({"Dropout": {"rate": 0.5}}, "key")
    (('Flatten', {}), ('Dropout', {'rate': 0.5}))
    """
    if isinstance(spec, str):
        return spec, {}
    if isinstance(spec, Mapping) and len(spec) == 1:
        [(name, arguments)] = spec.items()
        if arguments is None:
            return str(name), {}
        if isinstance(arguments, Mapping):
            return str(name), dict(arguments)
    null = f"; {key}=null before it takes the other away" if isinstance(spec, Mapping) and len(spec) > 1 else ""
    wanted = "must be a name, or a name with arguments, such as {Dense: {units: 64}}"
    raise InputError(f"{key}={format_value(spec)}: {wanted}{null if '[' not in key else ''}")


def check_arguments(kind: str, name: str, arguments: Mapping[str, Any], key: str) -> None:
    """Check the arguments of a class, Keras's or the user's own.

    Args:
        kind: a kind of `ALLOWED`, such as "layers".
        name: the class.
        arguments: by name.
        key: of the object, for messages.

    Raises:
        InputError: for one that is missing or unknown, or that must not reach Keras.
    """
    own, signature = name in own_classes(kind), _signature(kind, name)
    for argument, value in arguments.items():
        if argument not in signature:
            near = did_you_mean(str(argument), signature, f"{key}.", f"={format_value(value)}")
            if kind == "optimizers" and (others := _optimizers_with(argument)):
                near = f"; it is an argument of {', '.join(others)}"
            hint = near or f"; it takes {', '.join(signature) or 'none'}"
            raise InputError(f"{key}.{argument}={format_value(value)}: {name} has no such argument{hint}")
        _check_argument(argument, value, f"{key}.{argument}", own=own)
    for argument, default in signature.items():
        if default is REQUIRED and argument not in arguments:
            raise InputError(f"{key}: {name} needs {argument}; write {{{name}: {{{argument}: ...}}}}")


def _optimizers_with(argument: str) -> list[str]:
    known = (name for name in sorted(ALLOWED["optimizers"]) if has_class("optimizers", name))
    return [name for name in known if argument in read_signature("optimizers", name)]


def _signature(kind: str, name: str) -> Mapping[str, Any]:
    own = own_classes(kind).get(name)
    return read_signature(kind, name) if own is None else read_arguments(own)


def argument_kind(argument: str) -> str | None:
    """Return the kind of Keras object an argument takes, or None for plain values.

    >>> argument_kind("kernel_initializer"), argument_kind("units")
    ('initializers', None)
    """
    kinds = {"layer": "layers", "backward_layer": "layers", "learning_rate": "schedules"}
    endings = ("activation", "initializer", "regularizer", "constraint")
    found = (f"{ending}s" for ending in endings if f"_{argument}".endswith(f"_{ending}"))
    return kinds.get(argument) or next(found, None)


def metric_name(spec: Any) -> str:
    """Return the name under which Keras logs a metric in training.

    >>> metric_name("accuracy"), metric_name({"TopKCategoricalAccuracy": {"k": 3}})
    ('accuracy', 'top_k_categorical_accuracy')
    """
    name, arguments = parse_spec(spec, "metrics")
    if name == "accuracy":
        return name
    default = _signature("metrics", name).get("name")
    # In snake case, as Keras does it.
    by_default = re.sub("([a-z])([A-Z])", r"\1_\2", re.sub(r"(.)([A-Z][a-z0-9]+)", r"\1_\2", name)).lower()
    return str(arguments.get("name") or (default if isinstance(default, str) else by_default))


def is_own(kind: str, spec: Any) -> bool:
    """Whether a checked spec names a class of the user's own."""
    return parse_spec(spec, kind)[0] in own_classes(kind)


def _check_argument(argument: str, value: Any, key: str, *, own: bool) -> None:
    of_kind = argument_kind(argument)
    if value is not None and of_kind is not None and not (of_kind == "schedules" and isinstance(value, int | float)):
        check_spec(of_kind, value, key)
        return
    fits: object
    if argument in PATH_ARGUMENTS:
        fits = isinstance(value, str) and _FILE_NAME.fullmatch(value)
        wanted = (
            "the name of a new file in the run's output folder, such as best.keras; {epoch:02d} or a metric's name in "
            "braces is filled in"
        )
    elif argument == "name":
        fits = value is None or (isinstance(value, str) and re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", value))
        wanted = "a word of letters, digits and underscores"
    else:
        fits = is_plain(value) and (own or not _has_map(value))  # Keras makes objects of maps
        wanted = "null, true, false, text, a number of at most 300 digits, or a list of these"
    if not fits:
        raise InputError(f"{key}={format_value(value)}: must be {wanted}")


def _has_map(value: Any) -> bool:
    return isinstance(value, Mapping) or (isinstance(value, list) and any(map(_has_map, value)))
