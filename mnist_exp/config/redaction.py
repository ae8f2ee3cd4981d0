"""Passwords and tokens, removed from text before it is shown, logged or stored."""

import logging
import os
import re
import traceback

# MLflow sends these to a server, whose errors may repeat them.
_SECRET_VARIABLES = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "DATABRICKS_TOKEN")

# The password in the address of a database may hold characters that end the host of a URL.
_USER_AND_PASSWORD = re.compile(r"://(?:[^\s/?#]*@|[^\s:/@]*:[^\s@'\"]*@)")
_QUERY_VALUE = re.compile(r"([?&;][\w.%-]+=)[^\s&;'\")>]*[^\s&;'\")>\]:]")


_shown: dict[str, str] = {}  # by address


def shown_address(address: str) -> str:
    """Return an address without its secrets; `without_secrets` replaces it from now on, too.

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
        _shown[address] = shown
    return shown


def without_secrets(text: str) -> str:
    """Return text without the user, password and query values of addresses, and without MLflow's tokens.

    >>> without_secrets("https://me:secret@host/mlflow does not answer")
    'https://host/mlflow does not answer'
    >>> without_secrets("postgresql://host/db?user=me&password=secret")
    'postgresql://host/db?user=...&password=...'
    """
    for address, shown in _shown.items():
        text = text.replace(address, shown)
    text = _QUERY_VALUE.sub(r"\1...", _USER_AND_PASSWORD.sub("://", text))
    for variable in _SECRET_VARIABLES:
        secret = os.environ.get(variable, "")
        if len(secret) >= 4:  # shorter ones occur in words by chance
            text = text.replace(secret, "...")
    return text


def traceback_text(error: BaseException) -> str:
    """Return the traceback of an error and its causes, without secrets."""
    return without_secrets("".join(traceback.format_exception(error)))


def traceback_in(package: str, error: BaseException) -> str:
    """Return the traceback of an error, or of its earliest cause in `package`, from its first line in there.

    It is without secrets, and "" if no line is in the package.
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
    """Removes secrets from every message and traceback of a logger or handler."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Change the record, and return True."""
        record.msg, record.args = without_secrets(record.getMessage()), ()
        if record.exc_info and record.exc_info[1] is not None:
            record.exc_text = traceback_text(record.exc_info[1]).rstrip()
        return True
