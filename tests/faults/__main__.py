"""Try what nobody would think of: python -m tests.faults inputs [KIND ...] [--count 10000]

Prints for each kind of input how many ended as a run and how many as a message, and each other end with the smallest
input that gave it; exits with 1 if there was any.
"""

import argparse
import sys
import time
from collections import Counter

from hypothesis import HealthCheck, Phase, given, seed, settings

from .inputs import KINDS
from .outcome import SECONDS, outcome, without_training


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["inputs"])
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=", ".join(KINDS))
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    failed = 0
    for name in asked.kinds or KINDS:
        failed += _try(name, asked.count, asked.seed)
    sys.exit(bool(failed))


def _try(name: str, count: int, number: int) -> int:
    kind, ends, start = KINDS[name], Counter[str](), time.monotonic()
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
    print(f"{name}: {dict(ends)} in {time.monotonic() - start:.0f} s", flush=True)
    for end, text in shown.items():
        print(f"  {end}\n    {text[:600]}", flush=True)
    return ends["others"]


main()
