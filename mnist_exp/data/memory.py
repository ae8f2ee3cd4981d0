"""Bound data and training by half of the machine's memory."""

from pathlib import Path

from mnist_exp.errors import InputError


def memory() -> int:
    """Return, in bytes, the machine's memory or the container's share of it."""
    import psutil

    machine = psutil.virtual_memory().total
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text().strip() if limit.is_file() else ""
    return min(machine, int(text)) if text.isdecimal() else machine


def check(what: str, takes: int, advice: str) -> None:
    """Raise InputError if `takes` bytes are more than half of the memory.

    Args:
        what: begins the message, and ends with a verb.
        takes: bytes.
        advice: ends the message.
    """
    if takes > (half := memory() // 2):
        raise InputError(f"{what} {takes / 1e9:.1f} GB; half of this machine's memory is {half / 1e9:.1f} GB; {advice}")
