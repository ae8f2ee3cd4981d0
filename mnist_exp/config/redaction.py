"""Text as a terminal, a log or a store may have it: printable, and without passwords.

A password that is typed is refused. Those that MLflow reads from the environment are taken out of what others say.
"""

import logging
import os
import re
import traceback
from collections.abc import Iterable
from urllib.parse import quote, unquote

_VARIABLES = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "DATABRICKS_TOKEN")
_LOGIN = re.compile(r"://[^\s/?#@]{0,1000}@")
# A login with a password, a login as long as a token, or a parameter; a mistyped address has one slash.
_PASSWORD = re.compile(
    r"(?is)(?<!sqlite)(?<!file):/{1,3}"
    r"(?:[^/]*:[^@]*@|[^@/]{16,}@|[^?#]*[?#](?:.*&)?[\w.-]*(?:pass|pwd|token|secret|(?<![a-z])key)[\w.-]*=)"
)
_WORDS = re.compile(r"\W*tracking\.(note|tags|run_name)\b")
_MIN_CHARS, _MIN_LETTERS = 4, 8  # shorter secrets, or shorter words, could be any text
_MIN_TOKEN = 16  # characters; a shorter login without a colon is a name


def has_password(text: str) -> bool:
    """Return whether an override has an address with a password or a token in it.

    >>> has_password("tracking.uri=http://me:secret@host"), has_password("tracking.uri=http://me@host:5000")
    (True, False)
    """
    parts = text.split() if _WORDS.match(text) else [text]  # in an address, a password may have spaces
    return any(_PASSWORD.search(part) for part in parts)


def printable(text: str) -> str:
    r"""Return text on one line, without characters that control a terminal.

    >>> printable("wrong\x1b[2J")
    'wrong?[2J'
    """
    return text if text.isprintable() else "".join(one if one.isprintable() else "?" for one in text)


def printable_lines(text: str) -> str:
    """Return text without characters that control a terminal, but for the ends of its lines."""
    return "\n".join(map(printable, text.expandtabs().split("\n")))


def shown_address(address: str) -> str:
    """Return an address without its user, password, query and fragment.

    >>> shown_address("postgresql://me:secret@host/db?password=another")
    'postgresql://host/db'
    """
    scheme, separator, rest = address.partition("://")
    if not separator or scheme.startswith("sqlite"):  # a file's name may have an @
        return address
    return f"{scheme}://{re.split('[?#]', rest.rpartition('@')[2], maxsplit=1)[0]}"


def without_secrets(text: str) -> str:
    """Return text without the logins of addresses, and without the passwords and tokens that MLflow is told.

    These are in the environment: its own variables, and `MLFLOW_TRACKING_URI`, percent-encoded or not.

    >>> without_secrets("https://me:secret@host/mlflow does not answer")
    'https://host/mlflow does not answer'
    """
    address = os.environ.get("MLFLOW_TRACKING_URI", "")
    secrets = [os.environ.get(name, "") for name in _VARIABLES]
    if (shown := shown_address(address)) != address:
        text = text.replace(address, shown)
        query = re.split("[?#]", address, maxsplit=1)[1:]
        login = address.partition("://")[2].rpartition("@")[0]
        password = login.partition(":")[2] or login * (len(login) >= _MIN_TOKEN)
        secrets += [one for one in (password, *query) if one not in shown]
    spelled = {form for one in secrets for form in (one, unquote(one), quote(unquote(one), safe=""))}
    for secret in sorted(spelled, key=len, reverse=True):
        if len(secret) >= (_MIN_LETTERS if secret.isalpha() else _MIN_CHARS):
            text = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", "...", text)
    return _LOGIN.sub("://", text)


def traceback_text(error: BaseException) -> str:
    """Return the traceback of an error and its causes, without secrets, as a terminal may show it."""
    return _shown_traceback(traceback.format_exception(error))


def traceback_in(package: str, error: BaseException) -> str:
    """Return the traceback of an error, or of its earliest cause in `package`, from its first line in there.

    It is as `traceback_text` returns it, and "" if no line is in the package.
    """
    chain = [error]
    while (before := chain[-1].__cause__ or chain[-1].__context__) is not None and before not in chain:
        chain.append(before)
    for one in reversed(chain):
        place = one.__traceback__
        while place is not None:
            if str(place.tb_frame.f_globals.get("__name__")).startswith(f"{package}."):
                return _shown_traceback(traceback.format_exception(type(one), one, place, chain=False))
            place = place.tb_next
    return ""


def _shown_traceback(lines: Iterable[str]) -> str:
    return printable_lines(without_secrets("".join(lines)))


class SecretsFilter(logging.Filter):
    """Removes secrets, and what controls a terminal, from every message and traceback of a logger or handler."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Change the record, and return True."""
        record.msg, record.args = printable_lines(without_secrets(record.getMessage())), ()
        if record.exc_info and record.exc_info[1] is not None:
            record.exc_text = traceback_text(record.exc_info[1]).rstrip()
        return True
