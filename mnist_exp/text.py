"""Make text printable, short and free of passwords.

A password that is typed is refused. Passwords that MLflow reads from the environment are removed from other programs'
texts.
"""

import logging
import os
import re
import shutil
import sys
import textwrap
import traceback
from functools import lru_cache
from typing import TextIO
from urllib.parse import quote, unquote

_VARIABLES = ("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "DATABRICKS_TOKEN")
_LOGIN = re.compile(r"://[^\s/?#@]*@")
# It may have spaces, or slashes; a mistyped address has one slash.
_PASSWORD = re.compile(r"(?i):/{1,3}[^/\s:]*:[^/@]*@|[?&#](?=\w*=)\w*(?:pass|pwd|token|secret)")


def has_password(text: str) -> bool:
    """Return whether a text has an address with a password in it.

    >>> has_password("tracking.uri=http://me:secret@host"), has_password("tracking.uri=http://me@host:5000")
    (True, False)
    """
    before = (word.rpartition("@")[0] for word in text.split())
    return bool(_PASSWORD.search(text)) or any(re.search(":/{1,3}[^/:]*:", part) for part in before)


def redact_uri(address: str) -> str:
    """Return an address without its user, password, query and fragment.

    >>> redact_uri("postgresql://me:secret@host/db?password=another")
    'postgresql://host/db'
    """
    scheme, separator, rest = address.partition("://")
    is_file = scheme.startswith("sqlite")  # its name may have an @
    return address if is_file else scheme + separator + re.split("[?#]", rest.rpartition("@")[2])[0]


def redact(text: str) -> str:
    """Return text without logins in addresses, and without MLflow's secrets.

    >>> redact("https://me:secret@host/mlflow does not answer")
    'https://host/mlflow does not answer'
    """
    for secret in _secrets(*(os.environ.get(name, "") for name in _VARIABLES)):
        text = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", "...", text)
    return _LOGIN.sub("://", text)


@lru_cache
def _secrets(address: str, *tokens: str) -> list[str]:
    """Return the secrets, as they are and percent-encoded, the longest first."""
    password = address.partition("://")[2].rpartition("@")[0].partition(":")[2]
    given = (password, *re.split("[?#]", address)[1:], *tokens)
    spelled = {form for secret in given for form in (secret, unquote(secret), quote(unquote(secret), safe=""))}
    found = (secret for secret in spelled if len(secret) >= (8 if secret.isalpha() else 4))  # not any word
    return sorted(found, key=len, reverse=True)


def printable(text: str) -> str:
    r"""Return text on one line, without secrets and terminal control characters.

    >>> printable("wrong\x1b[2J")
    'wrong?[2J'
    """
    text = redact(text)
    return text if text.isprintable() else "".join(character if character.isprintable() else "?" for character in text)


def printable_lines(text: str) -> str:
    """Return text with its lines, without secrets and control characters."""
    return "\n".join(map(printable, text.expandtabs().split("\n")))


def truncate(text: str, most: int) -> str:
    """Return printable text, or its beginning, in at most `most` characters."""
    text = printable(text)
    return text if len(text) <= most else f"{text[: most - 1]}…"


def wrap_text(text: str) -> str:
    """Wrap a text between words for a terminal, and only there."""
    if not sys.stdout.isatty():
        return text
    width = shutil.get_terminal_size().columns
    wrap = textwrap.TextWrapper(width, replace_whitespace=False, break_long_words=False, break_on_hyphens=False).wrap
    return "\n".join("\n".join(wrap(line)) for line in text.split("\n"))


def say(text: str, to: TextIO | None = None) -> None:
    """Print a line on standard output, or `to`."""
    print(wrap_text(printable(text)), file=to, flush=True)


def traceback_text(error: BaseException) -> str:
    """Return the traceback of an error and its causes."""
    return printable_lines("".join(traceback.format_exception(error)))


def traceback_in(package: str, error: BaseException) -> str:
    """Return an error's traceback from its first line in `package` on.

    It is "" if no line is in the package.
    """
    chain = [error]
    while (before := chain[-1].__cause__ or chain[-1].__context__) is not None and before not in chain:
        chain.append(before)
    for link in reversed(chain):
        place = link.__traceback__
        while place is not None:
            if str(place.tb_frame.f_globals.get("__name__")).startswith(f"{package}."):
                return printable_lines("".join(traceback.format_exception(type(link), link, place, chain=False)))
            place = place.tb_next
    return ""


def make_printable(record: logging.LogRecord) -> bool:
    """Make a log record's message and traceback printable.

    This is a filter for `logging`: it returns True.
    """
    record.msg, record.args = printable_lines(record.getMessage()), ()
    if record.exc_info and record.exc_info[1] is not None:
        record.exc_text = traceback_text(record.exc_info[1]).rstrip()
    return True
