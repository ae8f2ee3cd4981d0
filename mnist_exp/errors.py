"""The exception for bad input, and the wording of messages."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from mnist_exp.text import printable

_MAX_CHARS = 1_000

# Words of other programs, in lower case, for keys of ours.
OTHER_WORDS = {
    **dict.fromkeys(("lr", "learningrate", "rate", "eta"), "learning_rate"),
    **dict.fromkeys(("epoch", "n_epochs", "num_epochs", "max_epochs"), "epochs"),
    **dict.fromkeys(("batch", "bs", "batchsize", "batches"), "batch_size"),
    **dict.fromkeys(("units", "hidden_units", "hidden_size", "neurons"), "hidden"),
    **dict.fromkeys(("dropout_rate", "drop"), "dropout"),
    **dict.fromkeys(("act", "nonlinearity"), "activation"),
    **dict.fromkeys(("random_seed", "random_state"), "seed"),
    **dict.fromkeys(("val", "val_split", "validation_split"), "validation"),
    **dict.fromkeys(("crossentropy", "cross_entropy"), "CategoricalCrossentropy"),
    "opt": "optimizer",
    "tf": "tensorflow",
    "launcher": "hydra/launcher",
}
_OLD_WORDS = {"seeds": "initial_seeds", "of": "from_sweep", "top": "n_best"}  # version 0.2.0's, beside the new ones


class InputError(ValueError):
    """Bad input, in one line: the key, the value, and what would be right.

    The line has no passwords. The command line prints only the message; any other exception is a bug and shows its
    traceback.
    """

    def __init__(self, message: str) -> None:
        # A file's name may have bytes that cannot be encoded.
        line = printable(message.encode("utf-8", "backslashreplace").decode())
        # The key is at the beginning, and what would be right at the end.
        super().__init__(line if len(line) <= _MAX_CHARS else f"{line[:500]} ... {line[-490:]}")


def did_you_mean(name: str, choices: Iterable[str], above: str = "", after: str = "") -> str:
    """Return the end of a sentence that names the nearest choice, or "".

    Case and hyphens do not count.

    Args:
        name: the unknown name.
        choices: the known names.
        above: the text before the choice that is named, such as "model.".
        after: the text behind it, such as "=64".

    >>> did_you_mean("early_stoping", ["EarlyStopping", "ReduceLROnPlateau"])
    '; did you mean EarlyStopping?'
    >>> did_you_mean("hiden", ["hidden"], "model.", "=64")
    '; did you mean model.hidden=64?'
    >>> did_you_mean("zebra", ["EarlyStopping"])
    ''
    """
    plain = {choice.lower().replace("_", "").replace("-", ""): choice for choice in choices}
    if (meant := (OTHER_WORDS | _OLD_WORDS).get(name.lower())) in plain.values():
        name = str(meant)
    near = get_close_matches(name.lower().replace("_", "").replace("-", ""), plain, n=1)
    return f"; did you mean {above}{plain[near[0]]}{after}?" if near else ""


def format_value(value: Any) -> str:
    """Return a value as a user would type it.

    >>> format_value({"Dense": {"units": 4}}), format_value(None), format_value(True)
    ('{Dense: {units: 4}}', 'null', 'true')
    >>> format_value([10**5000])
    '[0x31e20801036510f3c5...]'
    """
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case int() if abs(value) >= 10**300:  # Python may refuse to write it
            return f"{hex(value)[:20]}..."
        case list() | tuple():
            return f"[{', '.join(map(format_value, value))}]"
        case Mapping():
            return "{" + ", ".join(f"{key}: {format_value(item)}" for key, item in value.items()) + "}"
    return str(value)
