"""The corpus by small cases worked by hand: tokens, tables, sources, fields, blocks, inline markup, selections.

None of these needs the corpus itself; what its figures are is tested in ``test_corpus.py``.
"""

import gzip
import hashlib
import io
import itertools
import json
import math
import signal
import sys
import time
import types
import warnings
from pathlib import Path

import numpy as np
import pytest

from explainers import _corpus_build, _corpus_data, _corpus_fields, _corpus_text, corpus
from explainers._corpus_fields import make_doc

LONG = "A docstring that is long enough to be kept, because it has more than eighty characters in it."


def document(name, text="Sum it.", *, package=None, kind="function", module=None):
    module = module or name.rpartition(".")[0]
    return make_doc(package or name.partition(".")[0], name, module, kind, text)


@pytest.fixture(autouse=True)
def ends():
    """Let a loop without end fail its test after two seconds of CPU time."""

    def stop(*signal_and_frame):
        pytest.fail("the test does not end")

    if not hasattr(signal, "ITIMER_VIRTUAL"):  # Windows
        yield
        return
    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, 2)
    yield
    signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    signal.signal(signal.SIGVTALRM, before)


# ---------------------------------------------------------------- tokens


def test_words_are_ordered_by_falling_count_and_then_by_the_alphabet():
    tokens = ["d", "c", "rare", "c", "d", "often", "often", "b", "b", "often"]
    vocabulary = corpus.Vocabulary.build([tokens], specials=())
    assert vocabulary.words == ("often", "b", "c", "d", "rare")
    assert vocabulary.counts.tolist() == [3, 2, 2, 2, 1]
    assert corpus.Vocabulary.build([tokens], specials=("c", "<unk>")).words[:3] == ("c", "<unk>", "often")
    assert corpus.Vocabulary.build([tokens], specials=("c",), max_size=2).words == ("c", "often")


def test_a_vocabulary_knows_its_words():
    vocabulary = corpus.Vocabulary.build([["a", "b"]])
    assert "a" in vocabulary
    assert "z" not in vocabulary
    assert len(vocabulary) == 3


def test_the_threshold_of_subsampling_is_one_in_ten_thousand():
    stream = np.zeros(40_000, int), np.array([0, 40_000])
    counts = np.array([10, 990])  # a share of 1 %: sqrt(1e-4 / 1e-2) = 1 / 10 stay
    kept, offsets = corpus.subsample(*stream, counts)
    assert abs(len(kept) - 4_000) < 6 * math.sqrt(40_000 * 0.1 * 0.9)
    again, _ = corpus.subsample(*stream, counts, threshold=1e-4, seed=0)
    assert len(again) == len(kept) == offsets[-1]


@pytest.mark.filterwarnings("error")
def test_subsampling_where_no_word_was_counted():
    kept, _ = corpus.subsample(np.zeros(5, int), np.array([0, 5]), np.array([0]), threshold=1.0)
    assert kept.tolist() == [0] * 5


# ---------------------------------------------------------------- public data


@pytest.mark.parametrize(
    ("split", "size", "md5"),
    [
        ("train", 10_797_148, "34a77ebe59551b3a3b3d8c0a2797c976"),
        ("valid", 1_121_681, "d756d22ab2310e7e60c094bea5c5a8eb"),
        ("test", 1_256_449, "781c9418ab9414bd09e4aad825aae752"),
    ],
)
def test_the_published_sizes_of_wikitext(tmp_path, split, size, md5):
    (tmp_path / f"{split}.txt").write_text("")
    with pytest.raises(ValueError, match=f"is not the published file: 0 bytes.*expected {size} bytes with md5 {md5}"):
        corpus.load_wikitext2(tmp_path, split)


def test_size_and_checksum_must_both_be_those_published():
    content, path = b"a text", Path("a.txt")
    md5 = hashlib.md5(content).hexdigest()
    _corpus_data._check_file(path, content, 6, md5)
    for size, wanted in [(7, md5), (6, "0" * 32)]:
        with pytest.raises(ValueError, match=f"expected {size} bytes with md5 {wanted}"):
            _corpus_data._check_file(path, content, size, wanted)


def test_wikitext_is_fetched_with_its_checksum_into_its_folder(tmp_path, monkeypatch):
    import pooch

    def retrieve(address, known, *, fname, path, progressbar):
        assert (
            address
            == "https://raw.githubusercontent.com/pytorch/examples/main/word_language_model/data/wikitext-2/test.txt"
        )
        assert known == "md5:781c9418ab9414bd09e4aad825aae752"
        assert progressbar
        Path(path, fname).write_text(" = One = \n \n Words . \n")

    monkeypatch.setattr(pooch, "retrieve", retrieve)
    with pytest.raises(FileNotFoundError, match="pass download=True"):
        corpus.load_wikitext2(tmp_path, "test")
    articles = corpus.load_wikitext2(tmp_path, "test", download=True, check=False)
    assert articles == [["=", "One", "=", "Words", "."]]
    assert (tmp_path / "test.txt").exists()
    with pytest.raises(ValueError, match="not the published file"):
        corpus.load_wikitext2(tmp_path, "test", download=True)


@pytest.mark.parametrize(
    ("lines", "titles"),
    [
        ([" = A = ", "", " text ", "", " = B = ", "", " text "], ["A", "B"]),
        ([" = A = ", " ", " text ", " ", " = B = ", " ", " text "], ["A", "B"]),
        ([" = A = ", "", " text ", " = B = ", "", " text "], ["A"]),  # no blank line before it
        ([" = A = ", "", " text ", "", " = B = ", " text "], ["A"]),  # none after it
        ([" = A = ", "", " text ", "", " = = B = = ", "", " text "], ["A"]),  # a heading within the article
        (["", " ", " = A = ", "", " text ", "", " = B = "], ["A", "B"]),  # at both ends
        ([" = A = \r", "\r", " text \r", "\r", " = B = \r", "\r"], ["A", "B"]),  # lines of Windows
    ],
)
def test_articles_begin_at_titles_of_the_first_level(lines, titles):
    articles = _corpus_data._articles(lines)
    assert [article[1] for article in articles] == titles
    assert [word for article in articles for word in article] == " ".join(lines).split()


def test_a_table_of_pairs_stands_in_the_folder_only_for_names_that_are_relative(tmp_path, monkeypatch):
    monkeypatch.setenv("EXPLAINERS_DATA", str(tmp_path))
    monkeypatch.setattr(_corpus_data, "_fetch_pairs", lambda path, table: pytest.fail("nothing is to be fetched"))
    folder = tmp_path / "word_similarity"
    folder.mkdir()
    (folder / "own.csv").write_text("word1,word2,score\na,b,1\n")
    assert corpus.load_word_pairs("own.csv", download=True) == [("a", "b", 1.0)]
    with pytest.raises(FileNotFoundError, match=r"men\.csv is missing.*download=True fetches it"):
        corpus.load_word_pairs(tmp_path / "elsewhere" / "men.csv", download=True)
    with pytest.raises(FileNotFoundError, match=r"none\.csv is missing, also in .*word_similarity; expected"):
        corpus.load_word_pairs("none.csv")


def test_a_fetched_table_makes_its_folder_and_may_find_it(tmp_path, monkeypatch):
    def fetch(source, address, known, target, wanted):
        assert (address, known, target.parent) == (f"https://there/{source.name}", None, folder)
        source.write_text("# a comment\nword1 word2 score\nsun moon 3\n")

    written = "word1,word2,score\nsun,moon,3\n"
    table = _corpus_data._PairTable(
        "some", hashlib.sha256(written.encode()).hexdigest(), "https://there/", {"a.tsv": None},
        _corpus_data._wordsim_table,
    )  # fmt: skip
    monkeypatch.setattr(_corpus_data, "_fetch", fetch)
    folder = tmp_path / "not" / "yet"
    for name in ("one.csv", "two.csv"):
        _corpus_data._fetch_pairs(folder / name, table)
        assert (folder / name).read_text() == written
    assert sorted(path.name for path in folder.iterdir()) == ["one.csv", "two.csv"]


@pytest.mark.parametrize(
    ("text", "part", "message"),
    [
        ("", None, "lacks the column 'word1'"),
        ("word1,word2,score\na,b,1\n", "dev", "lacks the column 'split'"),
        ("word1,word2,score\na,b\n", None, "line 2: two words and a number"),
        ("word1,word2,score\na,b,1\n,b,1\n", None, "line 3: two words and a number"),
        ("word1,word2,score\na,,1\n", None, "line 2"),
        ("word1,word2,score\na,b,inf\n", None, "line 2"),
        ("word1,word2,score\na,b,many\n", None, "line 2"),
        ("word1,word2,score,split\na,b,1,dev\n", "test", "has no pairs with split 'test'"),
    ],
)
def test_what_is_wrong_with_a_table_of_pairs(tmp_path, text, part, message):
    path = tmp_path / "pairs.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        corpus.load_word_pairs(path, part=part)


def test_a_word_in_quotes_may_hold_the_separator_and_a_line_break(tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_bytes(b'\xef\xbb\xbfword1,word2,score\r\n"a, b","c\r\nd",1\r\n')
    assert corpus.load_word_pairs(path) == [("a, b", "c\r\nd", 1.0)]


def test_lemmas_tell_the_part_of_speech_and_the_split():
    natural = [["stairs", "sun", "50.000000"], ["sun", "born", "2.500000"]]
    lemmas = [["stair-n", "sun-n", "50"], ["sun-n", "bear-v", "2.5"]]
    table = _corpus_data._men_table(natural, lemmas, [["sun-n", "bear-v", "2.5"]])
    assert table.split("\n") == [
        "word1,word2,score,pos1,pos2,split", "stairs,sun,50,n,n,test", "sun,born,2.5,n,v,dev", "",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="zip"):
        _corpus_data._men_table(natural, lemmas[:1], [])


def test_a_folder_is_the_one_given_then_that_of_the_environment_then_the_users(tmp_path, monkeypatch):
    monkeypatch.setenv("SOME_FOLDER", str(tmp_path))
    assert _corpus_data.data_folder("given", "SOME_FOLDER") == Path("given")
    assert _corpus_data.data_folder(None, "SOME_FOLDER") == tmp_path
    assert _corpus_data.data_folder("~/given", "SOME_FOLDER") == Path.home() / "given"
    monkeypatch.delenv("SOME_FOLDER")
    assert _corpus_data.data_folder("given", "SOME_FOLDER") == Path("given")
    assert "explainers" in _corpus_data.data_folder(None, "SOME_FOLDER").parts


# ---------------------------------------------------------------- sources


def test_where_a_package_lies_and_which_distribution_is_missing(monkeypatch):
    assert _corpus_build.package_folder("numpy") == Path(np.__file__).parent
    monkeypatch.setitem(_corpus_build.DISTRIBUTIONS, "no_such_package", "no-such-package")
    monkeypatch.setitem(_corpus_build.DISTRIBUTIONS, "hashlib", "a-module")  # there, but no package
    for package, distribution in [("no_such_package", "no-such-package"), ("hashlib", "a-module")]:
        with pytest.raises(ModuleNotFoundError, match=f"'{package}': install the distribution '{distribution}'"):
            _corpus_build.package_folder(package)


def test_modules_are_listed_by_their_paths(tmp_path, monkeypatch):
    names = [
        "__init__.py",
        "b.py",
        "b/__init__.py",
        "b/c/__init__.py",
        "b/c/d.py",
        "distutils/command/a.py",
        "b/tests/a.py",
    ]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.setattr(_corpus_build, "package_folder", lambda package: tmp_path)
    listed = Path.rglob
    for arranged in (sorted, lambda found: sorted(found, reverse=True)):
        monkeypatch.setattr(Path, "rglob", lambda self, pattern, arranged=arranged: arranged(listed(self, pattern)))
        found = _corpus_build.source_files("numpy")
        assert [module for module, _ in found] == ["numpy", "numpy.b", "numpy.b", "numpy.b.c", "numpy.b.c.d"]
        assert [path.relative_to(tmp_path).as_posix() for _, path in found] == names[:5]


def test_the_first_line_of_a_text_may_be_indented_more():
    (found,) = _corpus_build.static_texts("numpy.a", f'def f():\n    """\n        {LONG}\n    b"""\n')
    assert found.raw == f"    {LONG}\nb"


def test_odd_escapes_in_a_source_do_not_warn():
    source = f'def f():\n    "\\d {LONG}"\n'
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (found,) = _corpus_build.static_texts("numpy.a", source)
    assert found.raw == f"\\d {LONG}"


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("A\n  b\n      ", "A\nb"),
        ("\n      \n  b\n    c", "b\n  c"),
        ("A\n\n  b  \n   c", "A\n\nb\n c"),
        ("At 0xdeadbeef, 0x12345 and 0x00ABCDEF01.", "At 0x0, 0x12345 and 0x0."),
    ],
)
def test_a_docstring_is_dedented_without_blanks_around_it(text, clean):
    assert _corpus_build.normalise(text) == clean


@pytest.fixture
def extension(monkeypatch):
    """A module of C functions; its class has one as a member, too."""
    module = types.ModuleType("fake_extension")
    thing = type("Thing", (), {"__doc__": "A thing of some kind.", "root": math.sqrt, "_hidden": math.sin})
    vars(module).update(zeta=math.sqrt, add_=math.cos, _hidden=math.sin, Thing=thing, number=3, middle=math.tan)
    monkeypatch.setitem(sys.modules, "fake_extension", module)
    monkeypatch.setattr(_corpus_build, "MIN_CHARACTERS", 10)
    paths = ["fake_extension", "fake_extension.Thing"]
    monkeypatch.setattr(_corpus_build, "EXTENSION_OBJECTS", {"numpy": paths})
    return paths


def test_public_members_of_c_code_in_the_order_of_their_names(extension):
    found = [tuple(text[:3]) for text in _corpus_build.extension_texts("numpy")]
    assert found == [
        ("fake_extension.add_", "fake_extension", "function"),
        ("fake_extension.middle", "fake_extension", "function"),
        ("fake_extension.zeta", "fake_extension", "function"),
        ("fake_extension.Thing", "fake_extension", "class"),
        ("fake_extension.Thing.root", "fake_extension", "method"),
    ]


def test_extracted_texts_are_sorted_and_of_equal_names_the_first_comes_first(extension, tmp_path, monkeypatch):
    source = f'def g():\n    "Gee. {LONG}"\nif a:\n    def f(): "Zed. {LONG}"\nelse:\n    def f(): "Abc. {LONG}"\n'
    (tmp_path / "a.py").write_text(source)
    monkeypatch.setattr(_corpus_build, "package_folder", lambda package: tmp_path)
    static, texts = _corpus_build.extract("numpy")
    assert [(found.name, found.raw[:1]) for found in static] == [
        ("numpy.a.f", "Z"),
        ("numpy.a.f", "A"),
        ("numpy.a.g", "G"),
    ]
    assert [found.name.rpartition(".")[2] for found in texts] == ["Thing", "root", "add_", "middle", "zeta"]
    from_sources, from_c = _corpus_build.docs_of("numpy")
    assert [(doc.name, doc.summary[:1]) for doc in from_sources] == [("numpy.a.f", "Z"), ("numpy.a.g", "G")]
    assert len(from_c) == 4  # zeta and root say the same


# ---------------------------------------------------------------- the build, without its workers


@pytest.fixture
def parts(monkeypatch):
    """Let the workers write given documents; return them, by package, and what else happened."""
    parts, seen = {}, {}

    def run(paths, advance):
        seen["packages"] = list(paths)
        for package, path in paths.items():
            lines = [f"{extension}{_corpus_fields.to_line(doc)}\n" for extension, doc in parts[package]]
            path.write_text("".join(lines), encoding="utf-8", newline="\n")
            advance(2)

    monkeypatch.setattr(_corpus_build, "_run_workers", run)
    monkeypatch.setattr(_corpus_build, "source_files", lambda package: [("module", Path("file"))] * 2)
    return parts, seen


def test_a_build_joins_packages_by_name_and_prefers_sources(parts, capfd):
    given, seen = parts
    given["numpy"] = [
        (0, document("numpy.b", "Said twice.")),
        (1, document("numpy.a", "From C.")),
        (1, document("numpy.z", "From both.")),
    ]
    given["sympy"] = [(0, document("sympy.c", "Said twice.")), (0, document("sympy.a", "From both."))]
    built = _corpus_build.build(iter(["numpy", "sympy"]))
    assert seen["packages"] == ["sympy", "numpy"]  # the largest first
    assert [doc.name for doc in built] == ["numpy.a", "numpy.b", "sympy.a"]
    shown = capfd.readouterr().err
    assert "docstring corpus (first use): 100%" in shown
    assert "4/4" in shown
    assert "files" in shown
    assert [doc.name for doc in _corpus_build.build(["sympy"], progress=False)] == ["sympy.a", "sympy.c"]
    assert capfd.readouterr().err == ""


def test_of_texts_from_c_the_first_name_of_all_packages_stays(parts):
    given, _ = parts
    given["numpy"] = [(1, document("numpy.b", "Said twice."))]
    given["torch"] = [(1, document("torch.a", "Said twice.")), (1, document("torch.c", "Said once."))]
    assert [doc.name for doc in _corpus_build.build(["torch", "numpy"], progress=False)] == ["numpy.b", "torch.c"]


def test_each_package_has_one_worker_and_the_first_failure_is_raised_at_the_end(monkeypatch):
    done = []

    def work(package, path, advance):
        time.sleep(0.02)
        done.append((package, path))
        advance(1)

    monkeypatch.setattr(_corpus_build, "_run_worker", work)
    steps, paths = [], {name: Path(name) for name in "abc"}
    _corpus_build._run_workers(paths, steps.append)
    assert sorted(done) == sorted(paths.items())
    assert steps == [1, 1, 1]

    def fail(package, path, advance):
        done.append(package)
        raise RuntimeError(f"{package} failed")

    done.clear()
    monkeypatch.setattr(_corpus_build, "_run_worker", fail)
    monkeypatch.setattr(_corpus_build, "WORKERS", 1)
    with pytest.raises(RuntimeError, match="a failed"):
        _corpus_build._run_workers(paths, steps.append)
    assert done == ["a"]  # after a failure no other package is begun


FAKE_WORKER = """
import os, sys
def work(package, path):
    if package == "bad":
        sys.stderr.buffer.write(b"  \\n" + b"x" * 3000 + b"\\xff boom\\n\\n")
        sys.exit(3)
    print("files 1\\nsome import prints this\\nfiles 20", flush=True)
    with open(path, "w") as out:
        out.write(package + os.environ["OMP_NUM_THREADS"])
"""


def test_a_worker_reports_its_files_and_its_failure(tmp_path, monkeypatch):
    (tmp_path / "explainers").mkdir()
    (tmp_path / "explainers" / "__init__.py").touch()
    (tmp_path / "explainers" / "_corpus_build.py").write_text(FAKE_WORKER)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.syspath_prepend(tmp_path)  # the worker looks where its parent looks
    steps = []
    _corpus_build._run_worker("good", tmp_path / "part.jsonl", steps.append)
    assert steps == [1, 20]
    assert (tmp_path / "part.jsonl").read_text() == "good1"
    with pytest.raises(RuntimeError, match="'bad' failed with status 3:\nx+\ufffd boom$") as caught:
        _corpus_build._run_worker("bad", tmp_path / "part.jsonl", steps.append)
    assert len(str(caught.value).partition("\n")[2]) == 2000


def test_what_a_worker_writes_is_read_again_and_its_progress_is_not_held_back(tmp_path, monkeypatch):
    docs = [document("numpy.a", "Eins:\u2028zwei \r drei, größer."), document("numpy.b")], [document("numpy.c")]

    def docs_of(package, progress):
        assert package == "numpy"
        progress(5)
        assert flushed
        return docs

    class Out(io.StringIO):
        def flush(self):
            flushed.append(self.getvalue())

    flushed, out = [], Out()
    monkeypatch.setattr(_corpus_build, "docs_of", docs_of)
    monkeypatch.setattr(sys, "stdout", out)
    _corpus_build.work("numpy", str(tmp_path / "part.jsonl"))
    assert out.getvalue() == "files 5\n"
    assert _corpus_build._read_part(tmp_path / "part.jsonl") == docs


# ---------------------------------------------------------------- fields


def test_the_text_of_a_document_leaves_out_what_is_empty_and_what_is_no_prose():
    titles = {"Notes": "Exact.", "See Also": "mean", "References": "A book.", "Examples": ">>> f(1)"}
    raw = "Sum.\n" + "".join(f"\n{title}\n{'-' * len(title)}\n{text}\n" for title, text in titles.items())
    doc = document("numpy.f", raw)
    assert list(doc.sections) == ["Notes", "References"]  # of the examples nothing is left
    assert doc.text == "Sum.\nExact."
    assert document("numpy.f", "Sum.\n\nMore.").text == "Sum.\nMore."


def test_a_document_as_a_line_and_back():
    doc = document("numpy.f", "Größe.\n\nNotes\n-----\nOne.\n\nExamples\n--------\nTwo.\n\nSee Also\n--------\nmean\n")
    line = _corpus_fields.to_line(doc)
    assert "Größe." in line
    keys = [key for key, _ in json.loads(line, object_pairs_hook=list)]
    assert keys == sorted(_corpus_fields.Doc.__slots__)
    again = _corpus_fields.from_line(line)
    assert again == doc
    assert list(again.sections) == ["Notes", "Examples"]
    assert again.see_also == ("mean",)


@pytest.mark.parametrize(
    ("name", "module", "public", "topic"),
    [
        ("numpy.lib._m.f", "numpy.lib._m", True, "numpy.lib"),
        ("numpy._core", "numpy._core", False, "numpy"),
        ("numpy.lib", "numpy.lib", True, "numpy.lib"),
        ("numpy", "numpy", True, "numpy"),
        ("numpy.lib.C._f", "numpy.lib", False, "numpy.lib"),
        ("numpy.lib._C.f", "numpy.lib", False, "numpy.lib"),
        ("numpy.lib.add_", "numpy.lib", True, "numpy.lib"),
        ("numpy.lib_.f", "numpy.lib_", True, "numpy.lib_"),
    ],
)
def test_what_is_public_and_its_topic(name, module, public, topic):
    doc = document(name, module=module)
    assert (doc.public, doc.topic) == (public, topic)


def test_a_text_that_no_parser_reads_keeps_its_paragraphs(monkeypatch):
    def fail(raw):
        raise IndexError(raw)

    monkeypatch.setattr(_corpus_fields, "_numpy_fields", fail)
    doc = document("numpy.f", "Sum `it`\nall.\n\nMore about\nit.\n\nAnd more.")
    assert (doc.summary, doc.body, doc.sections, doc.see_also) == ("Sum it all.", "More about it.\nAnd more.", {}, ())


def test_parameters_without_type_and_results_without_name():
    raw = (
        "Sum.\n\nParameters\n----------\nx\n    The input.\ny :\n    Another.\n\nReturns\n-------\nint\n    The sum.\n"
        "z : float\n    Its root.\n\nRaises\n------\nValueError\n    If not.\n"
    )
    assert document("numpy.f", raw).sections == {
        "Parameters": "x : The input.\ny : Another.",
        "Returns": "int. The sum.\nz : float. Its root.",
        "Raises": "ValueError. If not.",
    }


def test_a_docstring_with_two_indexes_and_two_signatures_is_still_parsed():
    indexes = ".. index:: sum\n   :refguide: a, b\n\n.. index:: all\n   :refguide: c\n"
    raw = "f(a)\n\nf(a, b)\n\nSum.\n\nNotes\n-----\nOne.\n\n" + indexes
    doc = document("numpy.f", raw)
    assert doc.summary == "Sum."
    assert doc.sections == {"Notes": "One."}


@pytest.mark.parametrize(
    ("lines", "bare_is_type", "entries"),
    [
        (["x : int", " One."], False, [("x", "int", [" One."])]),
        (["  x : int", "", "  One.", "y"], False, [("x", "int", ["", "  One."]), ("y", "", [])]),
        (["int", "    One.", "float :"], True, [("", "int", ["    One."]), ("", "float", [])]),
        (["x :  {1,   2}"], False, [("x", " {1, 2}", [])]),
        ([], False, []),
    ],
)
def test_entries_of_a_list(lines, bare_is_type, entries):
    assert list(_corpus_fields._entries(lines, bare_is_type)) == entries


def test_a_single_line_is_dedented():
    assert _corpus_fields._dedented(["  a"]) == ["a"]
    assert _corpus_fields._dedented(["", ""]) == ["", ""]


@pytest.mark.parametrize(
    ("lines", "names"),
    [
        (["mean", " prod", "median"], ["mean", "median"]),
        ([".. a comment, mean", "sum"], ["sum"]),
        (["mean..", "sum."], ["mean", "sum"]),
        (["mean, median : Two.", "sum : One : or two, prod", "mean"], ["mean", "median", "sum"]),
        (["mean :", "sum:", "prod: All"], ["mean", "sum", "prod"]),
        (["f(), `g`, :obj:`~h`, !i, not a name"], ["f", "g", "h", "i"]),
    ],
)
def test_names_that_one_should_see_also(lines, names):
    assert _corpus_fields._see_also_names(lines) == names


def test_prose_in_a_list_goes_on_to_a_blank_or_indented_line():
    lines = ["x", "    One.", "", "It is so", "x", "y : int", "    Two.", "z", "", "And so", "on", "", "w"]
    assert _corpus_fields._joined_prose(lines) == [
        "x", "    One.", "", "It is so x y : int", "    Two.", "z", "", "And so on", "", "w",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "kind", "words", "line"),
    [
        ("x", "int", "One.", "x : int. One."),
        ("x", "", "One.", "x : One."),
        ("x", None, "One.", "x : One."),
        ("", "int", "One.", "int. One."),
        ("", None, "One.", "One."),
        ("x", "int", "", "x : int"),
        ("x", None, "", "x"),
        ("", "int", "", "int"),
        ("", "", "", ""),
    ],
)
def test_a_parameter_on_one_line(name, kind, words, line):
    assert _corpus_fields._parameter(name, kind, words) == line


def test_parts_that_run_on_end_like_sentences():
    assert _corpus_fields._run_on([".a", "b:", "c.d", "e?", "f"]) == ".a. b: c.d. e? f"
    assert _corpus_fields._run_on(["a", "b"]) == "a. b"
    assert _corpus_fields._run_on(["a"]) == "a"
    assert _corpus_fields._run_on([]) == ""


def test_notes_in_front_of_the_sections_of_torch_belong_to_the_body():
    raw = (
        "Sum all.\n\nMore.\n\nNotes:\n    Mind this.\n\nWarning:\n    Mind that.\n\n"
        "Args:\n    x (int, optional): the one\n\nKeyword Args:\n    y: the other\n\nNote:\n    At the end.\n"
    )
    doc = document("torch.f", raw)
    assert (doc.summary, doc.body) == ("Sum all.", "More.\nMind this.\nMind that.")
    assert doc.sections == {"Parameters": "x : int, optional. the one\ny : the other", "Notes": "At the end."}
    doc = document("torch.f", "Sum all.\n\nNote:\n    Mind this.\n")
    assert (doc.summary, doc.body, doc.sections) == ("Sum all.", "Mind this.", {})
    assert document("torch.f", "Sum all.\n\nReturns::\n\n    A tensor.\n").sections == {"Returns": "A tensor."}


@pytest.mark.parametrize(
    ("lines", "chunks"),
    [
        (["Sum.", "Of all.", "", "More."], [("", ["Sum.", "Of all.", "", "More."])]),
        (["Args:  ", " x: one", " y: two"], [("", []), ("Args", [" x: one", " y: two"])]),
        (["Sum.", "Shape:", "", " Any."], [("", ["Sum."]), ("Shape", ["", " Any."])]),
        (["Sum.", "Shape:", "Any.", " Two."], [("", ["Sum.", "Shape:", "Any.", " Two."])]),
        (["Sum.", "Shape:", "   ", "Any."], [("", ["Sum.", "Shape:", "   ", "Any."])]),
        ([" Sum.", "Shape:", "Any."], [("", [" Sum.", "Shape:", "Any."])]),
        (["Shape:", " Any."], [("", []), ("Shape", [" Any."])]),
        (["Shape:"], [("", ["Shape:"])]),
        (["Note:", " One.", "Two."], [("", []), ("Note", [" One.", "Two."])]),
        (["Args:", "", "x", "y"], [("", []), ("Args", ["", "x"]), ("Notes", ["y"])]),
        (["RETURNS:", "x"], [("", []), ("RETURNS", ["x"])]),
    ],
)  # fmt: skip
def test_where_sections_of_torch_begin(lines, chunks):
    assert list(_corpus_fields._google_chunks(lines)) == chunks


@pytest.mark.parametrize(
    ("lines", "summary", "body"),
    [
        (["f(x) -> y"], "f(x) -> y", ""),
        (["f(x)", "", "Sum."], "Sum.", ""),
        (["f(x)", "", "f(x, y) -> z", "", "Sum.", "", "More.", "", "g(x)"], "Sum.", "More.\ng(x)"),
        (["Sum.", "", "f(x)", "", "More."], "Sum.", "f(x)\nMore."),
        ([], "", ""),
    ],
)
def test_summary_and_body_of_torch(lines, summary, body):
    assert _corpus_fields._google_summary(lines) == (summary, body)


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        (["", "  x (int): one", "     of two", "", "  y: another", ""], "x : int. one of two\ny : another"),
        (["  x (int, optional): one", "  y (float):"], "x : int, optional. one\ny : float"),
        (["  A sentence, no list,", "  that goes on."], "A sentence, no list, that goes on."),
        (["  x:"], "x"),
    ],
)
def test_parameters_of_torch(lines, text):
    assert _corpus_fields._google_parameters(lines) == text


def test_a_name_of_one_letter_is_the_head_of_an_entry():
    assert _corpus_fields._unparsed_parameters(["a : one", "plain"]) == ["a : one", "plain"]


# ---------------------------------------------------------------- blocks


@pytest.mark.parametrize(
    ("rest", "plain"),
    [
        ("  It has\n2. and goes on.", "It has 2. and goes on."),
        ("A sentence\nthat has a number\n2. and goes on.", "A sentence that has a number 2. and goes on."),
        ("Text.\n\n1. One\n2. Two", "Text.\nOne\nTwo"),
        ("Text.\n- one\n- two", "Text.\none\ntwo"),
        ("- one\n2. and goes on", "one 2. and goes on"),
        ("1. One\ngoes on\n2. Two", "One goes on\nTwo"),
        ("- one\n\n  of it\n- two", "one\nof it\ntwo"),
        ("A\n   \nB", "A\nB"),
    ],
)
def test_paragraphs_and_items(rest, plain):
    assert corpus.plain_text(rest) == plain


@pytest.mark.parametrize(
    ("rest", "plain"),
    [
        ("A\n\n  >>> f(1)\n  2\n\nB", "A\nB"),
        ("A\n\n>>> f(1)\n2", "A"),
        ("A\n\n>>> f(1)\nout\n  \nB", "A\nB"),
        ("A\n\n..\n   A comment.\n\nB", "A\nB"),
        ("A\n\n.. A comment.\n\nB", "A\nB"),
        ("A::\n\n  code\n\n... and so on", "A:\n... and so on"),
        ("A::\n\n  code\n\n..and so on", "A:\n..and so on"),
        ("Text ::\n\n  code\n\nOn.", "Text:\nOn."),
        ("A\n\n::\n\n  code\n\nB", "A\nB"),
        ("Text::\n\n    code = 1", "Text:"),
        ("Text::\n\n    code\n   \n    more\nOn.", "Text:\nOn."),
        ("Text::\n  \n  code\n\nOn.", "Text:\nOn."),
        ("A\n\nText::", "A\nText:"),
        ("A.\n\nText::\n\n  code\n\nOn.", "A.\nText:\nOn."),
        ("A\n.. math:: x^2\nB", "A\nB"),
        (".. versionadded:: 1.2\nAfter.", "After."),
        ("A\n\n  .. note:: Inner.\n\nB", "A\nInner.\nB"),
        (".. Note:: Text.\n\nB", "Text.\nB"),
        (".. admonition:: Title\n   Text of it.\n\nB", "Title\nText of it.\nB"),
        (".. Admonition:: Title\n   Text of it.\n\nB", "Title\nText of it.\nB"),
        ("  .. note::\n\n     Inner text\n       of it.\n\nB", "Inner text of it.\nB"),
        (".. note:: It reads::\n\n   Not code.\n\nB", "It reads:\nNot code.\nB"),
        (".. note:: It reads::\n \n   Not code.\n\nB", "It reads:\nNot code.\nB"),  # a line of blanks is blank
        ("    Text::\n\n      code\n  \n      more\nOn.", "Text:\nOn."),
        ("    Text::\n  \n      code\nOn.", "Text:\nOn."),
        (".. note::\n\n   Text::\n\n     code\n\n   On.\n\nB", "Text:\nOn.\nB"),
        (".. seealso:: The other.\n   :option: none", "The other."),
        ("A\n\n  === ===\n  a   b\n  === ===\n\nAfter.", "A\nAfter."),
        ("A\n\n+---+---+\n| a | b |\n+---+---+\n\nAfter.", "A\nAfter."),
        (
            ":param x: one\n:param y: two\n:type y: int\n:raises ValueError: if not",
            "x : one\ny : two\nValueError : if not",
        ),
        ("Title\n=====\n\n- one", "Title\none"),
    ],
)
def test_which_lines_are_prose(rest, plain):
    assert corpus.plain_text(rest) == plain


BORDER = "=== ==="


@pytest.mark.parametrize(
    ("lines", "end"),
    [
        ([BORDER, "a   b", BORDER, "1   2", BORDER, "", "After"], 5),
        ([BORDER, "a   b", BORDER], 3),
        ([BORDER, "a   b", BORDER, "   ", "After", BORDER, "x"], 3),
        ([BORDER, "", "a   b", BORDER], 4),  # no table ends at its first border
        ([BORDER, BORDER, "After"], 2),
        ([BORDER, "a   b", BORDER, "After"], 3),
        ([BORDER, "a   b", BORDER, "", "Text", BORDER, "c   d", BORDER], 3),
        ([BORDER, "After"], 1),
    ],
)
def test_where_a_table_ends(lines, end):
    assert _corpus_text._after_simple_table(lines, 0) == end
    assert _corpus_text._after_simple_table(["Text", "", *lines], 2) == end + 2


# ---------------------------------------------------------------- inline markup


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("Use ${ABC} here.", "Use here."),
        ("DATA_PARAMETER_PLACEHOLDER", ""),
        ("The DATA_PARAMETER_PLACEHOLDER is set.", "The is set."),
        ("See {alpha} and %(beta)s.", "See and."),
        ("({alpha}, {beta}).", ""),
        ("One  two\tthree", "One two three"),
        ("One\ttwo", "One two"),
        ("One  two", "One two"),
        ("std::vector", "std.vector"),
        ("a[::2]", "a[: :2]"),
        ("a ::: b", "a : : : b"),
        ("a \n\n: b:\n12 <math>\n3 things", "a\nb:\n3 things"),
        ("x", "x"),
        ("(`` a ``)", "(a)"),
        (":MATH:`x`", ""),
        ("Let :Math:`x` and :eq:`y` be", "Let <math> and <math> be"),
        ("As :cite:`a2020` says", "As says"),
        (r"The angle `\alpha` of `a`", "The angle <math> of a"),
        ("Let $x$ or $$y$$ be", "Let <math> or <math> be"),
        (r"2 a\*b and c\ d", "2 a*b and cd"),
        ("(:ref:` page <here>`)", "(page)"),
        ("(:func:`numpy.sum `)", "(numpy.sum)"),
        (":func:`~sum` of :func:`~numpy.mean`", "sum of mean"),
        (":class:`.Axes` and :class:`!Axes`", "Axes and Axes"),
        (":class:`.5` is", ".5 is"),
        ("See http://a.org/b, or ftp://c.", "See, or."),
    ],
)
def test_what_a_paragraph_says(text, plain):
    assert _corpus_text.finish(text) == plain


def test_no_prompt_is_left():
    assert ">>>" not in _corpus_text.finish("Type >>> here.")


# ---------------------------------------------------------------- the corpus


def test_figures_as_a_table():
    stats = corpus.Stats({"numpy": {"documents": 1200, "see_also": 5}, "all": {"documents": 3, "see_also": 40}})
    assert repr(stats).split("\n") == [
        "package  documents  see also", "numpy        1,200         5", "all              3        40",
    ]  # fmt: skip
    assert stats._repr_html_() == (
        "<table><tr><th>package</th><th>documents</th><th>see also</th></tr>"
        "<tr><th>numpy</th><td>1,200</td><td>5</td></tr><tr><th>all</th><td>3</td><td>40</td></tr></table>"
    )
    assert "package" in corpus.Stats()._repr_html_()


@pytest.fixture
def mixed():
    return corpus.Corpus([
        document("numpy.fft.f"), document("numpy.fft._g"), document("numpy.lib.C", kind="class"),
        document("scipy.fft.f"), document("scipy.fft.D", kind="class"), document("scipy.fft._E", kind="class"),
    ])  # fmt: skip


@pytest.mark.parametrize("package", [None, "numpy", ["numpy", "scipy"], {"torch"}])
@pytest.mark.parametrize("topic", [None, "scipy.fft", ("numpy.fft", "numpy.lib"), []])
@pytest.mark.parametrize("kind", [None, "class"])
@pytest.mark.parametrize("public", [None, True, False])
def test_a_filter_keeps_what_meets_every_condition(mixed, package, topic, kind, public):
    def meets(value, wanted):
        return wanted is None or value == wanted or (not isinstance(wanted, str) and value in wanted)

    found = mixed.filter(package=package, topic=topic, kind=kind, public=public)
    expected = [
        doc for doc in mixed
        if meets(doc.package, package) and meets(doc.topic, topic) and meets(doc.kind, kind)
        and (public is None or doc.public is public)
    ]  # fmt: skip
    assert list(found) == expected


def test_names_that_are_only_a_little_similar_are_offered():
    whole = corpus.Corpus([document("numpy.lib.io.save"), document("numpy.lib.io.load")])
    with pytest.raises(KeyError, match=r"similar names: numpy\.lib\.io\.load"):
        whole.by_name("io.load")  # 7 letters of 17 + 7: a likeness of 0.58
    with pytest.raises(KeyError, match="similar names: none"):
        whole.by_name("zzz")


def test_boilerplate_is_counted_by_documents_and_sorted_by_count():
    texts = ["Zed.\n\nZed.\n\nOften."] * 5 + ["Abc.\n\nOften."] * 5 + ["Four."] * 4 + [""] * 6
    docs = [document(f"numpy.lib.f{at}", text) for at, text in enumerate(texts)]
    whole = corpus.Corpus(docs)
    expected = [("Often.", 10), ("Abc.", 5), ("Zed.", 5)]
    assert list(whole.boilerplate().items()) == expected
    assert list(whole.boilerplate().items()) == expected
    assert list(whole.boilerplate(4).items()) == [*expected, ("Four.", 4)]
    assert list(whole.boilerplate(6)) == ["Often."]
    assert whole.prose() == [""] * 10 + ["Four."] * 4 + [""] * 6
    assert whole.prose(6)[:6] == ["Zed.\nZed."] * 5 + ["Abc."]


def test_each_column_of_the_figures():
    words = " ".join(["word"] * 30)
    see = "\n\nSee Also\n--------\nmean\n"
    docs = [
        document("scipy.a", f"One two three four.\n\n{words}"),  # a pair, at both borders
        document("scipy.b", f"One two three.\n\n{words}" + see),
        document("scipy._c", f"One two three five.\n\n{words[5:]}"),
        document("numpy.d", f"One two three four five.\n\nmore {words}" + see),
    ]
    stats = corpus.Corpus(docs).stats()
    assert list(stats) == ["numpy", "scipy", "all"]
    names = ["documents", "public", "words", "prose_tokens", "see_also", "pairs"]
    assert [stats["scipy"][name] for name in names] == [3, 2, 34 + 33 + 4 + 33, 34 + 33 + 33, 1, 1]
    assert [stats["numpy"][name] for name in names] == [1, 1, 36 + 4, 36, 1, 1]
    assert [stats["all"][name] for name in names] == [4, 3, 144, 136, 2, 2]


@pytest.mark.parametrize(
    ("names", "see", "found"),
    [
        (["scipy.a.mean", "scipy.b.mean"], "b.mean", ["scipy.b.mean"]),  # repeats more of the reference
        (["scipy.a.c.mean", "scipy.b.mean"], "mean", ["scipy.a.c.mean"]),  # the first of equals
        (["scipy.a.mean", "scipy.own.x.mean"], "mean", ["scipy.own.x.mean"]),  # the same topic
        (["scipy.a.b.x.y.mean", "scipy.b.mean"], "b.b.mean", ["scipy.a.b.x.y.mean"]),  # a component counts once
        (["numpy.a.mean", "scipy.a.mean"], "numpy.mean", ["numpy.a.mean"]),  # of the package that it names
        (["numpy.a.mean", "scipy.a.mean"], "a.mean", ["scipy.a.mean"]),  # else of its own
        (["numpy.a.mean", "scipy.a.numpy"], "numpy", ["scipy.a.numpy"]),  # no package without a dot
        (["numpy.a.mean"], "mean", []),
        (["scipy.a.mean"], "me", []),
        (["scipy.a.f"], "f", ["scipy.a.f"]),  # not itself
        ([], "f", []),
    ],
)
def test_where_a_reference_leads(names, see, found):
    docs = [document(name) for name in names]
    docs.append(document("scipy.own.f", f"Sum.\n\nSee Also\n--------\n{see}\n"))
    pairs = corpus.Corpus(docs).see_also_pairs()
    assert pairs.shape == (len(found), 2)
    assert [names[other] for _, other in pairs] == found
    assert (pairs[:, 0] == len(names)).all()


def test_functions_and_classes_go_before_other_kinds():
    see = "Sum.\n\nSee Also\n--------\nmean\n"
    for kind, chosen in [("function", 1), ("class", 1), ("property", 0)]:
        docs = [
            document("scipy.a.C.mean", kind="method"),
            document("scipy.b.mean", kind=kind),
            document("scipy.own.f", see),
        ]
        assert corpus.Corpus(docs).see_also_pairs().tolist() == [[2, chosen]]


def test_pairs_are_sorted():
    names = [f"scipy.a.f{at}" for at in range(9)]
    docs = [document(name, f"Sum {name}.\n\nSee Also\n--------\n{', '.join(reversed(names))}\n") for name in names]
    assert corpus.Corpus(docs).see_also_pairs().tolist() == [list(pair) for pair in itertools.permutations(range(9), 2)]


def test_the_first_name_leads_also_where_a_third_document_joins_two_groups():
    texts = {"a": "One.\n\nFirst.", "b": "Two.\n\nSecond.", "c": "One.\n\nSecond.", "d": "Two.\n\nFourth."}
    docs = [document(f"numpy.lib.{name}", text) for name, text in texts.items()]
    for order in itertools.permutations(docs):
        assert corpus.Corpus(order)._leaders == ["numpy.lib.a"] * 4
    assert sorted(map(len, corpus.Corpus(docs).split((0.5, 0.5)))) == [0, 4]


def test_a_document_whose_share_is_a_bound_goes_to_the_next_part(monkeypatch):
    shares = {"numpy.lib.a": 0.0, "numpy.lib.b": 0.25, "numpy.lib.c": 0.5, "numpy.lib.d": 0.75}
    docs = [document(name, f"About {name}.") for name in shares]
    monkeypatch.setattr(corpus, "_share_of", shares.__getitem__)
    parts = corpus.Corpus(docs).split((0.25, 0.5, 0.25))
    assert [[doc.name[-1] for doc in part] for part in parts] == [["a"], ["b", "c"], ["d"]]
    assert [len(part) for part in corpus.Corpus(docs).split()] == [4, 0, 0]
    monkeypatch.setattr(corpus, "_share_of", {"numpy.lib": 0.85}.__getitem__)
    assert [len(part) for part in corpus.Corpus(docs).split(by="topic")] == [0, 4, 0]


def test_shares_are_uniform_on_the_unit_interval():
    shares = np.sort([corpus._share_of(f"name {at}") for at in range(2000)])
    assert shares[0] >= 0
    assert shares[-1] < 1
    assert np.abs(shares - np.linspace(0, 1, 2000)).max() < 0.05  # Kolmogorov's 1.95 / sqrt(2000), a risk of 0.1 %


# ---------------------------------------------------------------- cache and command


@pytest.fixture
def built(monkeypatch, tmp_path):
    calls = []

    def build(packages):
        calls.append(list(packages))
        return [document(f"numpy.lib.f{at}", f"Sum {at}.") for at in range(3)]

    monkeypatch.setattr(corpus, "build", build)
    monkeypatch.setenv("EXPLAINERS_CACHE", str(tmp_path / "not the user's"))
    return calls


def test_a_cache_makes_its_folders(built, tmp_path, recwarn):
    folder = tmp_path / "not" / "yet"
    for _ in range(2):
        assert len(corpus.load_docstrings("numpy", cache_dir=folder)) == 3
    corpus.load_docstrings(["scipy"], cache_dir=folder)  # the folder is there already
    assert built == [["numpy"], ["scipy"]]
    assert len(list(folder.iterdir())) == 2
    assert not [warning for warning in recwarn.list if issubclass(warning.category, corpus.CorpusWarning)]


def test_a_cache_with_something_behind_its_end_is_damaged(built, tmp_path):
    corpus.load_docstrings(["numpy"], cache_dir=tmp_path)
    (path,) = tmp_path.iterdir()
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()) + b"x"))
    with pytest.warns(corpus.CorpusWarning, match="the checksum does not fit the content"):
        corpus.load_docstrings(["numpy"], cache_dir=tmp_path)


def test_a_choice_of_packages():
    assert corpus._checked_packages("numpy") == ["numpy"]
    assert corpus._checked_packages(iter(["torch", "numpy", "torch"])) == ["numpy", "torch"]
    with pytest.raises(ValueError, match="unknown package 'a': choose from"):
        corpus._checked_packages(["numpy", *"hgfedcba"])


def test_the_key_depends_on_versions_and_not_on_their_order():
    versions = {"numpy": "1", "scipy": "2", "torch": "3"}
    keys = {corpus.corpus_key(dict(order)) for order in itertools.permutations(versions.items())}
    assert len(keys) == 1
    assert corpus.corpus_key({**versions, "torch": "4"}) not in keys


def test_the_command_without_packages_takes_all_and_explains_itself(built, tmp_path, capsys):
    corpus.main(["--cache-dir", str(tmp_path)])
    assert built == [list(corpus.PACKAGES)]
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        corpus.main(["--help"])
    assert stopped.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert shown.startswith("usage: python -m explainers.corpus [-h] [--cache-dir CACHE_DIR] [--refresh] [package ...]")
    for said in (
        "package of numpy, scipy, sklearn, matplotlib, sympy, torch; all by default",
        "--cache-dir CACHE_DIR instead of EXPLAINERS_CACHE or the user's cache folder",
        "--refresh build even if cached",
    ):
        assert said in shown
