"""MLflow without its announcements, and all that reaches beyond its public API in 3.14 to 3.17.

A name that a newer version lacks raises when it is used, before anything is written.
"""

import logging
import os
import warnings
from typing import TYPE_CHECKING

from mnist_exp.config.redaction import SecretsFilter

if TYPE_CHECKING:
    from mlflow.store.artifact.artifact_repo import ArtifactRepository


def import_mlflow() -> None:
    """Import MLflow, silent, without telemetry, and with what it logs free of secrets."""
    # MLflow's own default makes a request wait for minutes in an outage.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # which may hold a password
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "IProgress not found")  # for progress bars in a notebook; none are shown
        import mlflow  # noqa: F401

    for name in ("alembic", "mlflow.store.db.utils"):  # they announce each table of a new store
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("mlflow.utils.environment").setLevel(logging.ERROR)  # misses pip where uv made the environment
    for filtered in (logging.getLogger("urllib3.connectionpool"), *logging.getLogger("mlflow").handlers):
        if not any(isinstance(one, SecretsFilter) for one in filtered.filters):
            filtered.addFilter(SecretsFilter())  # they print the address of a server that does not answer


def artifact_repository(location: str, uri: str) -> "ArtifactRepository":
    """Return the artifacts at a location; in public they are reached by a run's id, for which the store is asked."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    return get_artifact_repository(location, tracking_uri=uri)


def make_tables(uri: str) -> None:
    """Make MLflow's tables in a new database; in public there is only a command, which upgrades older ones too."""
    from mlflow.db import upgrade

    assert upgrade.callback is not None
    upgrade.callback(uri)


def newest_revision() -> str:
    """Return the version of the tables that the installed MLflow wants."""
    from mlflow.store.db import utils

    return str(utils._get_latest_schema_revision())
