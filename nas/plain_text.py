"""Texts that may come from a stranger: made safe to be shown, and what a text must be to serve as a name.

A name, a label, an answer or an error text may hold what moves the cursor of a terminal, turns the direction of
writing or cannot be seen at all. Where such texts are shown, these characters are shown escaped; where they are to be
names that a program of the user's gives, they are refused.
"""

from __future__ import annotations

import re
import unicodedata

LONGEST_LABEL = 500
"""Characters of a label or of the name of a metric: what the tables of a database have room for."""
LONGEST_NAME = 200
"""Bytes of the name of a folder; file systems take 255, some of them fewer."""

_UNSEEN = (
    "\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f"
    "\u2028-\u202e\u2060-\u206f\u3164\ud800-\udfff\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
"""Controls, halves of pairs, what turns the direction of writing, and what takes no room; no tab, no end of a line."""
_IN_LINES = re.compile(f"[{_UNSEEN}]")
_IN_ONE_LINE = re.compile(f"[\t\n{_UNSEEN}]")
_PASSWORD = re.compile(r"(\b[A-Za-z][\w+.-]*://[^\s/@:]*:)(?:(?!\d+(?:[/\s)'\"]|$))[^\n]*|\S*)@")
"""Up to the last @ of the line, for one that is not escaped begins no host; the number of a port is no password."""
_PASSWORD_OPTION = re.compile(r"([?&](?:[\w-]*(?:pass|pwd|secret|token)[\w-]*)=)[^&\s'\"]+", re.IGNORECASE)
_RESERVED = re.compile(r"(?:con|prn|aux|nul|(?:com|lpt)[0-9\u00b9\u00b2\u00b3])(?:\..*)?", re.IGNORECASE)


def printable(text: object, *, lines: bool = False) -> str:
    r"""A text as it may be shown on a terminal or a page: what moves the cursor or cannot be seen is shown escaped.

    Args:
        text: or anything that has one.
        lines: whether tabs and ends of lines stay, as in a text of several lines.

    Example:
        >>> printable("wid\x1b[2Jth\u202e"), printable("two\nlines"), printable("breite ä")
        ('wid\\x1b[2Jth\\u202e', 'two\\nlines', 'breite ä')
    """
    text = str(text)
    if text.isascii() and text.isprintable():
        return text
    return (_IN_LINES if lines else _IN_ONE_LINE).sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode("ascii")


def without_passwords(text: str) -> str:
    """A text in which the passwords of URLs are hidden, with as much beside them as may belong to them.

    Example:
        >>> without_passwords("no answer from postgresql://me:p@ss/word@host/searches")
        'no answer from postgresql://me:***@host/searches'
        >>> without_passwords("http://127.0.0.1:8080/control")
        'http://127.0.0.1:8080/control'
    """
    if "://" not in text:
        return text
    return _PASSWORD_OPTION.sub(r"\1***", _PASSWORD.sub(r"\1***@", text))


def secrets_of(url: str) -> frozenset[str]:
    """The pieces of the passwords in a URL, as they may stand in the messages of others, who divide it differently.

    Example:
        >>> sorted(secrets_of("postgresql://me:p@ss/word@host/searches"))
        ['p', 'p@ss/word', 'ss', 'ss/word', 'word']
    """
    from urllib.parse import unquote

    _, found, rest = url.partition("://")
    parts = [option[1] for option in re.finditer(r"[?&][\w-]*(?:pass|pwd|secret|token)[\w-]*=([^&]+)", url, re.I)]
    account, at, _ = rest.rpartition("@")
    if found and at:
        parts.append(account.partition(":")[2])
    whole = {text for part in parts for text in (part, unquote(part))}
    pieces = {piece for text in whole for by in ("@", "[@:/?#&=%]") for piece in re.split(by, text)}
    return frozenset(piece for piece in whole | pieces if piece)


def flaw_of_label(text: str) -> str:
    r"""Which rule a label, or the name of a metric, breaks; empty where it breaks none.

    Example:
        >>> flaw_of_label("head/width"), flaw_of_label("two\nlines")
        ('', 'must have no control characters, ends of lines or characters that cannot be seen')
    """
    if text.isascii() and text.isprintable() and text.strip() == text and text and len(text) <= LONGEST_LABEL:
        return ""
    if not text.strip():
        return "must show something" if text else "must not be empty"
    if _IN_ONE_LINE.search(text):
        return "must have no control characters, ends of lines or characters that cannot be seen"
    if text.strip() != text:
        return "must neither begin nor end with a space"
    if not unicodedata.is_normalized("NFC", text):
        return 'must be written in the Unicode form NFC, as unicodedata.normalize("NFC", ...) writes it'
    if len(text) > LONGEST_LABEL:
        return f"must have at most {LONGEST_LABEL} characters"
    return ""


def flaw_of_name(name: str) -> str:
    """Which rule the name of an experiment breaks, which is that of a folder on every system; empty where none.

    Example:
        >>> flaw_of_name("first"), flaw_of_name("../first"), flaw_of_name("-first")
        ('', 'must have no / and no \\\\', 'must not begin with -')
    """
    if flaw := flaw_of_label(name):
        return flaw
    if "/" in name or "\\" in name:
        return "must have no / and no \\"
    if name.startswith("-"):
        return "must not begin with -"
    if name.endswith("."):
        return "must not end with a dot"
    if _RESERVED.fullmatch(name):
        return "must be none that Windows keeps for its devices, such as CON and NUL"
    if len(name.encode()) > LONGEST_NAME:
        return f"must have at most {LONGEST_NAME} bytes"
    return ""


def same_folder_key(name: str) -> str:
    """What names have in common that are one folder on some file system: they differ by case or Unicode form alone.

    Example:
        >>> same_folder_key("First") == same_folder_key("first")
        True
    """
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
