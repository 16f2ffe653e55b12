"""From a docstring to the fields of a document; used by :mod:`explainers.corpus`.

numpydoc and docstring-parser read the conventions, ``_corpus_text`` cleans what they find.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ._corpus_text import finish, paragraphs, plain_text, prose_lines


@dataclass(frozen=True, slots=True)
class Doc:
    """One docstring, parsed and cleaned.

    Attributes
    ----------
    name : str
        Of the definition, unique: ``'scipy.optimize._minimize.minimize'``.
    package : str
        First component of the name.
    topic : str
        Package and first public component of the defining module: ``'scipy.optimize'``.
    kind : str
        ``'module'``, ``'class'``, ``'function'``, ``'method'`` or ``'property'``.
    public : bool
        Neither the object nor its class starts with an underscore.
    summary : str
        One line of plain text, empty in about 1 % of the documents.
    body : str
        The extended summary, paragraphs separated by ``"\\n"``.
    sections : Mapping[str, str]
        Plain text by title ('Parameters', 'Returns', 'Notes', ...), one parameter a line.
    see_also : tuple of str
        The names, as written.
    raw : str
        The docstring, dedented; unique in the corpus.

    Examples
    --------
    >>> doc = make_doc("numpy", "numpy.ma.core.mean", "numpy.ma.core", "function", "Mean.\\n\\nOver `axis`.")
    >>> doc.topic, doc.summary, doc.body
    ('numpy.ma', 'Mean.', 'Over axis.')
    """

    name: str
    package: str
    topic: str
    kind: str
    public: bool
    summary: str
    body: str
    sections: Mapping[str, str]
    see_also: tuple[str, ...]
    raw: str

    @property
    def text(self) -> str:
        """Summary, body and sections in order, without References and See Also, one paragraph a line."""
        parts = (text for title, text in self.sections.items() if title not in ("References", "See Also"))
        return "\n".join(part for part in (self.summary, self.body, *parts) if part)

    def __hash__(self) -> int:
        return hash(self.name)

    def __repr__(self) -> str:
        return f"<Doc {self.name} ({self.kind}): {self.summary[:60]}>"


def to_line(doc: Doc) -> str:
    """Return the document as one line of JSON; sections as pairs, for their order matters."""
    fields = {name: getattr(doc, name) for name in Doc.__slots__}
    fields["sections"] = list(doc.sections.items())
    return json.dumps(fields, sort_keys=True, ensure_ascii=False)


def from_line(line: str | bytes) -> Doc:
    """Return the document that :func:`to_line` wrote."""
    fields = json.loads(line)
    fields["sections"] = dict(fields["sections"])
    fields["see_also"] = tuple(fields["see_also"])
    return Doc(**fields)


def make_doc(package: str, name: str, module: str, kind: str, raw: str) -> Doc:
    """Parse a normalised docstring into its fields."""
    parse = _google_fields if package == "torch" else _numpy_fields
    try:
        summary, body, sections, see_also = parse(raw)
    except Exception:  # a parser's bug in somebody's odd docstring: the text is still good prose
        summary, _, body = raw.partition("\n\n")
        sections, see_also, body = {}, (), plain_text(body)
    owners = name.removeprefix(module).lstrip(".") or name.rpartition(".")[2]
    return Doc(
        name=name,
        package=package,
        topic=topic_of(module),
        kind=kind,
        public=not any(part.startswith("_") for part in owners.split(".")),
        summary=plain_text(summary).replace("\n", " "),
        body=body,
        sections={title: text for title, text in sections.items() if text},
        see_also=tuple(see_also),
        raw=raw,
    )


def topic_of(module: str) -> str:
    """Return the package and the component below it, if that is public.

    What lies in a private folder serves the whole package: its topic is the package.

    >>> topic_of("scipy.optimize._minimize"), topic_of("numpy._core.fromnumeric")
    ('scipy.optimize', 'numpy')
    """
    package, component, *_ = [*module.split("."), ""]
    return package if not component or component.startswith("_") else f"{package}.{component}"


Fields = tuple[str, str, dict[str, str], Iterable[str]]

_PARAMETER_SECTIONS = {
    "Parameters",
    "Other Parameters",
    "Attributes",
    "Methods",
    "Returns",
    "Yields",
    "Receives",
}
_PARAMETER_SECTIONS |= {"Raises", "Warns"}
_NOT_SECTIONS = frozenset(["Signature", "Summary", "Extended Summary", "See Also", "index"])


def _numpy_fields(raw: str) -> Fields:
    """Parse by numpydoc; it also reads the ``====`` underlines of SymPy."""
    parsed = _numpydoc_class()(raw)
    sections = {}
    for title, content in parsed.items():
        if title in _NOT_SECTIONS or not content:
            continue
        if title in _PARAMETER_SECTIONS:
            sections[title] = _parameters(content)
        else:
            sections[title] = plain_text("\n".join(content))
    summary = "\n".join(parsed["Summary"])
    return summary, plain_text("\n".join(parsed["Extended Summary"])), sections, parsed["See Also"]


_numpydoc: type | None = None


def _numpydoc_class() -> type:
    """Return numpydoc's parser made lenient (unknown sections stay, repeated ones are joined) and twice as fast."""
    global _numpydoc
    if _numpydoc is None:
        from numpydoc.docscrape import NumpyDocString, Reader  # here: reading the cache must not need it

        class Lenient(NumpyDocString):
            def __init__(self, docstring: str) -> None:  # a normalised one; the parent dedents and copies deeply
                self._doc = Reader(docstring.split("\n"))
                self._parsed_data = {title: type(empty)(empty) for title, empty in self.sections.items()}
                self._parse()

            def __setitem__(self, key: str, value: Any) -> None:
                before = self._parsed_data.get(key)
                joined = isinstance(before, list) and isinstance(value, list) and "Summary" not in key
                self._parsed_data[key] = before + value if joined and before else value

            def _error_location(self, msg: str, error: bool = True) -> None:
                pass

            def _parse_param_list(self, content: list[str], single_element_is_type: bool = False) -> list[Any]:
                return list(_entries(_joined_prose(prose_lines(_dedented(content))), single_element_is_type))

            def _parse_see_also(self, content: list[str]) -> list[str]:
                return _see_also_names(content)

        _numpydoc = Lenient
    return _numpydoc


def _entries(lines: list[str], bare_is_type: bool) -> Iterator[tuple[str, str, list[str]]]:
    """Yield (name, type, indented lines) for each entry of a parameter list.

    >>> list(_entries(["x : int", "    A number.", "y", "    Another."], bare_is_type=False))
    [('x', 'int', ['    A number.']), ('y', '', ['    Another.'])]
    """
    at = 0
    while at < len(lines):
        end = at + 1
        while end < len(lines) and (lines[end][:1].isspace() or not lines[end]):
            end += 1
        name, colon, kind = lines[at].strip().partition(" : ")
        if colon:
            yield name, _BLANKS.sub(" ", kind), lines[at + 1 : end]
        else:
            name = name.removesuffix(" :")
            yield ("", name, lines[at + 1 : end]) if bare_is_type else (name, "", lines[at + 1 : end])
        at = end


_BLANKS = re.compile(r"\s{2,}")


def _dedented(lines: list[str]) -> list[str]:
    """Return the lines without their common indent."""
    if lines and lines[0][:1] not in ("", " "):
        return lines
    shift = min((len(line) - len(line.lstrip()) for line in lines if line), default=0)
    return [line[shift:] for line in lines] if shift else lines


_SEE_ALSO_ENTRY = re.compile(r"(?::[\w:]+:)?`?[~.!]?([A-Za-z_][\w.]*)(?:\(\))?`?$")


def _see_also_names(content: list[str]) -> list[str]:
    """Return the names before the colon of each entry; continuation lines are indented further.

    >>> _see_also_names(["numpy.add, :func:`~numpy.sum` : Sums.", "    Of all kinds.", "mean"])
    ['numpy.add', 'numpy.sum', 'mean']
    """
    names: list[str] = []
    for line in _dedented(content):
        if line[:1].isspace() or line.startswith(".."):
            continue
        for entry in re.split(r"\s:(?:\s|$)|:\s|:$", line, maxsplit=1)[0].split(","):
            if match := _SEE_ALSO_ENTRY.match(entry.strip().rstrip(".")):
                names.append(match[1])
    return list(dict.fromkeys(names))


_HEAD = re.compile(r"(?:[\w.*`, -]+? : )|[\w.]+\(|\S+$|[\w*]+(?:, [\w*]+)+$")


def _joined_prose(lines: list[str]) -> list[str]:
    """Join sentences that stand in a parameter list; else each of their lines would be taken for a name.

    >>> _joined_prose(["y : array", "    The result.", "Note that y is", "not sorted."])
    ['y : array', '    The result.', 'Note that y is not sorted.']
    """
    joined: list[str] = []
    prose = False
    for line in lines:
        is_prose = bool(line) and not line[0].isspace() and not (_HEAD.match(line) and not prose)
        if is_prose and prose:
            joined[-1] += " " + line
        else:
            joined.append(line)
        prose = is_prose
    return joined


def _parameters(items: Iterable[tuple[str, str, list[str]]]) -> str:
    """Return one line for each parameter: ``name : type. Description``."""
    return finish("\n".join(_parameter(name, kind, _run_on(paragraphs(text))) for name, kind, text in items))


def _parameter(name: str, kind: str | None, words: str) -> str:
    head = f"{name} : {kind}" if name and kind else name or kind or ""
    if not words:
        return head
    if name and not kind:
        return f"{head} : {words}"
    return _run_on([head, words] if head else [words])


def _run_on(parts: list[str]) -> str:
    """Join paragraphs and list items on one line; each ends like a sentence."""
    ended = [part if part[-1] in ".:;!?" else part + "." for part in parts[:-1]]
    return " ".join([*ended, *parts[-1:]])


_GOOGLE_TITLE = re.compile(r"([A-Z][A-Za-z]+(?: [A-Za-z]+)?):$")
_GOOGLE_PROSE_LITERAL = re.compile(r"^(\s*)(Notes?|Warnings?|Args|Returns?)::\s*$", re.M)
_GOOGLE_NAMES = {  # by lower-case title; any other title stays as it is
    **dict.fromkeys(["arg", "args", "arguments", "parameters", "params"], "Parameters"),
    **dict.fromkeys(["keyword args", "keyword arguments", "kwargs"], "Parameters"),
    **dict.fromkeys(["return", "returns"], "Returns"),
    **dict.fromkeys(["example", "examples"], "Examples"),
    **dict.fromkeys(["note", "notes"], "Notes"),
    **dict.fromkeys(["warning", "warnings"], "Warnings"),
    **{title.lower(): title for title in ("Attributes", "Raises", "Yields")},
}
_SIGNATURE = re.compile(r"[\w.]+\(.*\)(?:\s*->.*)?$", re.S)


def _google_fields(raw: str) -> Fields:
    """Parse the Google style of torch; docstring-parser reads the parameter lists.

    docstring-parser alone loses every repeated section and all text after the first one, so the cut into
    sections is made here.
    """
    lines = prose_lines(_GOOGLE_PROSE_LITERAL.sub(r"\1\2:", raw).split("\n"))
    chunks = list(_google_chunks(lines))
    opening = chunks.pop(0)[1]
    while chunks and chunks[0][0].rstrip("s") in (
        "Note",
        "Warning",
    ):  # treated like ".. note::": part of the body
        opening += ["", *textwrap.dedent("\n".join(chunks.pop(0)[1])).split("\n")]
    summary, body = _google_summary(opening)
    sections: dict[str, str] = {}
    for title, content in chunks:
        known = _GOOGLE_NAMES.get(title.lower(), title)
        is_list = known in ("Parameters", "Attributes", "Raises")
        text = _google_parameters(content) if is_list else finish("\n".join(paragraphs(content)))
        sections[known] = "\n".join(part for part in (sections.get(known, ""), text) if part)
    return summary, body, sections, ()


def _google_chunks(lines: list[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield (title, lines): the opening first, then each section; unindented text after one is a note."""
    title, chunk = "", []
    for at, line in enumerate(lines):
        if line[:1].isspace() or not line:
            chunk.append(line)
            continue
        match = _GOOGLE_TITLE.match(line.rstrip())
        following = next((later for later in lines[at + 1 :] if later.strip()), "")
        if match and (following[:1].isspace() or match[1].lower() in _GOOGLE_NAMES):
            yield title, chunk
            title, chunk = match[1], []
        elif title and _GOOGLE_NAMES.get(title.lower(), title) != "Notes" and any(map(str.strip, chunk)):
            yield title, chunk
            title, chunk = "Notes", [line]
        else:
            chunk.append(line)
    yield title, chunk


def _google_summary(lines: list[str]) -> tuple[str, str]:
    """Return summary and body; signatures in front of the text are passed over."""
    found = paragraphs(lines)
    while len(found) > 1 and _SIGNATURE.match(found[0]):
        del found[0]
    return (found[0] if found else ""), finish("\n".join(found[1:]))


def _google_parameters(lines: list[str]) -> str:
    from docstring_parser import DocstringStyle, ParseError, parse

    block = textwrap.dedent("\n".join(lines)).strip("\n")
    # The opening dash keeps the parser's cleandoc from undoing the indent.
    source = "-\n\nArgs:\n" + textwrap.indent(block, "    ")
    try:
        items = parse(source, style=DocstringStyle.GOOGLE).meta
    except ParseError:  # a line without a colon, often prose
        return finish("\n".join(_unparsed_parameters(block.split("\n"))))
    return finish("\n".join(map(_google_parameter, items)))


def _google_parameter(item: Any) -> str:
    kind = f"{item.type_name}, optional" if item.type_name and item.is_optional else item.type_name
    return _parameter(item.arg_name, kind, _run_on(paragraphs((item.description or "").split("\n"))))


def _unparsed_parameters(lines: list[str]) -> list[str]:
    """Start a paragraph at each unindented line, when such lines look like the names of a list."""
    heads = [line for line in lines if line and not line[0].isspace()]
    if sum(":" in line or " - " in line for line in heads) * 2 >= len(heads):
        lines = [extended for line in lines for extended in (["", line] if line in heads else [line])]
    return paragraphs(lines)
