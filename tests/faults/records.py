"""Stores whose records say what no run says."""

import sqlite3
import tempfile
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from mnist_exp.config.composition import recompose
from mnist_exp.config.presets import parse_values
from mnist_exp.tracking import reading
from mnist_exp.tracking.store import connect_existing

from ..conftest import QUICK, in_process
from .configurations import numbers, often, words
from .outcome import Kind, typed
from .presets import content, damage, to_yaml

COLUMNS = [
    *[
        ("runs", column)
        for column in ("name", "status", "start_time", "end_time", "artifact_uri", "lifecycle_stage", "source_name")
    ],
    *[("tags", column) for column in ("key", "value", "value", "value")],
    *[("params", column) for column in ("key", "value")],
    *[
        (table, column)
        for table in ("metrics", "latest_metrics")
        for column in ("key", "value", "step", "timestamp", "is_nan")
    ],
    *[("experiments", column) for column in ("name", "artifact_location", "lifecycle_stage")],
    *[("datasets", column) for column in ("name", "digest", "dataset_profile")],
]
texts = words | st.sampled_from(
    [
        "",
        "\x1b[2J",
        "a\nb",
        "=1+1",
        "<script>",
        "$x^",
        "nan",
        "KILLED",
        "FINISHED",
        "{}",
        "[1",
        "\u202eabc",
        "0" * 32,
        "../..",
        "file:///etc",
        "x" * 10**6,
    ]
)
alterations = st.lists(
    st.tuples(st.sampled_from(COLUMNS), st.integers(0, 200), texts | numbers | st.none()), min_size=1, max_size=4
)
commands = st.sampled_from(
    [
        ["--format", form, *more]
        for form in ("csv", "json", "markdown", "latex")
        for more in ([], ["--last", "1"], ["--sort", "metrics.test_loss ASC"], ["--filter", "metrics.test_loss > 0"])
    ]
    + [[]]
)
stores = st.tuples(alterations, commands)


@cache
def _folder() -> Path:
    """Return a folder with a store of a sweep of two runs and a run, which stays as long as the process."""
    folder = Path(tempfile.mkdtemp(prefix="records-"))
    for arguments in (("-m", "model.hidden=8,9"), ()):
        done = in_process(*QUICK, *arguments, cwd=folder)
        assert done.returncode == 0, done.stderr
    (folder / "mlflow.db").rename(folder / "as-recorded.db")
    return folder


def _altered(drawn: Any) -> Path:
    """Return the folder, its store as it was recorded but for what was drawn."""
    folder = _folder()
    with (
        closing(sqlite3.connect(folder / "as-recorded.db")) as before,
        closing(sqlite3.connect(folder / "mlflow.db")) as store,
    ):
        before.backup(store)
        store.execute("PRAGMA ignore_check_constraints = ON")
        for (table, column), number, value in drawn:
            [count] = store.execute(f"SELECT count(*) FROM {table}").fetchone()
            [row] = store.execute(f"SELECT rowid FROM {table} LIMIT 1 OFFSET ?", [number % count]).fetchone()
            given = str(value) if isinstance(value, int) and abs(value) >= 2**63 else value
            store.execute(f"UPDATE OR IGNORE {table} SET {column} = ? WHERE rowid = ?", [given, row])
        store.commit()
    return folder


def _compare(drawn: Any, _: Path) -> str:
    alterations_, arguments = drawn
    return typed(arguments, _altered(alterations_), "mnist_exp.compare")


configurations = st.tuples(st.tuples(content, often(st.none(), damage)), st.just([]) | alterations)


def _recompose(drawn: Any, _: Path) -> str:
    written, altered = drawn
    folder = _altered(altered)
    with closing(sqlite3.connect(folder / "as-recorded.db")) as store:
        run_id, uri = store.execute(
            "SELECT run_uuid, artifact_uri FROM runs ORDER BY start_time DESC LIMIT 1"
        ).fetchone()
    path = Path(uri.removeprefix("file:")) / "config.yaml"
    before = path.read_text()
    path.write_text(before if altered else to_yaml(written), encoding="utf-8")
    try:
        client = connect_existing(f"sqlite:///{folder}/mlflow.db")
        recompose(parse_values(reading.read_config(client, run_id), "config.yaml"), [])
    finally:
        path.write_text(before)
    return ""


KINDS = {
    "stores": Kind(stores, _compare, _folder),
    "recorded configurations": Kind(configurations, _recompose, _folder),
}
