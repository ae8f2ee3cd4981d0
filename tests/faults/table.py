"""What came of what was tried, as one table."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields


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
        added = {one.name: getattr(before, one.name) + getattr(row, one.name) for one in fields(Row)[1:]}
        sums[row.what] = Row(row.what, **added)
    return list(sums.values())


def markdown(rows: Iterable[Row]) -> str:
    """Return the table, as a page of docs/ shows it."""
    names = [one.name for one in fields(Row)[:-1]]
    cells = [names, ["---"] * len(names), *([str(getattr(row, name)) for name in names] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def row(what: str, found: Mapping[str, Sequence[str]]) -> Row:
    """Return the row of one try, of which `found` has the lines about each count, by the name of the count."""
    counts = {count: len(lines) for count, lines in found.items()}
    return Row(what, **counts, notes=tuple(f"{count}: {line}" for count, lines in found.items() for line in lines))


@dataclass
class Lacks:
    """What is lost, there twice, left open or wrong, as `Row` counts it, with a line for each.

    >>> lacks = Lacks()
    >>> lacks.add("lost", "no run", 3)
    >>> lacks.row("outages").lost
    3
    """

    counts: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    def add(self, what: str, note: str, number: int = 1) -> None:
        """Count so many, unless there are none."""
        if number:
            self.counts[what] += int(number)
            self.notes.append(f"{what} {int(number)}: {note}")

    def include(self, found: Mapping[str, Sequence[str]]) -> None:
        """Count lines about each count, by its name."""
        for what, lines in found.items():
            self.add(what, "; ".join(lines[:3]), len(lines))

    def row(self, what: str, *notes: str) -> Row:
        """Return the row of one try."""
        return Row(what, **self.counts, notes=(*notes, *self.notes))
