"""The version of this project, for `pyproject.toml`, `--version` and tags."""

__version__ = "0.2.0"
