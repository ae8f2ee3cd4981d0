"""The names of Keras that a configuration may use, checked without importing Keras.

A name stands alone (`Flatten`) or with its arguments (`{Dropout: {rate: 0.5}}`). A configuration can reach only the
names below, none of which loads files, runs code or opens connections, and those that the file in use registers.
"""

import re
from collections.abc import Mapping
from typing import Any

from mnist_exp.config.keras_source import REQUIRED, has_class, signature_of
from mnist_exp.config.own_code import arguments_of, own_classes, unregistered
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

# Numbers of Keras's optimizers that are used only in arithmetic, so that a traced program can take them as values.
# Others decide which code runs, as in `if self.momentum != 0`.
SCALARS = ("beta_1", "beta_2", "epsilon", "rho", "weight_decay", "ema_momentum")

PATH_ARGUMENTS = frozenset({"filepath", "filename"})

# Letters, digits and dots, and in braces what ModelCheckpoint fills in, in formats of numbers only, as {epoch:c} is a
# slash in epoch 47.
_FILE_NAME = re.compile(r"(?!\.)(?:[\w.-]|\{[a-z]\w*(?::\d{0,2}(?:\.\d{1,2})?[df]?)?\}){1,100}", re.ASCII)

_LARGEST, _LARGEST_WHOLE = 3.4e38, 2**31 - 1  # of float32 and int32
_WHOLE = """
    axis class_id cooldown decay_steps depth_multiplier dilation_rate ema_overwrite_frequency filters first_decay_steps
    gradient_accumulation_steps height k kernel_size n ns_steps patience pool_size save_freq start_from_epoch strides
    top_k units verbose warmup_steps width
"""
# The words that an argument may have, where Keras itself takes any.
_FLIPS = ("horizontal", "vertical", "horizontal_and_vertical")
_WORDS = {
    ("callbacks", "mode"): ("auto", "min", "max"),
    ("callbacks", "save_freq"): ("epoch",),
    ("augmentations", "mode"): _FLIPS,
    ("layers", "mode"): _FLIPS,
    ("initializers", "mode"): ("fan_in", "fan_out", "fan_avg"),
}
# What a number must be, by the name of its argument, which means the same in all of Keras but for `factor`.
_AT_LEAST_1 = (lambda v: v >= 1, "at least 1")
_NOT_NEGATIVE = (lambda v: v >= 0, "0 or more")
_POSITIVE = (lambda v: v > 0, "greater than 0")
_BELOW_1 = (lambda v: 0 <= v < 1, "from 0 up to, not including, 1")
_RANGES = {
    name: rule
    for rule, names in (
        (_AT_LEAST_1, "units filters kernel_size pool_size strides dilation_rate depth_multiplier n k decay_steps"),
        (_AT_LEAST_1, "first_decay_steps ema_overwrite_frequency ns_steps save_freq top_k height width"),
        (_NOT_NEGATIVE, "patience cooldown start_from_epoch min_delta min_lr weight_decay adam_weight_decay epsilon"),
        (_NOT_NEGATIVE, "verbose epsilon_1 epsilon_2 l1 l2 warmup_steps stddev initial_accumulator_value"),
        (_NOT_NEGATIVE, "l1_regularization_strength l2_regularization_strength padding_value"),
        (_POSITIVE, "learning_rate initial_learning_rate decay_rate clipnorm clipvalue global_clipnorm"),
        (_POSITIVE, "loss_scale_factor clip_threshold"),
        (_BELOW_1, "rate beta_1 beta_2 adam_beta_1 adam_beta_2 rho dropout recurrent_dropout"),
        ((lambda v: 0 <= v <= 1, "from 0 to 1"), "momentum ema_momentum renorm_momentum label_smoothing"),
        ((lambda v: 0 < v < 1, "between 0 and 1"), "factor"),
        ((lambda v: v >= 2, "at least 2"), "gradient_accumulation_steps"),
        ((lambda _: True, "such as 0.9"), "baseline initial_value_threshold"),
    )
    for name in names.split()
}


def check_name(kind: str, name: Any, key: str) -> None:
    """Check that `name` is the user's own, or one of `ALLOWED[kind]` that the installed Keras has.

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
    hint = unregistered(name) or did_you_mean(str(name), nearest) or f"; the choices are {', '.join(choices)}"
    where = key if key.endswith(f".{name}") else f"{key}={show(name)}"
    raise InputError(f"{where}: not one of the {kind} that can be used here{hint}")


def check_spec(kind: str, spec: Any, key: str) -> None:
    """Check the spec of a Keras object: `Name` or `{Name: {argument: value}}`.

    Raises:
        InputError: if its form, its name or an argument is wrong, or one is missing.
    """
    name, arguments = parse_spec(spec, key)
    check_name(kind, name, key)
    if kind == "activations":
        if arguments:
            raise InputError(f"{key}={show(spec)}: an activation takes no arguments here; write {name}")
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
    raise InputError(f"{key}={show(spec)}: must be a name, or a name with arguments, such as {{Dense: {{units: 64}}}}")


def check_arguments(kind: str, name: str, arguments: Mapping[str, Any], key: str) -> None:
    """Check the arguments of a class, Keras's or the user's own.

    Raises:
        InputError: for one that is missing or unknown, or has a wrong type or range.
    """
    own, signature = name in own_classes(kind), _signature(kind, name)
    for argument, value in arguments.items():
        if argument not in signature:
            hint = did_you_mean(str(argument), signature) or f"; it takes {', '.join(signature) or 'none'}"
            raise InputError(f"{key}.{argument}={show(value)}: {name} has no such argument{hint}")
        _check_argument(kind, argument, value, signature[argument], f"{key}.{argument}", own=own)
    for argument, default in signature.items():
        if default is REQUIRED and argument not in arguments:
            raise InputError(f"{key}: {name} needs {argument}; write {{{name}: {{{argument}: ...}}}}")


def _signature(kind: str, name: str) -> Mapping[str, Any]:
    own = own_classes(kind).get(name)
    return signature_of(kind, name) if own is None else arguments_of(own)


def argument_kind(argument: str) -> str | None:
    """Return the kind of Keras object that an argument of this name takes; None for plain values.

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


def _check_argument(kind: str, argument: str, value: Any, default: Any, key: str, *, own: bool) -> None:
    of_kind = argument_kind(argument)
    if value is not None and of_kind is not None and (of_kind != "schedules" or isinstance(value, Mapping)):
        check_spec(of_kind, value, key)
        return
    fits: object
    wanted = _wanted(default)
    if argument in PATH_ARGUMENTS:
        fits = isinstance(value, str) and _FILE_NAME.fullmatch(value)
        wanted = (
            "the name of a new file in the run's output folder, such as best.keras; {epoch:02d} or a metric's name in "
            "braces is filled in"
        )
    elif argument == "name":
        fits = value is None or (isinstance(value, str) and re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", value))
        wanted = "a word of letters, digits and underscores"
    elif own:  # a default has the type of the argument, unless it is null
        types = {bool: (bool,), int: (int, float), float: (int, float), str: (str,)}
        fits = type(value) in types.get(type(default), (type(value),))
    elif words := _WORDS.get((kind, argument)):
        ranged = argument in _RANGES
        fits = value in words or (ranged and type(value) is int)
        wanted = f"{words[0]}, or a whole number, at least 1" if ranged else f"one of {', '.join(words)}"
    elif isinstance(value, list) and _takes_list(kind, argument, default):
        of_item = int | float | None if default is not None else int | float | str | None
        fits = all(isinstance(item, of_item) and not isinstance(item, bool) for item in value)
    else:
        fits = _fits(argument, value, default)
        if argument in _RANGES:
            wanted = (wanted if isinstance(default, bool) else "a number") + _range_text(argument)
    if not fits:
        raise InputError(f"{key}={show(value)}: must be {wanted}")
    for number in value if isinstance(value, list) else [value]:
        if not own and isinstance(number, int | float) and not isinstance(number, bool):
            _check_number(kind, argument, number, key)


def _takes_list(kind: str, argument: str, default: Any) -> bool:
    if kind == "augmentations":  # a random amount is given by the most, or the least and the most
        return not isinstance(default, bool | str)
    return not isinstance(default, bool | int | float | str) and (kind != "optimizers" or argument not in _RANGES)


def _fits(argument: str, value: Any, default: Any) -> bool:
    """Compare with the default's type, the only one that Keras states; a default of null leaves it open."""
    ranged, is_switch = argument in _RANGES, isinstance(default, bool)
    match value:
        case bool():
            return is_switch or (default is None and not ranged)
        case int() | float():
            return not isinstance(default, bool | str)
        case str():
            return not isinstance(default, bool | int | float | tuple) and not ranged
    return value is None and (default is None or not (default is REQUIRED or ranged or is_switch))


def _check_number(kind: str, argument: str, value: float, key: str) -> None:
    if not abs(value) <= (most := _LARGEST_WHOLE if argument in _WHOLE.split() else _LARGEST):
        shown = f"={value}" if isinstance(value, float) else ""  # more digits than Python makes text of
        raise InputError(f"{key}{shown}: must be a finite number, at most {most:g} above or below 0")
    # A callback's factor lowers the learning rate; a random layer's is an amount.
    ranged = argument in _RANGES and (argument != "factor" or kind == "callbacks")
    is_fraction = argument in _WHOLE.split() and not isinstance(value, int)
    if is_fraction or (ranged and not _RANGES[argument][0](value)):
        raise InputError(f"{key}={show(value)}: must be a {'whole ' * is_fraction}number{_range_text(argument)}")


def _range_text(argument: str) -> str:
    return f", {_RANGES[argument][1]}" if argument in _RANGES else ""


def _wanted(default: Any) -> str:
    if isinstance(default, str):
        return f"a word, such as {default}"
    words = {bool: "true or false", tuple: "a number or a list of numbers", int: "a number", float: "a number"}
    return words.get(type(default), "one number or text")
