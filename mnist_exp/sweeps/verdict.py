"""Judge a ranking, as values, and word the verdict in sentences."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

from mnist_exp.sweeps.formats import decimals, pluralize
from mnist_exp.sweeps.ranking import Row, objectives_by_seed
from mnist_exp.sweeps.statistics import Comparison, seeds_for_power

SINGLE = "a single run may be better or worse by chance; -m with seed=0,1,2,3,4 runs each row with five seeds"
_ERRATIC = 3  # times the median deviation of the other rows
_MIN_SEEDS = 3  # a deviation of fewer says nothing

Reason = Literal["pruned", "failed", "single"]
_REMEDIES = {
    "pruned": "the same command without prune, with resume=true, trains what was pruned to its end",
    "failed": "the same command with resume=true tries it again",
}
_NOT_COMPARED = {"single": "a single run", "pruned": "a pruned job", "failed": "a failed job"}


@dataclass(frozen=True)
class Erratic:
    """A row that varies far more than the others.

    Attributes:
        row: its typical score is near the leader's, its deviation more than three times the usual one.
        usual: the median deviation of the other rows.
        seed, objective: those of the job that is farthest from the row's median.
    """

    row: Row
    usual: float
    seed: str
    objective: float


@dataclass(frozen=True)
class Verdict:
    """The verdict on a ranking.

    Attributes:
        leader: the first row.
        beaten: rows that the leader beats, in their order.
        open: rows that may be better, the one that may be most first.
        not_compared: each other row, with a reason; twice if it has two.
        is_indifferent: whether no open row can be better by more than does not matter.
        more_seeds: how many more seeds of the leader and the open rows would decide; None above 200.
        erratic: a row that fails now and then, if there is one.
    """

    leader: Row
    beaten: Sequence[tuple[Row, Comparison]]
    open: Sequence[tuple[Row, Comparison]]
    not_compared: Sequence[tuple[Row, Reason]]
    is_indifferent: bool
    more_seeds: int | None
    erratic: Erratic | None


def judge(rows: Sequence[Row], indifference: float = 0.0) -> Verdict | None:
    """Return the verdict on compared rows, best first.

    Return None for fewer than two rows, or if all failed.
    `indifference`: a difference of the objective that does not matter.
    """
    if len(rows) < 2 or rows[0].failed:
        return None
    others = [(row, row.comparison) for row in rows[1:] if row.comparison is not None]
    may_be_better = sorted((item for item in others if item[0].is_open), key=lambda item: -item[1].at_best)
    needed = [seeds_for_power(comparison) for _, comparison in may_be_better]
    known = [seeds for seeds in needed if seeds is not None]
    return Verdict(
        rows[0],
        [item for item in others if not item[0].is_open],
        may_be_better,
        [(row, reason) for row in rows[1:] if row.comparison is None for reason in _why_not_compared(row)],
        bool(may_be_better) and may_be_better[0][1].at_best <= indifference,
        max(1, max(known) - len(rows[0].jobs)) if known and len(known) == len(needed) else None,
        _find_erratic(rows),
    )


def _why_not_compared(row: Row) -> list[Reason]:
    reasons: list[Reason] = ["pruned"] if row.pruned else []
    if row.lost or row.failed:
        reasons.append("failed")
    return reasons or ["single"]


def _find_erratic(rows: Sequence[Row]) -> Erratic | None:
    scored = [(row, objectives_by_seed(row)) for row in rows if row.is_whole and len(row.jobs) >= _MIN_SEEDS]
    if len(scored) < 3 or scored[0][0] is not rows[0]:
        return None
    leaders = median(scored[0][1].values())
    for row, objectives in sorted(scored, key=lambda item: -(item[0].deviation or 0.0)):
        usual = median(other.deviation or 0.0 for other, _ in scored if other is not row)
        middle = median(objectives.values())
        is_erratic = (row.deviation or 0.0) > _ERRATIC * usual > 0
        # a row far behind, such as one that has not converged, is beaten and needs no warning
        if is_erratic and abs(middle - leaders) <= _ERRATIC * usual:
            seed = max(objectives, key=lambda seed: abs(objectives[seed] - middle))
            return Erratic(row, usual, seed, objectives[seed])
    return None


def word(
    verdict: Verdict | None,
    label: Callable[[Mapping[str, str]], str],
    *,
    images: str = "",
    family: str = "",
    rounds: int = 0,
    single: str = SINGLE,
) -> str:
    """Word a verdict in sentences, or return "" for None.

    Args:
        verdict: as `judge` returns it.
        label: returns the name of a row, given its values.
        images: on which the objective is measured, as `describe_images` returns them.
        family: the rows in words, if they are a part, such as `these 3 of the 16 rows of sweep 3f2a1c22`.
        rounds: of a race.
        single: why single runs do not decide, and how many would.
    """
    if verdict is None:
        return ""

    def name(row: Row) -> str:
        return label({key: value for key, value in row.values.items() if key != "seed"})

    leader, others = verdict.leader, [*verdict.beaten, *verdict.open]
    first = name(leader) or "The first row"
    where = f" on these {images}" if images else ""
    leads = f"{first} leads with {decimals(leader.mean)}{where}"
    leads = f"Of {family}, {leads}" if family else leads
    notes = _notes(verdict, name)
    if not others and rounds:
        return f"{first} is left, since jobs failed of all others."
    if not others:
        reasons = {*_why_not_compared(leader), *(reason for _, reason in verdict.not_compared)}
        reason = next((reason for reason in _REMEDIES if reason in reasons), None)
        why = single
        if reason is not None:
            flatters = f"a row with {_NOT_COMPARED[reason]} is not compared, since the mean of the others flatters it"
            why = f"{flatters}; {_REMEDIES[reason]}"
        return f"{leads}, but {why}.{notes}"
    how = f"(95 %, {_seeds([comparison for _, comparison in others], rounds)})"
    if not verdict.open:
        count = f"the {1 + len(others)} rows that are compared" if verdict.not_compared else family or len(others) + 1
        rest, following = ("none of the others is", "the next") if len(others) > 1 else ("the other is not", "it")
        _, found = others[0]
        behind = f"{following} is {decimals(abs(found.difference))} behind"
        return f"{first} is best of {count}{where}: {rest} better {how}; {behind}.{notes}"
    nearest, found = verdict.open[0]
    most = decimals(found.at_best)
    if verdict.is_indifferent:
        return f"{leads}; if you take it, you lose at most {most} {how}.{notes}"
    which, by = "the other", f"by {most} at most"
    if len(others) > 1:
        some = len(verdict.open) if verdict.beaten else "any"
        which, by = f"{some} of the {len(others)} others", f"{by} ({name(nearest)})"
    if found.at_best >= abs(leader.mean):
        by = "since so few seeds tell next to nothing"
    these = f"these {1 + len(verdict.open)}" if len(verdict.open) > 1 else "both"
    seeds = f"More than 200 seeds of {these} would be needed to decide."
    if verdict.more_seeds is not None:
        seeds = f"About {pluralize(verdict.more_seeds, 'more seed')} of {these} would decide."
    return f"{leads}; {which} may be better, {by}. {seeds}{notes}"


def _notes(verdict: Verdict, name: Callable[[Row], str]) -> str:
    """Return sentences on rows not compared, and on one that fails now and then."""
    text, reasons = "", {reason for _, reason in verdict.not_compared}
    compared = bool(verdict.beaten or verdict.open)
    if compared and (kinds := [kind for reason, kind in _NOT_COMPARED.items() if reason in reasons]):
        text += f" Rows with {' or '.join(kinds)} are not compared."
    if (found := verdict.erratic) is not None:
        text += (
            f" The scores of {name(found.row) or 'one row'} vary far more than the others' (deviation "
            f"{decimals(found.row.deviation or 0.0)}, theirs {decimals(found.usual)}): seed {found.seed} has "
            f"{decimals(found.objective)}."
        )
    return text


def _seeds(comparisons: Sequence[Comparison], rounds: int) -> str:
    """Say by how many seeds or rounds rows were compared with the first one."""
    if rounds:
        return f"over {pluralize(rounds, 'round')}"
    paired = sorted({comparison.seeds for comparison in comparisons if comparison.seeds})
    if not paired:
        return "from different seeds"
    most = f" to {paired[-1]}" if len(paired) > 1 else ""
    some = "" if all(comparison.seeds for comparison in comparisons) else ", some from different ones"
    return f"paired over {paired[0]}{most} seeds{some}"
