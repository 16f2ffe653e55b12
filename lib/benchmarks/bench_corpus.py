"""The docstring corpus beside what its work costs at least: parsing alone, the parsers alone, re.findall alone.

Run it with ``python benchmarks/bench_corpus.py`` from the folder of the package. CPU seconds of one thread; every
ratio is the work of the corpus over the work of the peer on the same texts.
"""

from __future__ import annotations

import ast
import contextlib
import gc
import re
import time
import warnings
from collections.abc import Callable, Iterable
from typing import Any

from docstring_parser import DocstringStyle
from docstring_parser import parse as parse_google
from numpydoc.docscrape import NumpyDocString

from explainers import _corpus_build, _corpus_fields, corpus


def cpu_seconds(work: Callable[[], Any], repeats: int = 1) -> float:
    """Return the least CPU time of some runs, garbage collected before each."""
    times = []
    for _ in range(repeats):
        gc.collect()
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


def row(routine: str, peer: str, ratio: float, target: float) -> dict[str, Any]:
    """Return one line of the table."""
    return {"routine": routine, "peer": peer, "ratio": round(ratio, 3), "target": target, "met": ratio <= target}


def extraction(packages: Iterable[str]) -> dict[str, Any]:
    """Time walking and reading docstrings together with ``ast.parse``, over ``ast.parse``; no tree is kept."""
    ours = theirs = 0.0
    for package in packages:
        texts = [(module, path.read_text(encoding="utf-8")) for module, path in _corpus_build.source_files(package)]
        ours += cpu_seconds(lambda texts=texts: drain(list(_corpus_build.static_texts(*item)) for item in texts), 2)
        theirs += cpu_seconds(lambda texts=texts: drain(ast.parse(source) for _, source in texts), 2)
    return row("extract from sources", "ast.parse", ours / theirs, 1.3)


def drain(results: Iterable[Any]) -> None:
    """Compute every result and keep none."""
    for _ in results:
        pass


def parse_alone(doc: corpus.Doc) -> None:
    """Run the parser of the document's package and drop the result."""
    with contextlib.suppress(Exception):  # it fails where the corpus falls back
        if doc.package == "torch":
            parse_google(doc.raw, style=DocstringStyle.GOOGLE)
        else:
            NumpyDocString(doc.raw)


def parsing(docs: corpus.Corpus) -> dict[str, Any]:
    """Time parsing and cleaning over the parsers alone."""

    def parse_and_clean() -> None:
        for doc in docs:
            _corpus_fields.make_doc(doc.package, doc.name, doc.topic, doc.kind, doc.raw)

    ours = cpu_seconds(parse_and_clean, 2)
    theirs = cpu_seconds(lambda: [parse_alone(doc) for doc in docs], 2)
    return row("parse and clean", "numpydoc + docstring-parser", ours / theirs, 1.5)


def tokenising(docs: corpus.Corpus) -> dict[str, Any]:
    """Time :func:`tokenize` over ``re.findall`` with the brief's pattern."""
    texts = docs.prose()
    pattern = re.compile(r"[A-Za-z]+(?:'[a-z]+)?|\d+")
    ours = cpu_seconds(lambda: [corpus.tokenize(text) for text in texts], 3)
    theirs = cpu_seconds(lambda: [pattern.findall(text) for text in texts], 3)
    return row("tokenize", "re.findall", ours / theirs, 2.0)


def run(packages: Iterable[str] = corpus.PACKAGES, cache_dir: str | None = None) -> list[dict[str, Any]]:
    """Return the rows; the last one is the time to load the cache in seconds, its peer a clock of one second."""
    packages = list(packages)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SyntaxWarnings and numpydoc's remarks about the packages' texts
        docs = corpus.load_docstrings(packages, cache_dir=cache_dir)
        load = cpu_seconds(lambda: corpus.load_docstrings(packages, cache_dir=cache_dir), 3)
        rows = [extraction(packages), parsing(docs), tokenising(docs)]
    return [*rows, row("load from cache (CPU seconds)", "1 s", load, 1.5)]


def main() -> None:
    """Print the table."""
    for line in run():
        print(
            f"{line['routine']:32} {line['peer']:30} {line['ratio']:7.3f}  at most {line['target']:<5}"
            f" {'met' if line['met'] else 'MISSED'}"
        )


if __name__ == "__main__":
    main()
