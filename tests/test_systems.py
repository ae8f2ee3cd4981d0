"""The main path on a system that is not Unix, as far as one that is can tell."""

from pathlib import Path

from .conftest import QUICK, command, facts, runs_in

# This project's modules, and no other, lack what only Unix has.
NOT_UNIX = """
import builtins, runpy, sys, types

NAMES = {
    "os": "fork getppid getuid kill killpg register_at_fork sysconf uname O_NOCTTY O_NOFOLLOW O_NONBLOCK".split(),
    "signal": "SIGALRM SIGHUP SIGKILL pthread_kill setitimer".split(),
}
MODULES = "fcntl grp pty pwd resource termios".split()
imported = builtins.__import__

def is_ours(names):
    return str(names.get("__name__")).partition(".")[0] in ("mnist_exp", "hydra_plugins")

def without_unix(name, names=None, *others, **options):
    found = imported(name, names, *others, **options)
    if not names or not is_ours(names) or name not in (*NAMES, *MODULES):
        return found
    if name in MODULES:
        raise ModuleNotFoundError(f"No module named {name!r}")
    rest = types.ModuleType(name)
    vars(rest).update({key: value for key, value in vars(found).items() if key not in NAMES[name]})
    return rest

def without_proc(event, arguments):
    if event == "open" and str(arguments[0]).startswith(("/dev/", "/proc/")):
        frame = sys._getframe(1)
        while str(frame.f_globals.get("__name__")).startswith("pathlib"):
            frame = frame.f_back
        if is_ours(frame.f_globals):
            raise FileNotFoundError(arguments[0])

builtins.__import__ = without_unix
sys.addaudithook(without_proc)
runpy.run_module("mnist_exp", run_name="__main__", alter_sys=True)
"""


def test_run_works_without_unix_functions(tmp_path: Path) -> None:
    (tmp_path / "not_unix.py").write_text(NOT_UNIX)
    done = command(*QUICK, cwd=tmp_path, module="not_unix")
    assert done.returncode == 0, done.stderr
    [recorded] = runs_in(tmp_path)
    assert recorded.info.status == "FINISHED"
    assert facts(recorded)["machine"].endswith(", unknown processor")
