"""Break what the program needs, and count what is lost: python -m tests.faults PART [KIND ...] [--count N] [--seed N]

Prints what went wrong as it is found, then a table of what was tried; exits with 1 if anything in it that must be 0 is
not.
"""

import sys
import time
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Iterator

from . import disks, inputs, interruptions, moments, outages
from .table import Row, add, markdown

# Each part yields a row a try; those of the same name are added.
PARTS: dict[str, Callable[[Namespace], Iterator[Row]]] = {
    "inputs": lambda asked: inputs.tries(asked.count or 10_000, asked.seed, asked.kinds),
    "interruptions": lambda asked: interruptions.tries(asked.count or 60, asked.seed),
    "moments": lambda asked: moments.tries(asked.count or 60, asked.seed),
    "disks": lambda asked: disks.tries(asked.count or 64, asked.seed),
    "outages": lambda asked: outages.tries(asked.count or 84, asked.seed),
}


def main() -> None:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"of inputs alone: {', '.join(inputs.KINDS)}")
    parser.add_argument("--count", type=int, help="how many are tried, for a look")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    rows, start = [], time.monotonic()
    for row in PARTS[asked.part](asked):
        rows.append(row)
        print(f"{time.monotonic() - start:.0f} s: {row.what}, {row.bad()} bad", *row.notes, sep="\n  ", flush=True)
    print(markdown(add(rows)))
    sys.exit(any(row.bad() for row in rows))


if __name__ == "__main__":
    main()
