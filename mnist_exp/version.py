"""The version of this project, as `pyproject.toml`, `--version` and the tags of a run have it."""

__version__ = "0.2.0"
