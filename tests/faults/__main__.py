"""Break what the program needs, and count what is lost: python -m tests.faults PART [--count N] [--seed N]

Prints what went wrong as it is found, then a table of what was tried; exits with 1 if a count that must be 0 is not.
"""

import sys
import time
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Callable, Iterator

from . import interruptions, moments, outages
from .table import Row, add, markdown

# Each part yields a row a try, by count and seed, and has a usual count.
PARTS: dict[str, tuple[Callable[[int, int], Iterator[Row]], int]] = {
    "interruptions": (interruptions.tries, 60),
    "moments": (moments.tries, 60),
    "outages": (outages.tries, 84),
}


def main() -> None:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--count", type=int, help="how many are tried, for a look")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    tries, usual = PARTS[asked.part]
    rows, start = [], time.monotonic()
    for row in tries(asked.count or usual, asked.seed):
        rows.append(row)
        print(f"{time.monotonic() - start:.0f} s: {row.what}, {row.bad()} bad", *row.notes, sep="\n  ", flush=True)
    print(markdown(add(rows)))
    sys.exit(any(row.bad() for row in rows))


if __name__ == "__main__":
    main()
