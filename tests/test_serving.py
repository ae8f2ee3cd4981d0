"""MLflow's own server of a kept model answers over HTTP."""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mnist_exp.data.datasets import Data

from .conftest import runs_in


def ask(address: str, images: Any) -> Any:
    body = json.dumps({"inputs": images.tolist()}).encode()
    request = urllib.request.Request(f"{address}/invocations", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)["predictions"]


@pytest.mark.slow
def test_served_model_answers_for_raw_images(tracked_folder: Path, mnist: Data) -> None:
    [recorded] = runs_in(tracked_folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    served = ["models", "serve", "-m", f"runs:/{recorded.info.run_id}/model", "--env-manager", "local"]
    process = subprocess.Popen(
        [sys.executable, "-m", "mlflow", *served, "--port", str(port)],
        cwd=tracked_folder,
        env={
            **os.environ,
            "MLFLOW_TRACKING_URI": f"sqlite:///{tracked_folder}/mlflow.db",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",  # mlflow starts uvicorn by its name
        },
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stderr is not None
    try:
        next(line for line in process.stderr if "Application startup complete" in line)
        address = f"http://127.0.0.1:{port}"
        probabilities = np.array(ask(address, mnist.x_test[:200]))
        assert probabilities.shape == (200, 10)
        accuracy = (probabilities.argmax(1) == mnist.y_test[:200]).mean()
        assert accuracy >= 0.85
        with pytest.raises(urllib.error.HTTPError, match="400"):
            ask(address, mnist.x_test[0, :5])
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
