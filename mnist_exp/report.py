"""Write a sweep as one HTML page: `python -m mnist_exp.report`. Imports nothing heavy before it reads the store."""

from collections.abc import Sequence
from pathlib import Path

from mnist_exp import commands
from mnist_exp.config.composition import compose
from mnist_exp.config.overrides import Override
from mnist_exp.errors import InputError
from mnist_exp.tracking.tracker import stored

_EXAMPLES = """\
  python -m mnist_exp.report SWEEP_ID
  python -m mnist_exp.report multirun/2026-01-31/12-00-00-000000
  python -m mnist_exp.report SWEEP_ID --output sweep.html tracking.uri=sqlite:///other.db
"""


def main() -> None:
    """Write a page; exit with 1 and one message after bad input."""
    about = "Write a sweep as one HTML page that can be mailed: verdict, ranking, curves, and what each row repeats."
    parser = commands.parser("report", about, _EXAMPLES)
    parser.add_argument("sweep", metavar="SWEEP", help="the id of a sweep, also shortened, or its folder")
    parser.add_argument("overrides", nargs="*", metavar="OVERRIDE", help="where sweeps are: tracking.uri=ADDRESS")
    parser.add_argument("--output", type=Path, help="the file to write; default: report-SWEEP.html")
    given = parser.parse_intermixed_args()
    with commands.exit_on_errors():
        print(f"Report in {write(given.sweep, given.overrides, given.output)}")


def write(sweep: str, overrides: Sequence[str], output: Path | None) -> Path:
    """Write the page of a sweep that has ended; return where it is.

    Args:
        sweep: its id, also shortened, or its folder.
        overrides: which store, by `tracking.uri`.
        output: the file to write; None for `report-SWEEP.html` in the current folder.

    Raises:
        InputError: if there is no such sweep, it has no report, or the file cannot be written.
    """
    for text in overrides:
        if Override.of(text).key not in ("tracking", "tracking.uri"):
            raise InputError(f"{text}: is not used here; tracking.uri says where sweeps are")
    if Path(sweep).is_dir():
        name, files = Path(sweep).resolve().name, _in_folder(Path(sweep))
    else:
        name, files = _in_store(stored(compose(overrides).config.tracking).uri, sweep)
    from mnist_exp.sweeps.report import page_of

    path = output or Path(f"report-{name}.html")
    text = page_of(files)
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"--output {path}: cannot be written ({error.strerror})") from None
    return path


def _in_folder(folder: Path) -> dict[str, bytes]:
    from mnist_exp.sweeps.report import FILES

    own = [name for name in FILES if (folder / name).resolve() == folder.resolve() / name]  # no link to elsewhere
    files = {name: (folder / name).read_bytes() for name in own if (folder / name).is_file()}
    if "report.json" not in files:
        raise InputError(f"{folder}: has no report.json, which a sweep leaves in its folder when it ends")
    return files


def _in_store(uri: str, run_id: str) -> tuple[str, dict[str, bytes]]:
    """Return the shortened id of a sweep, and what the store has to make its page from."""
    from mnist_exp.sweeps.report import FILES
    from mnist_exp.tracking import store
    from mnist_exp.tracking.reading import find_sweep, read_artifacts

    with store.store_errors(uri):
        client = store.connect_existing(uri)
        run = find_sweep(client, uri, run_id)
        files = read_artifacts(client, run, FILES)
    if "report.json" not in files:
        raise InputError(
            f"{run_id}: has no report, which a sweep makes when it ends; this one is {run.info.status}"
            f"{'' if run.info.status != 'FINISHED' else ', and older than reports'}"
        )
    return str(run.info.run_id)[:8], files


if __name__ == "__main__":
    main()
