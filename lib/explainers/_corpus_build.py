"""Extraction of the docstring corpus: which texts, in which order, with which fields.

Used by :mod:`explainers.corpus`, which caches the result. The Python sources are parsed, never imported; only the
objects of C extensions, which have no readable source, are looked at in a running interpreter.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import importlib.util
import inspect
import json
import os
import queue
import re
import subprocess
import sys
import tempfile
import textwrap
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ._corpus_text import finish, paragraphs, plain_text, prose_lines

EXTRACTOR_VERSION = 1  # part of the cache key: bump it with every change of extraction or cleaning
MIN_CHARACTERS = 80
WORKERS = 2

# Import name -> distribution name. The order is by size, so that the longest tasks start first.
DISTRIBUTIONS = {
    "sympy": "sympy",
    "torch": "torch",
    "scipy": "scipy",
    "sklearn": "scikit-learn",
    "matplotlib": "matplotlib",
    "numpy": "numpy",
}

# Looked at without walking: what C code documents. A class stands for its members.
EXTENSION_OBJECTS = {
    "numpy": (
        "numpy numpy.ndarray numpy.generic numpy.dtype numpy.nditer"
        " numpy.random.Generator numpy.random.RandomState numpy.random.BitGenerator"
    ).split(),
    "scipy": "scipy.special scipy.spatial scipy.ndimage scipy.interpolate scipy.sparse.csgraph".split(),
    "torch": (
        "torch torch.Tensor torch.nn.functional torch.linalg torch.fft torch.special torch.sparse"
        " torch.Generator torch.autograd"
    ).split(),
}
EXTENSION_KINDS = {
    "builtin_function_or_method": "function",
    "ufunc": "function",
    "cython_function_or_method": "function",
    "_ArrayFunctionDispatcher": "function",
    "method_descriptor": "method",
    "classmethod_descriptor": "method",
    "getset_descriptor": "property",
    "member_descriptor": "property",
}

_SKIPPED_FOLDERS = frozenset(
    "_vendor externals _externals vendored third_party array_api_compat array_api_extra __pycache__".split()
)
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{6,}")


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
    >>> doc = make_doc("numpy", "numpy.ma.core.mean", "numpy.ma.core", "function", "Average.\\n\\nOver `axis`.")
    >>> doc.topic, doc.summary, doc.body
    ('numpy.ma', 'Average.', 'Over axis.')
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


class Found(NamedTuple):
    """A docstring before it is parsed."""

    name: str
    module: str
    kind: str
    raw: str


# ---------------------------------------------------------------- texts from sources


def package_folder(package: str) -> Path:
    """Return where a package lies, without importing it.

    Raises
    ------
    ModuleNotFoundError
        If it is not installed; the message names the distribution.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(
            f"the docstring corpus needs the package {package!r}: install the distribution {DISTRIBUTIONS[package]!r}",
            name=package,
        )
    return Path(spec.submodule_search_locations[0])


def source_files(package: str) -> list[tuple[str, Path]]:
    """Return (module name, file) for the sources that are read, in sorted POSIX order."""
    root = package_folder(package)
    found = []
    for path in root.rglob("*.py"):
        inside = path.relative_to(root)
        if _is_read(package, inside):
            parts = inside.with_suffix("").parts
            module = ".".join((package, *(parts[:-1] if parts[-1] == "__init__" else parts)))
            found.append((inside.as_posix(), module, path))
    return [(module, path) for _, module, path in sorted(found)]


def _is_read(package: str, path: Path) -> bool:
    folders, file = path.parts[:-1], path.name
    if file in ("conftest.py", "setup.py") or file.startswith("test_"):
        return False
    if package == "numpy" and folders[:1] == ("distutils",):  # exists for some Python versions only
        return False
    for depth, folder in enumerate(folders):
        if folder in _SKIPPED_FOLDERS or folder.startswith("test"):
            return False
        private = folder.startswith("_") and package not in ("scipy", "sklearn")
        if private and not (package == "numpy" and depth == 0 and folder == "_core"):
            return False
    return True


def static_texts(module: str, source: str) -> Iterator[Found]:
    """Yield the docstrings of a source file that are long enough.

    >>> source = 'class A:\\n    def f(self):\\n        "' + "word " * 20 + '"'
    >>> [(found.name, found.kind) for found in static_texts("numpy.lib", source)]
    [('numpy.lib.A.f', 'method')]
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escapes in other people's docstrings
        tree = ast.parse(source)
    yield from _found(module, module, "module", tree)
    yield from _walk(tree.body, module, module, in_class=False)


def _walk(body: Iterable[ast.AST], scope: str, module: str, *, in_class: bool) -> Iterator[Found]:
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _found(f"{scope}.{node.name}", module, _function_kind(node, in_class), node)
        elif isinstance(node, ast.ClassDef):
            name = f"{scope}.{node.name}"
            yield from _found(name, module, "class", node)
            yield from _walk(node.body, name, module, in_class=True)
        elif isinstance(node, ast.If | ast.Try | ast.With):
            for field in ("body", "handlers", "orelse", "finalbody"):
                yield from _walk(getattr(node, field, ()), scope, module, in_class=in_class)
        elif isinstance(node, ast.ExceptHandler):
            yield from _walk(node.body, scope, module, in_class=in_class)


def _function_kind(node: ast.FunctionDef | ast.AsyncFunctionDef, in_class: bool) -> str:
    if not in_class:
        return "function"
    for decorator in node.decorator_list:
        name = decorator.attr if isinstance(decorator, ast.Attribute) else getattr(decorator, "id", "")
        if name in ("property", "cached_property", "setter"):
            return "property"
    return "method"


def _found(name: str, module: str, kind: str, node: Any) -> Iterator[Found]:
    text = ast.get_docstring(node, clean=False)
    if text is not None and len(text) >= MIN_CHARACTERS and len(text := normalise(text)) >= MIN_CHARACTERS:
        yield Found(name, module, kind, text)


def normalise(text: str) -> str:
    """Return a docstring dedented, without tabs, trailing blanks and memory addresses."""
    lines = inspect.cleandoc(text.expandtabs(8)).split("\n")
    return _ADDRESS.sub("0x0", "\n".join(line.rstrip() for line in lines)).strip("\n")


# ---------------------------------------------------------------- texts from C extensions


def extension_texts(package: str) -> Iterator[Found]:
    """Yield the docstrings that C code carries, from the fixed list; no property is evaluated."""
    for path in EXTENSION_OBJECTS.get(package, ()):
        owner = _resolve(path)
        if not inspect.isclass(owner):
            yield from _members(owner, path, path, sorted(vars(owner)), in_class=False)
            continue
        module = path.rpartition(".")[0]
        yield from _extension(path, module, "class", owner)
        names = sorted(set(dir(owner)) - set(dir(object)))
        yield from _members(owner, path, module, names, in_class=True)


def _resolve(path: str) -> Any:
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError:
        module, _, name = path.rpartition(".")
        return getattr(importlib.import_module(module), name)


def _members(owner: Any, path: str, module: str, names: Iterable[str], *, in_class: bool) -> Iterator[Found]:
    for name in names:
        member = inspect.getattr_static(owner, name, None)
        kind = EXTENSION_KINDS.get(type(member).__name__)
        if kind:
            yield from _extension(
                f"{path}.{name}", module, "method" if in_class and kind == "function" else kind, member
            )


def _extension(name: str, module: str, kind: str, member: Any) -> Iterator[Found]:
    text = getattr(member, "__doc__", None)
    if isinstance(text, str) and len(text := normalise(text)) >= MIN_CHARACTERS:
        yield Found(name, module, kind, text)


# ---------------------------------------------------------------- fields


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
    """Return the package and the first public component below it.

    >>> topic_of("scipy.optimize._minimize"), topic_of("numpy._core.fromnumeric"), topic_of("scipy._lib._util")
    ('scipy.optimize', 'numpy.fromnumeric', 'scipy')
    """
    package, *rest = module.split(".")
    return ".".join([package, *[part for part in rest if not part.startswith("_")][:1]])


Fields = tuple[str, str, dict[str, str], Iterable[str]]

_PARAMETER_SECTIONS = frozenset(
    "Parameters Attributes Methods Returns Yields Receives Raises Warns".split() + ["Other Parameters"]
)
_NOT_SECTIONS = frozenset(["Signature", "Summary", "Extended Summary", "See Also", "index"])


def _numpy_fields(raw: str) -> Fields:
    """Parse by numpydoc; it also reads the ``====`` underlines of SymPy."""
    parsed = _numpydoc_class()(raw)
    sections = {}
    for title, content in parsed.items():
        if title in _NOT_SECTIONS or not content:
            continue
        if title in _PARAMETER_SECTIONS:
            sections[title] = _parameters((p.name, p.type, p.desc) for p in content)
        else:
            sections[title] = plain_text("\n".join(content))
    summary = "\n".join(parsed["Summary"])
    return summary, plain_text("\n".join(parsed["Extended Summary"])), sections, parsed["See Also"]


_numpydoc: type | None = None


def _numpydoc_class() -> type:
    """Return numpydoc's parser made lenient: unknown sections are kept, repeated ones joined, errors ignored."""
    global _numpydoc
    if _numpydoc is None:
        from numpydoc.docscrape import NumpyDocString  # here: reading the cache must not need it

        class Lenient(NumpyDocString):
            def __setitem__(self, key: str, value: Any) -> None:
                before = self._parsed_data.get(key)
                joined = isinstance(before, list) and isinstance(value, list) and "Summary" not in key
                self._parsed_data[key] = before + value if joined and before else value

            def _error_location(self, msg: str, error: bool = True) -> None:
                pass

            def _parse_see_also(self, content: list[str]) -> list[str]:
                return _see_also_names(content)

        _numpydoc = Lenient
    return _numpydoc


_SEE_ALSO_ENTRY = re.compile(r"(?::[\w:]+:)?`?[~.!]?([A-Za-z_][\w.]*)(?:\(\))?`?$")


def _see_also_names(content: list[str]) -> list[str]:
    """Return the names before the colon of each entry; continuation lines are indented further.

    >>> _see_also_names(["numpy.add, :func:`~numpy.sum` : Sums.", "    Of all kinds.", "mean"])
    ['numpy.add', 'numpy.sum', 'mean']
    """
    names: list[str] = []
    for line in textwrap.dedent("\n".join(content)).split("\n"):
        if line[:1].isspace() or line.startswith(".."):
            continue
        for entry in re.split(r"\s:(?:\s|$)|:\s|:$", line, maxsplit=1)[0].split(","):
            if match := _SEE_ALSO_ENTRY.match(entry.strip().rstrip(".")):
                names.append(match[1])
    return list(dict.fromkeys(names))


def _parameters(items: Iterable[tuple[str, str, list[str]]]) -> str:
    """Return one line for each parameter: ``name : type. Description``."""
    lines: list[str] = []
    prose = False  # a sentence among the parameters reaches us line by line, each as a name
    for name, kind, description in items:
        name = name.strip()
        if name.startswith(".."):
            lines += paragraphs(prose_lines([name, *("    " + line for line in description)]))
            prose = False
            continue
        words = " ".join(paragraphs(description)) if description else ""
        if not kind and not words and " " in name and "," not in name:
            if prose:
                lines[-1] += " " + name
            else:
                lines.append(name)
            prose = True
            continue
        prose = False
        lines.append(_parameter(name, kind, words))
    return finish("\n".join(lines))


def _parameter(name: str, kind: str | None, words: str) -> str:
    head = f"{name} : {kind}" if name and kind else name or kind or ""
    if not words:
        return head
    if not kind and name:
        return f"{head} : {words}"
    return f"{head.rstrip('.')}. {words}" if head else words


_GOOGLE_TITLE = re.compile(r"([A-Z][A-Za-z]+(?: [A-Za-z]+)?):$")
_GOOGLE_PROSE_LITERAL = re.compile(r"^(\s*)(Notes?|Warnings?|Args|Returns?)::\s*$", re.M)
_GOOGLE_NAMES = {
    "args": "Parameters", "arguments": "Parameters", "parameters": "Parameters", "params": "Parameters",
    "arg": "Parameters", "keyword args": "Parameters", "keyword arguments": "Parameters", "kwargs": "Parameters",
    "attributes": "Attributes", "raises": "Raises", "return": "Returns", "returns": "Returns", "yields": "Yields",
    "example": "Examples", "examples": "Examples", "note": "Notes", "notes": "Notes", "warning": "Warnings",
    "warnings": "Warnings",
}  # fmt: skip
_SIGNATURE = re.compile(r"[\w.]+\(.*\)(?:\s*->.*)?$", re.S)


def _google_fields(raw: str) -> Fields:
    """Parse the Google style of torch; docstring-parser reads the parameter lists.

    docstring-parser alone loses every repeated section and all text after the first one, so the cut into
    sections is made here.
    """
    lines = prose_lines(_GOOGLE_PROSE_LITERAL.sub(r"\1\2:", raw).split("\n"))
    chunks = list(_google_chunks(lines))
    summary, body = _google_summary(chunks[0][1])
    sections: dict[str, str] = {}
    for title, content in chunks[1:]:
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
    from docstring_parser.common import DocstringParam, DocstringRaises, ParseError
    from docstring_parser.google import GoogleParser

    block = textwrap.indent(textwrap.dedent("\n".join(lines)).strip("\n"), "    ")
    try:
        items = GoogleParser().parse(f"Args:\n{block}").meta
    except ParseError:  # no colon after a name: prose
        return finish("\n".join(paragraphs(lines)))
    assert all(isinstance(item, DocstringParam | DocstringRaises) for item in items)
    return finish(
        "\n".join(
            _parameter(item.arg_name, item.type_name, " ".join(paragraphs((item.description or "").split("\n"))))
            for item in items
        )
    )
