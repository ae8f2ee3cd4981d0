"""The files that a run or a sweep writes into its output folder, by name."""

# A store gets these, `*.png` in `figures` and `*.py` in `code`.
TEXTS = (
    "config.yaml",
    "error.txt",
    "run.log",
    "predictions.csv",
    "ranking.csv",
    "race.csv",
    "best.yaml",
    "code.patch",
    "report.html",
)
FOLDERS = ("model", "code", "figures")
# No callback may write to one of them, and a run that begins in the folder of another removes them.
OWN_FILES = frozenset({*TEXTS, *FOLDERS, "run.json", "metrics.jsonl", "model.keras"})
