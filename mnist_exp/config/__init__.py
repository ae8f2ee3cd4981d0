"""Turn conf/ and overrides into a checked `Config`."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]
# In a wheel conf/ is inside the package, in a checkout beside it.
CONF = _PACKAGE / "conf" if (_PACKAGE / "conf").is_dir() else _PACKAGE.parent / "conf"

GROUPS = ("dataset", "preprocessing", "model", "optimizer", "training")
GLOBAL_GROUPS = ("experiment", "sweep")  # presets of several parts, with @package _global_
