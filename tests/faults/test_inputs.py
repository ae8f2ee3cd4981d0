"""Whatever is typed, or stands in a file, ends as a run or as one message."""

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from .inputs import KINDS
from .outcome import outcome, without_training

pytestmark = pytest.mark.slow

# How many of each kind take a few seconds; `python -m tests.faults inputs` tries 10,000.
COUNTS = {
    "configurations": 15,
    "command lines": 60,
    "presets": 25,
    "npz files": 300,
    "IDX files": 300,
    "folders": 150,
    "pictures": 40,
    "models": 40,
    "stores": 6,
    "recorded configurations": 25,
}
WAIT = 50  # seconds of the processor, which may be a slow one


@pytest.mark.parametrize("name", KINDS)
def test_an_input_ends_as_a_run_or_as_one_message(name: str) -> None:
    kind = KINDS[name]
    kind.ready()

    @settings(
        max_examples=COUNTS[name],
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(kind.inputs)
    def try_one(drawn: object) -> None:
        outcome(kind, drawn, WAIT)

    with without_training():
        try_one()
