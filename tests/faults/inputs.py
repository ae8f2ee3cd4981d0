"""All kinds of inputs that nobody would think of: python -m tests.faults inputs [KIND ...] [--count N]"""

from collections import Counter
from collections.abc import Iterator, Sequence

from hypothesis import HealthCheck, Phase, given, seed, settings

from . import command_lines, configurations, data_files, model_files, picture_files, presets, records
from .outcome import SECONDS, outcome, without_training
from .table import Row

KINDS = {
    **configurations.KINDS,
    **command_lines.KINDS,
    **presets.KINDS,
    **data_files.KINDS,
    **picture_files.KINDS,
    **model_files.KINDS,
    **records.KINDS,
}


def tries(count: int, number: int, names: Sequence[str] = ()) -> Iterator[Row]:
    """Try `count` inputs of each kind; the notes have each end but a run or a message, with the smallest input."""
    for name in names or KINDS:
        yield _try(name, count, number)


def _try(name: str, count: int, number: int) -> Row:
    kind, ends = KINDS[name], Counter[str]()
    tried: set[str] = set()
    shown: dict[str, str] = {}

    @seed(number)
    @settings(
        max_examples=4 * count,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(kind.inputs)
    def one(drawn: object) -> None:
        text = repr(drawn)
        if text in tried or len(tried) == count:
            return
        tried.add(text)
        try:
            ends["messages" if outcome(kind, drawn, SECONDS) else "runs"] += 1
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            end = f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[-1][:300]}"
            ends["others"] += 1
            shown[end] = min(shown.get(end, text), text, key=len)

    kind.ready()
    with without_training():
        one()
    notes = [str(dict(ends)), *(f"{end}\n    {text[:600]}" for end, text in shown.items())]
    return Row(name, len(tried), wrong=ends["others"], notes=tuple(notes))
