"""Text from outside, as a terminal, a log or a store may have it: on its lines, without passwords and tokens."""

import logging
import os
import re
import traceback
from collections.abc import Iterable
from functools import cache, lru_cache
from itertools import islice
from urllib.parse import unquote

# MLflow sends these to a server, whose errors may repeat them.
_SECRET_VARIABLES = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "DATABRICKS_TOKEN")

# For addresses that are not known. A password may hold characters that end the host of a URL.
_USER_AND_PASSWORD = re.compile(r"://(?:[^\s/?#]{0,1000}@|[^\s:/@]{0,1000}:[^\s@'\"]{0,1000}@)")
_QUERY_VALUE = re.compile(r"([?&;][\w.%-]+=)[^\s&;'\")>]*[^\s&;'\")>\]:]")
_ADDRESS = re.compile(r"(?=((?<!\w)[A-Za-z][\w+.-]*://.*))", re.DOTALL)
# An override with an address that could not be read, up to where its secret may begin; a path has one slash of it.
_UNREAD = re.compile(r"(\W*[A-Za-z_][\w./@]*\s*[=:](?!//).*?(?<!sqlite)(?<!file)(?<!models):/+).*@")
_WORDS = re.compile(r"\W*tracking\.(note|tags|run_name)\b")
_SHORTEST, _SHORTEST_WORD = 4, 8  # characters, and letters alone, of a secret that is looked for by itself
_SHORTEST_TOKEN = 16  # of a login without a password
_LONGEST = 500  # characters of one that is looked for in other spellings
_MOST = 20  # addresses in an argument

_known: set[str] = set()


def printable(text: str) -> str:
    r"""Return text on one line, without characters that control a terminal.

    >>> printable("wrong\x1b[2J")
    'wrong?[2J'
    """
    return text if text.isprintable() else "".join(one if one.isprintable() else "?" for one in text)


def printable_lines(text: str) -> str:
    """Return text without characters that control a terminal, but for the ends of its lines."""
    return "\n".join(map(printable, text.expandtabs().split("\n")))


def remember(typed: Iterable[str]) -> None:
    """Let `without_secrets` know the addresses in arguments.

    One goes on to the argument's end, as its password may have spaces; in words of the user's, to a space.
    """
    for text in typed:
        for found in islice(_ADDRESS.finditer(text), _MOST):
            _known.add((found[1].split()[0] if _WORDS.match(text) else found[1]).rstrip("'\")]}"))


def shown_address(address: str) -> str:
    """Return an address without its secrets; `without_secrets` replaces it from now on, too.

    >>> shown_address("postgresql://me:my secret@host/db?password=another")
    'postgresql://host/db'
    """
    _known.add(address)
    return _parts(address)[0]


def without_unread_address(line: str) -> str:
    """Return a message without what may be a password in the override that it begins with."""
    return line if _WORDS.match(line) else _UNREAD.sub(r"\1", line, count=1)


def without_secrets(text: str) -> str:
    """Return text without the user, password and query values of addresses, and without MLflow's tokens.

    Addresses in the environment, and those that were typed, are found in any spelling, such as YAML's.

    >>> without_secrets("https://me:secret@host/mlflow does not answer")
    'https://host/mlflow does not answer'
    >>> without_secrets("postgresql://host/db?user=me&password=secret")
    'postgresql://host/db?user=...&password=...'
    """
    addresses = {value for value in os.environ.values() if _ADDRESS.match(value)} | _known
    found = {pattern: shown for address in addresses for pattern, shown in _secrets(address)}
    for pattern in sorted(found, key=lambda pattern: len(pattern.pattern), reverse=True):
        text = pattern.sub(found[pattern], text)
    text = _QUERY_VALUE.sub(r"\1...", _USER_AND_PASSWORD.sub("://", text))
    for variable in _SECRET_VARIABLES:
        secret = os.environ.get(variable, "")
        if len(secret) >= _SHORTEST:
            text = re.sub(_spelled(secret), "...", text)
    return text


def _parts(address: str) -> tuple[str, str, str]:
    """Return an address without its secrets, its user with the password, and its query with the fragment."""
    scheme, separator, rest = address.partition("://")
    if not separator or (scheme.startswith("sqlite") and "?" not in rest):  # a file's name may have an @
        return address, "", ""
    login, _, place = rest.rpartition("@")
    host, *query = re.split("[?#]", place, maxsplit=1)
    return f"{scheme}://{host}", login, "".join(query)


@lru_cache(256)
def _secrets(address: str) -> list[tuple[re.Pattern[str], str]]:
    """Return what to replace of an address, and by what: all of it, and its parts where they stand by themselves."""
    shown, login, query = _parts(address)
    found = {_spelled(address): shown.replace("\\", r"\\")} if shown != address else {}
    if login:
        found[_spelled(f"://{login}@")] = "://"
    alone = [query] if re.search("(?i)pass|pwd|token|secret|key", query) else []
    user, _, password = login.partition(":")
    if "/" not in user and (password or len(login) >= _SHORTEST_TOKEN):  # else it is host/path, before an @
        password = password or login
        alone += [one for part in (password, *re.split("[@?#:]", password)) for one in (part, unquote(part))]
    for secret in sorted({one for one in alone if _is_secret(one) and one not in shown}, key=len, reverse=True):
        found[rf"(?<!\w){_spelled(secret)}(?!\w)"] = "..."
    return [(re.compile(pattern), replacement) for pattern, replacement in found.items()]


def _is_secret(text: str) -> bool:
    """Return whether a text is no ordinary word."""
    return len(text) >= (_SHORTEST_WORD if text.isalpha() else _SHORTEST)


def _spelled(secret: str) -> str:
    """Return a pattern for a text as Python, JSON, YAML (which folds lines), a shell or an address writes it."""
    if len(secret) > _LONGEST:  # a pattern that takes seconds to compile
        return re.escape(secret)
    return "".join(map(_spelled_character, re.findall(r"\s+|.", secret)))


@cache
def _spelled_character(text: str) -> str:
    if text == "\\":
        return r"(?:\\|%5[Cc]){0,8}"
    if text.isspace():
        return r"(?:\\*\s|\\+[nrtvf]|\\+x0?[0-9a-dA-D]|\\+u00[02][0-9a-dA-D]|%0[0-9a-dA-D]|%20|[+?])+"
    units = text.encode("utf-16-be", "surrogatepass").hex()
    escapes = [
        "".join(f"%{byte:02x}" for byte in text.encode("utf-8", "surrogatepass")),
        rf"\\+x{ord(text):02x}",
        "".join(rf"\\+u{units[at : at + 4]}" for at in range(0, len(units), 4)),
        rf"\\+U{ord(text):08x}",
    ]
    plain = r"['\"\\]{1,5}" if text == "'" else rf"\\*{re.escape(text)}" + r"|\?" * (not text.isprintable())
    return f"(?:{plain}|(?i:{'|'.join(escapes)}))"


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
