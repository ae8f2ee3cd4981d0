"""Register models in a store; one of each name is the champion."""

from typing import TYPE_CHECKING

from mnist_exp.errors import InputError
from mnist_exp.tracking.kept_models import model_of_run
from mnist_exp.tracking.reading import record_of
from mnist_exp.tracking.records import Record

if TYPE_CHECKING:
    from mlflow import MlflowClient


def registered(client: "MlflowClient", name: str | None, record: Record, run_id: str, best: str | None) -> str:
    """Register the model of a run, or of a sweep's `best` job, if there is a name; return the outcome as a line."""
    chosen = best if record.is_sweep else run_id
    if name is None or chosen is None or record.status != "FINISHED" or "mlflow.parentRunId" in record.tags:
        return ""
    try:
        return register(client, name, chosen)
    except InputError as error:  # its weights are on another machine
        return str(error)


def register(client: "MlflowClient", name: str, run_id: str) -> str:
    """Register a run's model as a new version of `name`, unless it is one, and return the outcome as a line.

    The first version gets the alias `champion`; a later one gets it if its objective is better than the champion's, and
    both were measured with the same metric and loss on the same data and validation set.
    """
    from mlflow.exceptions import MlflowException

    model_id = model_of_run(client, run_id)
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    before = [one for one in client.search_model_versions(f"name = '{name}'") if one.run_id == run_id]
    version = (
        before[0] if before else client.create_model_version(name, f"models:/{model_id}", run_id, model_id=model_id)
    ).version
    text = f"Registered {'before, ' * bool(before)}as models:/{name}/{version}"
    champion = client.get_registered_model(name).aliases.get("champion")
    if before and champion is not None:
        return text
    if champion is None:
        client.set_registered_model_alias(name, "champion", version)
        return f"{text}, which is now the champion"
    new = record_of(client.get_run(run_id), client)
    try:
        old = record_of(client.get_run(str(client.get_model_version(name, champion).run_id)), client)
    except MlflowException:  # registered by hand, or its run was deleted
        old = None
    if old is None or _measure(new) != _measure(old):
        return (
            f"{text}; champion stays version {champion}, whose objective was measured otherwise; if this one is "
            "better, move the alias in mlflow ui"
        )
    objective, value, best = new.parameters["objective"], new.scores["objective"], old.scores["objective"]
    if better := value > best if new.parameters["direction"] == "maximize" else value < best:
        client.set_registered_model_alias(name, "champion", version)
    on_test_set = objective.startswith("test_") or new.parameters["dataset.validation"] == "test"
    return (
        f"{text}, {'which is now the champion' if better else f'champion stays version {champion}'}: {objective} "
        f"{value:.4f} against {best:.4f}{', MEASURED ON THE TEST SET' if on_test_set else ''}"
    )


def _measure(run: Record) -> list[str | None]:
    """Return the facts that comparable objectives share."""
    names = ["objective", "direction", "training.loss", "training.metrics", "dataset.validation"]
    if run.parameters.get("dataset.validation") != "test":  # held out of the training images
        names += ["dataset.seed", "dataset.limit"]
    return [run.digest, *map(run.parameters.get, names)]
