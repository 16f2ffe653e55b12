"""From reStructuredText to plain paragraphs: the cleaning behind :mod:`explainers.corpus`.

docutils would take 10 ms a document and complain about every Sphinx role; this is line based and takes 0.2.
Blocks come first (which lines are prose?), then inline markup (what does a paragraph say?).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

# Directives whose content is prose. Any other (math, plot, code-block, tables, versionadded, ...) is dropped.
PROSE_DIRECTIVES = {"note", "warning", "seealso", "admonition", "tip"}
PROSE_DIRECTIVES |= {"hint", "important", "caution", "attention", "danger", "error"}

_DIRECTIVE = re.compile(r"\.\.\s+(?:\|[^|]+\|\s*)?([A-Za-z][\w:+.-]*?)\s?::?(?:\s+(.*)|$)")
_OPTION = re.compile(r":[\w-]+:(?:\s|$)")
_ADORNMENT = re.compile(r"([-=~^\"'`#*+.:_<>])\1{2,}$")
_SIMPLE_TABLE = re.compile(r"=+(?: +=+)+$")
_GRID_TABLE = re.compile(r"\+[-=]+[-=+]*\+$")
_BULLET = re.compile(r"(?:[-*+•]|\(?(?:\d{1,3}|[a-hA-H]|[ivx]{1,4})[.)]|#\.)\s+(?=\S)")
_FIELD = re.compile(r":(param|parameter|arg|raises|raise|returns|return|rtype|type)(?:\s+([^:]+))?:\s*(.*)$")
# Only these can start something that is not a plain paragraph, so most texts skip the block scanner.
_BLOCK_SIGNS = re.compile(r">>>|::|^\s*(?:\.\.|:[a-z]|\+)|([-=~^\"'`#*+.:_<>])\1\1\s*$", re.M)


def plain_text(rest: str) -> str:
    """Return the prose of a reStructuredText fragment, one paragraph (or list item) a line.

    Doctests, literal blocks, tables, comments, displayed formulas and code go; notes and warnings stay.

    Parameters
    ----------
    rest : str
        A docstring or a part of one.

    Returns
    -------
    str
        Paragraphs separated by ``"\\n"``, without markup; inline formulas are the word ``<math>``.

    Examples
    --------
    >>> plain_text("Scale :math:`x` by `a` [1]_.\\n\\n>>> scale(2)\\n4\\n\\n.. note:: Slow for\\n   *lists*.")
    'Scale <math> by a.\\nSlow for lists.'
    """
    return finish("\n".join(paragraphs(prose_lines(rest.split("\n")))))


# ---------------------------------------------------------------- blocks


def paragraphs(lines: list[str]) -> list[str]:
    """Join the lines of each paragraph and of each list item; inline markup stays."""
    found: list[list[str]] = [[]]
    counting = False  # inside an enumeration: the next item needs no blank line before it
    for line in lines:
        stripped = line.strip()
        if not stripped:
            found.append([])
            continue
        bullet = _BULLET.match(stripped)
        if bullet and (stripped[0] in "-*+•" or counting or not found[-1]):
            # A wrapped sentence may begin with "2. ": a number opens a list only after a blank line.
            found.append([stripped[bullet.end() :]])
            counting = stripped[0] not in "-*+•"
        else:
            counting = counting and bool(found[-1] or line[:1] == " ")
            found[-1].append(stripped)
    return [" ".join(part) for part in found if part]


def prose_lines(lines: list[str]) -> list[str]:
    """Return the lines that are prose, admonitions dedented to the place of their directive."""
    if not _BLOCK_SIGNS.search("\n".join(lines)):
        return lines
    kept: list[str] = []
    at = 0
    while at < len(lines):
        line = lines[at]
        stripped = line.strip()
        if stripped[:1].isalnum() and stripped[-2:] != "::":  # the common case first
            kept.append(line)
            at += 1
        elif stripped.startswith(">>>"):
            at = _to_blank(lines, at)
        elif stripped.startswith("..") and (stripped == ".." or stripped[2].isspace()):
            at = _explicit(lines, at, kept)
        elif _SIMPLE_TABLE.match(stripped):
            at = _after_simple_table(lines, at)
        elif _GRID_TABLE.match(stripped):
            at = _to_blank(lines, at)
        elif _ADORNMENT.match(stripped):
            kept.append("")  # ends the heading above it
            at += 1
        elif field := _FIELD.match(stripped):
            kept += _field(*field.groups())
            at += 1
        elif stripped.endswith("::"):
            text = stripped[:-2].rstrip()
            if text:
                kept.append(line[: _indent(line)] + text + ":")
            at = _after_literal(lines, at + 1, _indent(line), kept)
        else:
            kept.append(line)
            at += 1
    return kept


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _to_blank(lines: list[str], at: int) -> int:
    while at < len(lines) and lines[at].strip():
        at += 1
    return at


def _block_end(lines: list[str], at: int, indent: int) -> int:
    """Return where the block that is indented by more than ``indent`` ends, from line ``at`` on."""
    while at < len(lines) and (not lines[at].strip() or _indent(lines[at]) > indent):
        at += 1
    return at


def _after_literal(lines: list[str], at: int, indent: int, kept: list[str]) -> int:
    """Skip a literal block; a paragraph that goes on in the next line had no block after all."""
    if at < len(lines) and lines[at].strip() and _indent(lines[at]) <= indent:
        return at
    kept.append("")
    return _block_end(lines, at, indent)


def _explicit(lines: list[str], at: int, kept: list[str]) -> int:
    """Handle ``.. something``: keep the content of prose directives, skip the rest; return the next line."""
    indent = _indent(lines[at])
    end = _block_end(lines, at + 1, indent)
    match = _DIRECTIVE.match(lines[at].strip())
    kept.append("")
    if match and match[1].lower() in PROSE_DIRECTIVES:
        content = lines[at + 1 : end]
        while content and _OPTION.match(content[0].strip()):
            del content[0]
        shift = min((_indent(line) for line in content if line.strip()), default=0) - indent
        content = [line[shift:] for line in content]
        first = [" " * indent + match[2]] if match[2] else []
        if match[1].lower() == "admonition":
            first.append("")  # the title is a paragraph of its own
        kept += [*prose_lines(first + content), ""]
    return end


def _after_simple_table(lines: list[str], at: int) -> int:
    """Return the line after the table: its last border is the first one before a blank line."""
    border = at
    for here in range(at + 1, len(lines)):
        if _SIMPLE_TABLE.match(lines[here].strip()):
            border = here
            if here + 1 == len(lines) or not lines[here + 1].strip():
                return here + 1
    return border + 1


def _field(name: str, argument: str | None, text: str) -> Iterator[str]:
    """Turn ``:param x: text`` into ``x : text``; a type of its own line says nothing without its name."""
    yield ""
    if name in ("type", "rtype"):
        return
    yield f"{argument} : {text}" if argument else text


# ---------------------------------------------------------------- inline markup

_FILLED_LATER = r"%\([\w:]+\)[sdri]|\$\{[A-Z_]+\}|DATA_PARAMETER_PLACEHOLDER"
_FORMAT_FIELD = r"[a-z][a-z0-9_]{2,}\}"  # after its opening brace
_TEMPLATE_ONLY = re.compile(rf"^[^\w\n]*(?:(?:{_FILLED_LATER}|\{{{_FORMAT_FIELD})[^\w\n]*)+$", re.M)
_TEMPLATE = re.compile(_FILLED_LATER)
# One character is consumed first, so that the search can skip to it; look-behinds then tell which it was.
_INLINE = re.compile(
    rf"""
    [`:\[$*|\\{{](?:
      (?<=`)`(?P<code>.+?)``(?!`)                                     # literal
    | (?<=`)(?P<quoted>[^`\n]+)`(?:__?(?!\w)|\\\s?(?=\w))?            # default role or hyperlink
    | (?<=:)(?P<role>[A-Za-z][\w.+-]*(?::[\w.+-]+)?):`(?P<target>[^`\n]+)`(?:\\\s?(?=\w))?
    | (?<=\[)\#?[\w.:+-]+\]_(?!\w)                                    # footnote or citation
    | (?<=\$)\$(?P<display>[^$\n]+)\$\$                               # formulas, the way SymPy writes them
    | (?<=\$)(?P<formula>[^\s$](?:[^$\n]{{0,200}}?[^\s$\\])?)\$(?![A-Z])
    | (?<=\*)(?<![\w*\\/]\*)\*(?P<bold>[^\s*](?:[^*\n]*?[^\s*\\])?)\*\*(?![\w*])
    | (?<=\*)(?<![\w*\\/]\*)(?P<italic>[^\s*](?:[^*\n]*?[^\s*\\])?)\*(?![\w*])
    | (?<=\|)(?<![\w|]\|)(?P<substitution>[A-Za-z][^|\n]*?)\|(?![\w|])
    | (?<=\\)(?P<escaped>[*_`|\\ ])
    | (?<={{)(?<![\w\\^}}{{_]{{){_FORMAT_FIELD}(?!\w)                     # a template that was never filled in
    )""",
    re.X,
)
_ADDRESS = re.compile(r"(?:https?|ftp)://[^\s<>`]*[^\s<>`.,;:!?)\]}'\"]/?")
_LATEX = re.compile(r"\\[A-Za-z]")
_FORMULA_ROLES = frozenset(["math", "eq"])
_SILENT_ROLES = frozenset(
    ["cite", "footcite", "doi", "arxiv", "cite:p", "cite:t", "footcite:t", "footcite:p", "bibcode"]
)
_TITLE_TARGET = re.compile(r"(?s)(.+?)\s*<[^<>]+>$")
_RELATIVE = re.compile(r"\.[A-Za-z_][\w.]*$")  # Matplotlib's way to name an object of the same package
_SPACES = re.compile(r"[^\S\n]{2,}|\t")
_GONE = "\x00"  # marks what was removed, so that its brackets and the blank before it can follow
_GONE_RUN = re.compile(r"\x00(?:[ ,;]*\x00)+")
_GONE_IN_BRACKETS = re.compile(r" ?(?:\( ?\x00 ?\)|\[ ?\x00 ?\]|< ?\x00 ?>)")
_GONE_FIRST = re.compile(r"(?<=[(\[])\x00[,;]? ?|(?<=[,;]) \x00[,;]?")
_LETTER = re.compile(r"[^\W\d_]")
_SCOPE = re.compile(r"(?<=\w)::(?=[A-Za-z_])")


def finish(text: str) -> str:
    """Strip inline markup from paragraphs that stand one a line, and drop those that say nothing."""
    if "{" in text or "%(" in text or "PLACEHOLDER" in text:
        text = _TEMPLATE.sub(_GONE, _TEMPLATE_ONLY.sub("", text))
    if "://" in text:
        text = _ADDRESS.sub(_GONE, text)
    text = _INLINE.sub(_inline, text)
    if "  " in text or "\t" in text:
        text = _SPACES.sub(" ", text)
    if _GONE in text:
        text = _GONE_IN_BRACKETS.sub(_GONE, _GONE_RUN.sub(_GONE, text))
        text = _GONE_FIRST.sub("", text).replace(" " + _GONE, "").replace(_GONE, "")
    if ">>>" in text:
        text = text.replace(">>>", "")
    if "::" in text:  # C++ names and slices; the corpus promises that no '::' is left
        text = _SCOPE.sub(".", text)
        while "::" in text:
            text = text.replace("::", ": :")
    return "\n".join([line for part in text.split("\n") if _says(line := part.strip().lstrip(": "))])


def _says(line: str) -> bool:
    """Tell whether there is a letter besides those of formulas."""
    return line[:1].isalpha() or bool(_LETTER.search(line.replace("<math>", "")))


def _inline(match: re.Match[str]) -> str:
    kind = match.lastgroup
    if kind == "code":
        return match["code"].strip()
    if kind == "target":
        role = match["role"].lower()
        if role in _FORMULA_ROLES:
            return "<math>"
        return _GONE if role in _SILENT_ROLES else _target(match["target"])
    if kind == "quoted":  # SymPy's default role is a formula
        return "<math>" if _LATEX.search(match["quoted"]) else _target(match["quoted"])
    if kind in ("formula", "display"):
        return "<math>"
    if kind == "escaped":
        return "" if match["escaped"] == " " else match["escaped"]
    return match[kind] if kind else _GONE


def _target(target: str) -> str:
    """Return what a reader sees of a reference: its title, or the name, shortened after a tilde."""
    if title := _TITLE_TARGET.match(target):
        return title[1].strip()
    target = target.replace("\\ ", "").strip()
    if target[:1] == "~":
        return target[1:].rpartition(".")[2]
    target = target.removeprefix("!")
    return target[1:] if _RELATIVE.match(target) else target
