"""The table of ends."""

import errno
from pathlib import Path

import pytest

from mnist_exp.ends import CTRL_C, FAILED, FINISHED, FULL_DISK, HANGUP, TERMINATION, End, as_folder_error, find_end
from mnist_exp.errors import InputError

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
    ("error", "end"),
    [
        (None, FINISHED),
        (InputError("x"), FAILED),
        (OSError(errno.ENOENT, "missing", "elsewhere"), FAILED),
        (OSError(errno.ENOSPC, "full", "elsewhere"), FULL_DISK),
        *((end.exception(end.exit_code), end) for end in (CTRL_C, TERMINATION, HANGUP)),
        (KeyboardInterrupt(), CTRL_C),
    ],
)
def test_exception_chooses_end(tmp_path: Path, error: BaseException | None, end: End) -> None:
    assert find_end(error and as_folder_error(error, tmp_path)) is end
