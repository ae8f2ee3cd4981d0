"""Which Keras names a configuration may use, checked without importing Keras.

A name stands alone (`Flatten`) or with its arguments (`{Dropout: {rate: 0.5}}`); see `check_spec`. The lists below
are what a configuration can reach: nothing that loads files, runs code or opens connections is on them. What the file
that `code=` names registers comes to them while it is in use.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

from mnist_exp.config.code_file import own_classes, unregistered
from mnist_exp.config.keras_source import REQUIRED, has_class, signature_of
from mnist_exp.errors import InputError, did_you_mean, show

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

LARGER_IS_BETTER = {"accuracy", "AUC", "CosineSimilarity", "F1Score", "Precision", "Recall"} | {
    name for name in ALLOWED["metrics"] if name.endswith("Accuracy")
}

PATH_ARGUMENTS = frozenset({"filepath", "filename"})

# Letters, digits and dots, and in braces what ModelCheckpoint fills in. A format other than that of a number is not
# let through: {epoch:c} is a slash in epoch 47.
_FILE_NAME = re.compile(r"(?!\.)(?:[\w.-]|\{[a-z]\w*(?::\d{0,2}(?:\.\d{1,2})?[df]?)?\}){1,100}", re.ASCII)
_OWN_FILES = frozenset(
    {"code", "config.yaml", "error.txt", "figures", "metrics.jsonl", "model", "model.keras", "run.json", "run.log"}
)

_WHOLE = """
    class_id cooldown decay_steps depth_multiplier dilation_rate ema_overwrite_frequency filters first_decay_steps
    gradient_accumulation_steps k kernel_size n ns_steps patience pool_size start_from_epoch strides units warmup_steps
"""
# What a number must be, by the argument's name: but for `factor`, Keras uses one name for one thing in its classes.
_AT_LEAST_1 = (lambda v: v >= 1, "at least 1")
_NOT_NEGATIVE = (lambda v: v >= 0, "0 or more")
_POSITIVE = (lambda v: v > 0, "greater than 0")
_BELOW_1 = (lambda v: 0 <= v < 1, "from 0 up to, not including, 1")
_UP_TO_1 = (lambda v: 0 <= v <= 1, "from 0 to 1")
_RANGES = {
    name: rule
    for rule, names in (
        (_AT_LEAST_1, "units filters kernel_size pool_size strides dilation_rate depth_multiplier n k decay_steps"),
        (_AT_LEAST_1, "first_decay_steps ema_overwrite_frequency ns_steps"),
        (_NOT_NEGATIVE, "patience cooldown start_from_epoch min_delta min_lr weight_decay adam_weight_decay epsilon"),
        (_NOT_NEGATIVE, "epsilon_1 epsilon_2 l1 l2 warmup_steps stddev initial_accumulator_value"),
        (_NOT_NEGATIVE, "l1_regularization_strength l2_regularization_strength padding_value"),
        (_POSITIVE, "learning_rate initial_learning_rate decay_rate clipnorm clipvalue global_clipnorm"),
        (_POSITIVE, "loss_scale_factor clip_threshold"),
        (_BELOW_1, "rate beta_1 beta_2 adam_beta_1 adam_beta_2 rho"),
        (_UP_TO_1, "momentum ema_momentum label_smoothing"),
        ((lambda v: 0 < v < 1, "between 0 and 1"), "factor"),
        ((lambda v: v >= 2, "at least 2"), "gradient_accumulation_steps"),
        ((lambda _: True, "such as 0.9"), "baseline"),
    )
    for name in names.split()
}


def check_name(kind: str, name: Any, key: str) -> None:
    """Check that `name` is one of `ALLOWED[kind]` and that the installed Keras has it, or that it is the user's own.

    Raises:
        InputError: with the nearest name, or the whole list where none is near.
    """
    allowed, own = ALLOWED[kind], own_classes(kind)
    if isinstance(name, str) and name in own:
        return
    if isinstance(name, str) and name in allowed:
        if not has_class(kind, name):
            raise InputError(f"{key}={name}: the installed Keras has no {name}; a newer Keras may have it")
        return
    nearest = allowed | own.keys() | {"metrics": {"accuracy"}, "layers": {"Branches", "Residual"}}.get(kind, set())
    choices = [*own, *sorted(allowed, key=str.lower)]
    hint = unregistered(name) or did_you_mean(str(name), nearest) or f"; the choices are {', '.join(choices)}"
    where = key if key.endswith(f".{name}") else f"{key}={show(name)}"
    raise InputError(f"{where}: not one of the {kind} that can be used here{hint}")


def check_spec(kind: str, spec: Any, key: str) -> None:
    """Check a Keras object as configuration spells it: `Name` or `{Name: {argument: value}}`.

    Raises:
        InputError: if the form, the name, an argument's name, type or range is wrong, or one is missing.
    """
    name, arguments = parse_spec(spec, key)
    check_name(kind, name, key)
    if kind == "activations":
        if arguments:
            raise InputError(f"{key}={show(spec)}: an activation takes no arguments here; write {name}")
        return
    check_arguments(kind, name, arguments, key if isinstance(spec, str) else f"{key}.{name}")


def check_layer(spec: Any, key: str) -> None:
    """Check an item of a list of layers: a layer, as `check_spec` does, or a block of layers.

    `{Residual: [LAYERS]}` adds its input to what its layers give; `{Branches: [[LAYERS], [LAYERS]]}` joins what the
    branches give along their last axis.

    Raises:
        InputError: as `check_spec` does, or if a block does not hold lists of layers.
    """
    match spec:
        case {"Residual": layers, **others} if not others:
            _check_layers(layers, f"{key}.Residual")
        case {"Branches": [_, _, *_] as branches, **others} if not others:
            for index, layers in enumerate(branches):
                _check_layers(layers, f"{key}.Branches[{index}]")
        case {"Branches": other}:
            raise InputError(f"{key}.Branches={show(other)}: must be two or more lists of layers, [[LAYERS], [LAYERS]]")
        case _:
            check_spec("layers", spec, key)


def _check_layers(layers: Any, key: str) -> None:
    if not isinstance(layers, list):
        raise InputError(f"{key}={show(layers)}: must be a list of layers, such as [Flatten, {{Dense: {{units: 64}}}}]")
    for index, layer in enumerate(layers):
        check_layer(layer, f"{key}[{index}]")


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
    raise InputError(f"{key}={show(spec)}: must be a name, or a name with arguments, such as {{Dense: {{units: 64}}}}")


def check_arguments(kind: str, name: str, arguments: Mapping[str, Any], key: str) -> None:
    """Check the arguments of the class `name`, Keras's or the user's own, against its signature.

    Raises:
        InputError: for an argument that the class does not take, lacks, or that has a wrong type or range.
    """
    own = own_classes(kind).get(name)
    signature = signature_of(kind, name) if own is None else own.signature
    for argument, value in arguments.items():
        if argument not in signature:
            hint = did_you_mean(str(argument), signature) or f"; it takes {', '.join(signature) or 'none'}"
            raise InputError(f"{key}.{argument}={show(value)}: {name} has no such argument{hint}")
        _check_argument(kind, argument, value, signature[argument], f"{key}.{argument}", own=own is not None)
    for argument, default in signature.items():
        if default is REQUIRED and argument not in arguments:
            raise InputError(f"{key}: {name} needs {argument}; write {{{name}: {{{argument}: ...}}}}")


def argument_kind(argument: str) -> str | None:
    """Return the kind of Keras object that an argument takes, by its name; None for plain values.

    >>> argument_kind("kernel_initializer"), argument_kind("units")
    ('initializers', None)
    """
    if argument in {"layer", "backward_layer"}:
        return "layers"
    if argument == "learning_rate":
        return "schedules"
    for ending in ("activation", "initializer", "regularizer", "constraint"):
        if argument == ending or argument.endswith(f"_{ending}"):
            return f"{ending}s"
    return None


def metric_name(spec: Any) -> str:
    """Return the name under which Keras logs a metric, without its `val_` form.

    >>> metric_name("accuracy"), metric_name({"TopKCategoricalAccuracy": {"k": 3}})
    ('accuracy', 'top_k_categorical_accuracy')
    """
    name, arguments = parse_spec(spec, "metrics")
    if name == "accuracy":
        return name
    own = own_classes("metrics").get(name)
    default = (signature_of("metrics", name) if own is None else own.signature).get("name")
    return str(arguments.get("name") or (default if isinstance(default, str) else _snake_case(name)))


def _snake_case(name: str) -> str:
    """Return what Keras calls an object of a class by default.

    >>> _snake_case("TopKHits")
    'top_k_hits'
    """
    return re.sub("([a-z])([A-Z])", r"\1_\2", re.sub(r"(.)([A-Z][a-z0-9]+)", r"\1_\2", name)).lower()


def is_own(kind: str, spec: Any) -> bool:
    """Whether a checked spec names a class of the file that `code=` names."""
    return parse_spec(spec, kind)[0] in own_classes(kind)


def _check_argument(kind: str, argument: str, value: Any, default: Any, key: str, *, own: bool) -> None:
    of_kind = argument_kind(argument)
    if value is not None and of_kind is not None and (of_kind != "schedules" or isinstance(value, Mapping)):
        check_spec(of_kind, value, key)
    elif argument in PATH_ARGUMENTS:
        if not isinstance(value, str) or not _FILE_NAME.fullmatch(value) or value.casefold() in _OWN_FILES:
            raise InputError(
                f"{key}={show(value)}: must be the name of a new file in the run's output folder, such as best.keras; "
                "{epoch:02d} or a metric's name in braces is filled in"
            )
    elif argument == "name":
        if value is not None and (not isinstance(value, str) or not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", value)):
            raise InputError(f"{key}={show(value)}: must be a word of letters, digits and underscores")
    elif own:
        _check_own_argument(value, default, key)
    elif argument == "mode" and kind == "callbacks":
        if value not in ("auto", "min", "max"):
            raise InputError(f"{key}={show(value)}: must be one of auto, min, max")
    elif isinstance(value, list) and _takes_list(kind, argument, default):
        for item in value:
            plain = item is None or (isinstance(item, int | float | str) and not isinstance(item, bool))
            if not plain or (isinstance(item, str) and default is not None):
                raise InputError(f"{key}={show(value)}: must be {_wanted(default)}")
            if isinstance(item, int | float):
                _check_number(kind, argument, item, key)
    else:
        _check_scalar(kind, argument, value, default, key)


def _check_own_argument(value: Any, default: Any, key: str) -> None:
    """Compare with the type of the default alone; one of null, or none, leaves it open."""
    types = {bool: (bool,), int: (int, float), float: (int, float), str: (str,)}.get(type(default))
    if types is not None and type(value) not in types:
        raise InputError(f"{key}={show(value)}: must be {_wanted(default)}")


def _takes_list(kind: str, argument: str, default: Any) -> bool:
    if kind == "augmentations":  # of a random amount, a number is the most and a list the least and the most
        return not isinstance(default, bool | str)
    return not isinstance(default, bool | int | float | str) and (kind != "optimizers" or argument not in _RANGES)


def _check_scalar(kind: str, argument: str, value: Any, default: Any, key: str) -> None:
    """Compare with the default's type: Keras states no others. A default of null leaves the type open."""
    ranged = argument in _RANGES
    match value:
        case bool():
            fits = isinstance(default, bool) or (default is None and not ranged)
        case int() | float():
            fits = not isinstance(default, bool | str) or argument == "save_freq"
        case str():
            fits = not isinstance(default, bool | int | float | tuple) and not ranged
        case None:
            fits = default is None or (default is not REQUIRED and not ranged and not isinstance(default, bool))
        case _:
            fits = False
    if not fits:
        wanted = "a number" if ranged and not isinstance(default, bool) else _wanted(default)
        raise InputError(f"{key}={show(value)}: must be {wanted}{_range_text(argument)}")
    if isinstance(value, int | float) and not isinstance(value, bool):
        _check_number(kind, argument, value, key)


def _check_number(kind: str, argument: str, value: float, key: str) -> None:
    try:
        finite = math.isfinite(value)
    except OverflowError:  # a whole number too large for a float
        raise InputError(f"{key}: must be a number of at most 300 digits") from None
    if not finite:
        raise InputError(f"{key}={show(value)}: must be a finite number")
    if argument in _WHOLE.split() and not isinstance(value, int):
        raise InputError(f"{key}={show(value)}: must be a whole number{_range_text(argument)}")
    if argument == "factor" and kind != "callbacks":
        return  # how far a random layer goes, not how much a learning rate falls
    if argument in _RANGES and not _RANGES[argument][0](value):
        raise InputError(f"{key}={show(value)}: must be a number{_range_text(argument)}")


def _range_text(argument: str) -> str:
    return f", {_RANGES[argument][1]}" if argument in _RANGES else ""


def _wanted(default: Any) -> str:
    if isinstance(default, bool):
        return "true or false"
    if isinstance(default, str):
        return f"a word, such as {default}"
    if isinstance(default, tuple):
        return "a number or a list of numbers"
    return "a number" if isinstance(default, int | float) else "one number or text"
