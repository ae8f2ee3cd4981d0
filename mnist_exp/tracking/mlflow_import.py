"""Import MLflow without announcements, telemetry or secrets in its log."""

import logging
import os
import warnings

from mnist_exp.text import make_printable


def import_mlflow() -> None:
    """Import MLflow with our timeouts, and keep it quiet."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")  # the default waits for minutes in an outage
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")  # seconds; the default is 120, and each is tried again
    os.environ.setdefault("PGCONNECT_TIMEOUT", "10")  # seconds; PostgreSQL's default is minutes
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # it may hold a password
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "IProgress not found")  # no progress bars are shown in a notebook
        import mlflow  # noqa: F401

    logging.getLogger("alembic").setLevel(logging.WARNING)  # it announces each table of a new store
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # it does, too, and logs what it raises
    logging.getLogger("mlflow.utils.environment").setLevel(logging.ERROR)  # it misses pip where uv made the environment
    for filtered in (logging.getLogger("urllib3.connectionpool"), *logging.getLogger("mlflow").handlers):
        filtered.addFilter(make_printable)  # they print the address of a server that does not answer
