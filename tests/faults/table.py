"""What came of what was tried, as one table."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Row:
    """What came of `tries` that are alike: counts of what must be 0, and a line that says more of each.

    `lost` counts jobs and metrics that are nowhere, `twice` those that are there more than once, `running` runs that no
    process has and `pending` logged models that nothing will finish, and `wrong` all else: a traceback, an exit code, a
    result that differs from that of the same command without a fault.
    """

    what: str
    tries: int = 1
    lost: int = 0
    twice: int = 0
    running: int = 0
    pending: int = 0
    wrong: int = 0
    notes: tuple[str, ...] = ()

    def bad(self) -> int:
        """Return how many of the counts that must be 0 there are."""
        return self.lost + self.twice + self.running + self.pending + self.wrong


def add(rows: Iterable[Row]) -> list[Row]:
    """Return one row for each `what`, with the sums."""
    sums: dict[str, Row] = {}
    for row in rows:
        before = sums.get(row.what, Row(row.what, tries=0))
        added = {field.name: getattr(before, field.name) + getattr(row, field.name) for field in fields(Row)[1:]}
        sums[row.what] = Row(row.what, **added)
    return list(sums.values())


def markdown(rows: Iterable[Row]) -> str:
    """Return the table, as a page of docs/ shows it."""
    names = [field.name for field in fields(Row)[:-1]]
    cells = [names, ["---"] * len(names), *([str(getattr(row, name)) for name in names] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def row(what: str, found: Mapping[str, Sequence[str]], *notes: str) -> Row:
    """Return the row of one try, of which `found` has the lines about each count, by the name of the count."""
    counts = {count: len(lines) for count, lines in found.items()}
    lines = (f"{count}: {line}" for count, lines in found.items() for line in lines)
    return Row(what, **counts, notes=(*notes, *lines))
