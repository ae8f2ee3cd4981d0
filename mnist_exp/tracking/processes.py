"""The process of a run, and whether it still lives."""

import re
import socket
import subprocess
from pathlib import Path


def has_gone(host: str | None, process: str | None) -> bool:
    """Return whether a process, as `process_tag` names it, is known to have ended: it was on this host."""
    number = re.match(r"[0-9]{1,9}(?= )", process or "")
    return host == socket.gethostname() and number is not None and process != process_tag(int(number[0]))


def process_tag(pid: int) -> str:
    """Return a process's number and start, since numbers are used again; without a start if it has gone."""
    stat = Path(f"/proc/{pid}/stat")
    if Path("/proc/self/stat").exists():
        started = stat.read_text().rpartition(")")[2].split()[19] if stat.exists() else ""
    else:
        command = ["ps", "-o", "lstart=", "-p", str(pid)]
        started = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return f"{pid} started {started}" if started else str(pid)
