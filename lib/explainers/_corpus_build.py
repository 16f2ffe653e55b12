"""Extraction of the docstring corpus: which texts, in which order, with which fields.

Used by :mod:`explainers.corpus`, which caches the result. The Python sources are parsed, never imported; only
the objects of C extensions, which have no readable source, are looked at in a running interpreter.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import importlib.util
import inspect
import os
import queue
import re
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ._corpus_fields import Doc, from_line, make_doc, to_line

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
    "numpy": [
        "numpy",
        *[f"numpy.{name}" for name in ("ndarray", "generic", "dtype", "nditer")],
        *[f"numpy.random.{name}" for name in ("Generator", "RandomState", "BitGenerator")],
    ],
    "scipy": [f"scipy.{name}" for name in ("special", "spatial", "ndimage", "interpolate", "sparse.csgraph")],
    "torch": [
        "torch",
        *[f"torch.{name}" for name in ("Tensor", "nn.functional", "linalg", "fft", "special", "sparse")],
        *[f"torch.{name}" for name in ("Generator", "autograd")],
    ],
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

_SKIPPED_FOLDERS = {"_vendor", "externals", "_externals", "vendored", "third_party"}
_SKIPPED_FOLDERS |= {"array_api_compat", "array_api_extra"}
_SKIPPED_FOLDERS |= {"cobyqa", "pyprima"}  # whole projects that scipy carries inside scipy._lib
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{6,}")


Progress = Callable[[int], Any]  # is told how many more files are done


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
            f"the docstring corpus needs {package!r}: install the distribution {DISTRIBUTIONS[package]!r}",
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
    """Yield the docstrings of public names that C code carries, by the fixed list; no property is run."""
    for path in EXTENSION_OBJECTS.get(package, ()):
        owner = _resolve(path)
        if not inspect.isclass(owner):
            yield from _members(owner, path, path, sorted(vars(owner)), in_class=False)
            continue
        module = path.rpartition(".")[0]
        yield from _extension(path, module, "class", owner)
        yield from _members(owner, path, module, sorted(dir(owner)), in_class=True)


def _resolve(path: str) -> Any:
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError:
        module, _, name = path.rpartition(".")
        return getattr(importlib.import_module(module), name)


def _members(owner: Any, path: str, module: str, names: Iterable[str], *, in_class: bool) -> Iterator[Found]:
    for name in names:
        if name.startswith("_"):  # torch alone has 58 copies of one sentence there
            continue
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


# ---------------------------------------------------------------- the build


def extract(package: str, progress: Progress = lambda files: None) -> tuple[list[Found], list[Found]]:
    """Return the (static, extension) texts of a package, each sorted by name."""
    static: list[Found] = []
    for module, path in source_files(package):
        try:
            static += static_texts(module, path.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError) as error:
            print(f"{path} was left out: {error}", file=sys.stderr)
        progress(1)
    by_name = lambda found: found.name  # noqa: E731
    return sorted(static, key=by_name), sorted(extension_texts(package), key=by_name)


def unique(groups: Iterable[Iterable[Any]]) -> list[Any]:
    """Return one entry a name and one a text, the first of each, in the order given."""
    names: set[str] = set()
    texts: set[str] = set()
    kept = []
    for entry in (entry for group in groups for entry in group):
        if entry.name not in names and entry.raw not in texts:
            names.add(entry.name)
            texts.add(entry.raw)
            kept.append(entry)
    return kept


def docs_of(package: str, progress: Progress = lambda files: None) -> tuple[list[Doc], list[Doc]]:
    """Return the parsed documents of one package: from sources, from extensions."""
    static, extension = extract(package, progress)
    kept = unique([static, extension])
    from_sources = {found.name for found in static}
    docs: tuple[list[Doc], list[Doc]] = ([], [])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpydoc's opinions about other people's docstrings
        for found in kept:
            docs[found.name not in from_sources].append(make_doc(package, *found))
    return docs


def build(packages: Iterable[str], *, progress: bool = True) -> list[Doc]:
    """Extract, parse and clean the packages in worker processes; return the documents sorted by name.

    Workers are plain subprocesses: fork would meet the threads of torch, and spawn would run the caller's
    script again.
    """
    wanted = set(packages)
    packages = [name for name in DISTRIBUTIONS if name in wanted]  # largest first
    files = {package: len(source_files(package)) for package in packages}
    with tempfile.TemporaryDirectory() as folder, _bar(sum(files.values()), progress) as advance:
        paths = {package: Path(folder, f"{package}.jsonl") for package in packages}
        _run_workers(paths, advance)
        parts = {package: _read_part(path) for package, path in paths.items()}
    groups = [
        sorted((doc for part in parts.values() for doc in part[extension]), key=lambda doc: doc.name)
        for extension in (0, 1)
    ]
    return sorted(unique(groups), key=lambda doc: doc.name)


@contextlib.contextmanager
def _bar(total: int, shown: bool) -> Iterator[Progress]:
    if not shown or _in_notebook():
        yield lambda step: None
        return
    from tqdm import tqdm

    with tqdm(total=total, desc="docstring corpus (first use)", unit=" files") as bar:
        yield bar.update


def _in_notebook() -> bool:
    """Whether a kernel runs this: there the bar would become a part of the cell's output, on the first run only."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")


def _run_workers(paths: dict[str, Path], advance: Progress) -> None:
    """Run one subprocess a package, ``WORKERS`` at a time; the first failure is raised at the end."""
    tasks: queue.SimpleQueue[str] = queue.SimpleQueue()
    failures: list[Exception] = []
    for package in paths:
        tasks.put(package)

    def serve() -> None:
        while not failures:
            try:
                package = tasks.get_nowait()
            except queue.Empty:
                return
            try:
                _run_worker(package, paths[package], advance)
            except Exception as error:
                failures.append(error)

    threads = [threading.Thread(target=serve) for _ in range(WORKERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def _run_worker(package: str, path: Path, advance: Progress) -> None:
    code = "import sys; from explainers._corpus_build import work; work(*sys.argv[1:])"
    search = os.pathsep.join(entry for entry in sys.path if entry)
    environment = {**os.environ, "PYTHONPATH": search, "OMP_NUM_THREADS": "1"}
    log = path.with_suffix(".log")
    with log.open("w", encoding="utf-8") as errors:
        command = [sys.executable, "-c", code, package, str(path)]
        worker = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment)
        for line in worker.stdout:
            if line.startswith("files "):  # an import may print, too
                advance(int(line.split()[1]))
        worker.wait()
    if worker.returncode:
        tail = log.read_text(encoding="utf-8", errors="replace").strip()[-2000:]
        status = worker.returncode
        raise RuntimeError(f"extracting the docstrings of {package!r} failed with status {status}:\n{tail}")


def work(package: str, path: str) -> None:
    """Write the documents of one package to ``path``; runs in a process of its own."""
    parts = docs_of(package, lambda files: print("files", files, flush=True))
    with open(path, "w", encoding="utf-8") as out:
        for extension, docs in enumerate(parts):
            out.writelines(f"{extension}{to_line(doc)}\n" for doc in docs)


def _read_part(path: Path) -> tuple[list[Doc], list[Doc]]:
    parts: tuple[list[Doc], list[Doc]] = ([], [])
    with path.open(encoding="utf-8", newline="\n") as lines:
        for line in lines:
            parts[int(line[0])].append(from_line(line[1:]))
    return parts
