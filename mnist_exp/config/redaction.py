"""Passwords and tokens are taken out of every text before it is shown, logged or stored."""

import logging
import os
import re
import traceback

# MLflow sends these to a server, which may repeat them in an error.
_SECRET_VARIABLES = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "DATABRICKS_TOKEN")

# Of a database's address, the password may hold what ends the host in a URL.
_USER_AND_PASSWORD = re.compile(r"://(?:[^\s/?#]*@|[^\s:/@]*:[^\s@'\"]*@)")
_QUERY_VALUE = re.compile(r"([?&;][\w.%-]+=)[^\s&;'\")>]*[^\s&;'\")>\]:]")


_known: dict[str, str] = {}


def shown_address(address: str) -> str:
    """Return an address as far as it may be shown, whatever its password has in it, and remember it.

    From here on `without_secrets` shortens it in every text, such as another library's error.

    >>> shown_address("postgresql://me:my secret@host/db?password=another")
    'postgresql://host/db'
    """
    scheme, separator, rest = address.partition("://")
    if not separator:
        return address
    shown = f"{scheme}://{re.split('[?#]', rest.rpartition('@')[2])[0]}"
    if scheme.startswith("sqlite") and "?" not in rest:
        shown = address  # a file's name, which may have these characters
    if shown != address:
        _known[address] = shown
    return shown


def without_secrets(text: str) -> str:
    """Return a text without what can log in: an address's user, password and query values, and the tokens of MLflow.

    >>> without_secrets("https://me:secret@host/mlflow does not answer")
    'https://host/mlflow does not answer'
    >>> without_secrets("postgresql://host/db?user=me&password=secret")
    'postgresql://host/db?user=...&password=...'
    """
    for address, shown in _known.items():
        text = text.replace(address, shown)
    text = _QUERY_VALUE.sub(r"\1...", _USER_AND_PASSWORD.sub("://", text))
    for variable in _SECRET_VARIABLES:
        secret = os.environ.get(variable, "")
        if len(secret) >= 4:  # a shorter one stands by chance in many words
            text = text.replace(secret, "...")
    return text


def traceback_text(error: BaseException) -> str:
    """Return an error's traceback, with those of its causes, without secrets."""
    return without_secrets("".join(traceback.format_exception(error)))


def traceback_in(package: str, error: BaseException) -> str:
    """Return an error's traceback from the first line in a package on, without secrets; empty if there is none.

    Of an error with causes, the one that began in the package counts.
    """
    chain = [error]
    while (before := chain[-1].__cause__ or chain[-1].__context__) is not None and before not in chain:
        chain.append(before)
    for one in reversed(chain):
        place = one.__traceback__
        while place is not None:
            if str(place.tb_frame.f_globals.get("__name__")).startswith(f"{package}."):
                return without_secrets("".join(traceback.format_exception(type(one), one, place, chain=False)))
            place = place.tb_next
    return ""


class SecretsFilter(logging.Filter):
    """Lets every message of a logger or handler through without the secrets in it or in its traceback."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Change the record; return True."""
        record.msg, record.args = without_secrets(record.getMessage()), ()
        if record.exc_info and record.exc_info[1] is not None:
            record.exc_text = traceback_text(record.exc_info[1]).rstrip()
        return True
