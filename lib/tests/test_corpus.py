"""The corpus: its cleaning, its figures, and a cache that never answers with other numbers than a build would.

One build serves the whole run: the first test that needs the corpus reads the cache, or fills it.
"""

import dataclasses
import gzip
import hashlib
import http.server
import itertools
import math
import os
import platform
import re
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from explainers import _corpus_build, _corpus_data, _corpus_fields, corpus
from explainers._corpus_fields import make_doc

# By package: documents, public, words, prose tokens, with See Also, pairs for summarisation.
FIGURES = {
    "numpy": (1_530, 1_282, 299_930, 183_460, 890, 492),
    "scipy": (3_186, 2_352, 749_305, 502_976, 963, 741),
    "sklearn": (2_278, 1_521, 417_486, 323_449, 367, 549),
    "matplotlib": (2_208, 1_446, 172_169, 158_621, 180, 463),
    "sympy": (6_687, 5_566, 689_437, 400_746, 1_412, 794),
    "torch": (5_563, 4_072, 539_172, 441_975, 0, 1_532),
    "all": (21_452, 16_239, 2_867_499, 2_011_227, 3_812, 4_571),
}
CONTENT = "a484684e50f1907852de8678bbf57c4a80bcedcd7900d537d655d234a9545c7d"
SUMMARIES = {
    "numpy.add": "Add arguments element-wise.",
    "numpy._core.fromnumeric.mean": "Compute the arithmetic mean along the specified axis.",
    "numpy.random.Generator.normal": "Draw random samples from a normal (Gaussian) distribution.",
    "torch.abs": "Computes the absolute value of each element in input.",
    "torch.nn.modules.linear.Linear": "Applies an affine linear transformation to the incoming data: <math>.",
    "scipy.optimize._minimize.minimize": "Minimization of scalar function of one or more variables.",
    "scipy.special.gamma": "gamma function.",
    "sklearn.svm._classes.SVC": "C-Support Vector Classification.",
    "sklearn.cluster._kmeans.KMeans": "K-Means clustering.",
    "matplotlib.axes._axes.Axes.plot": "Plot y versus x as lines and/or markers.",
    "sympy.solvers.solvers.solve": "Algebraically solves equations and systems of equations.",
}


@pytest.fixture(scope="session")
def docstrings():
    return corpus.load_docstrings()


@pytest.fixture
def few():
    where = "numpy.lib.io"
    return [
        make_doc("numpy", f"{where}.f{n}", where, "function", f"Sum {n} things.\n\nOver all axes.") for n in range(6)
    ]


@pytest.fixture
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


# ---------------------------------------------------------------- the integrity figures


def is_reference() -> bool:
    """Exact figures are promised for the pinned versions on 64-bit Linux with the CPU build of torch."""
    import importlib.metadata as metadata

    pinned = all(metadata.version(name).partition("+")[0] == version for name, version in corpus.PINNED.items())
    return pinned and sys.platform == "linux" and platform.machine() == "x86_64"


def test_the_pinned_versions_are_those_of_the_requirements():
    text = (Path(__file__).parents[2] / "requirements.txt").read_text(encoding="utf-8")
    required = dict(re.findall(r"^([\w.-]+)==(\S+)", text, re.M))
    assert {name: required[name] for name in corpus.PINNED} == corpus.PINNED


def test_figures_by_package(docstrings):
    stats = docstrings.stats()
    assert list(stats) == list(FIGURES)
    for package, expected in FIGURES.items():
        found = tuple(stats[package].values())
        if is_reference():
            assert found == expected, package
        else:
            assert found == pytest.approx(expected, rel=0.02, abs=5), package


@pytest.mark.skipif(not is_reference(), reason="the content is pinned for the reference platform")
def test_content_hash(docstrings):
    assert docstrings.content_hash() == CONTENT


def test_topics_types_and_see_also(docstrings):
    topics = Counter(doc.topic for doc in docstrings)
    assert len(topics) == pytest.approx(223, rel=0.02)
    assert sum(size >= 20 for size in topics.values()) == pytest.approx(140, rel=0.02)
    assert [name for name, _ in topics.most_common(4)] == [
        "sympy.polys",
        "torch.distributed",
        "sympy.physics",
        "scipy.stats",
    ]
    counts = corpus.Vocabulary.build(map(corpus.tokenize, docstrings.prose()), specials=()).counts
    found = [int((counts >= least).sum()) for least in (1, 5, 10, 50)]
    assert found == pytest.approx([21_494, 9_847, 7_016, 2_937], rel=0.02)
    pairs = docstrings.see_also_pairs()
    assert len(pairs) == pytest.approx(9_258, rel=0.02)
    assert (pairs[:, 0] != pairs[:, 1]).all()
    same = sum(docstrings[a].topic == docstrings[b].topic for a, b in pairs)
    assert same == pytest.approx(8_188, rel=0.02)


def test_names_and_texts_are_unique_and_sorted(docstrings):
    names = [doc.name for doc in docstrings]
    assert len(set(names)) == len(names)
    assert names == sorted(names)
    assert len({doc.raw for doc in docstrings}) == len(docstrings)
    assert all(doc.topic == doc.package or doc.topic.startswith(doc.package + ".") for doc in docstrings)


@pytest.mark.parametrize("sign", [">>>", "::", "%(before_notes)s", "DATA_PARAMETER_PLACEHOLDER", "http://www", "[1]_"])
def test_no_markup_is_left(docstrings, sign):
    assert [doc.name for doc in docstrings if sign in doc.text] == []


def test_no_formula_is_dropped_without_trace(docstrings):
    broken = re.compile(r"where , |, , |\( ?, ")
    assert sum(bool(broken.search(doc.text)) for doc in docstrings) <= 3


def test_summaries_of_named_objects(docstrings):
    assert {name: docstrings.by_name(name).summary for name in SUMMARIES} == SUMMARIES


def test_a_parameter_stands_on_its_own_line(docstrings):
    lines = docstrings.by_name("sklearn.cluster._kmeans.KMeans").sections["Parameters"].split("\n")
    assert lines[0].startswith("n_clusters : int, default=8. The number of clusters")
    assert [line.split(" : ")[0] for line in lines][:3] == ["n_clusters", "init", "n_init"]


def test_boilerplate_is_frequent_and_left_out(docstrings):
    dull = docstrings.boilerplate()
    assert dull["Read more in the User Guide."] > 400
    assert min(dull.values()) >= 5
    assert not any(line in dull for prose in docstrings.prose() for line in prose.split("\n"))


# ---------------------------------------------------------------- determinism and the build


def test_other_hash_seeds_give_the_same_content_and_progress_is_shown(tmp_path):
    code = (
        "import sys; from explainers import corpus;"
        "print(corpus.load_docstrings(['numpy'], cache_dir=sys.argv[1]).content_hash())"
    )
    found = []
    for seed in ("1", "77"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        command = [sys.executable, "-c", code, str(tmp_path / seed)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert "docstring corpus (first use): 100%" in done.stderr
        found.append(done.stdout)
    assert found[0] == found[1]
    one, two = (path.read_bytes() for path in sorted(tmp_path.rglob("*.jsonl.gz")))
    assert one == two


def test_nothing_of_the_packages_is_imported_for_the_sources():
    code = (
        "import sys; from explainers import _corpus_build as build;"
        "module, path = build.source_files('sklearn')[5];"
        "assert list(build.static_texts(module, path.read_text()));"
        "print([name for name in ('sklearn', 'matplotlib', 'sympy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_tests_and_vendored_projects_are_not_read():
    modules = [module for package in ("numpy", "scipy") for module, _ in _corpus_build.source_files(package)]
    assert "scipy.optimize._minimize" in modules
    assert not [
        module for module in modules if re.search(r"[.](tests?|testing|_vendor|externals|cobyqa)([.]|$)", module)
    ]


def test_addresses_in_memory_are_normalised():
    assert _corpus_build.normalise("A  \n  <f at 0x7f21ab34cd56>  \n\tx ") == "A\n<f at 0x0>\n      x"


# ---------------------------------------------------------------- the cache


@pytest.fixture
def built(monkeypatch, few, tmp_path):
    """Replace the build by one that takes no time and counts."""
    calls = []

    def build(packages):
        calls.append(list(packages))
        return list(few)

    monkeypatch.setattr(corpus, "build", build)
    monkeypatch.setenv("EXPLAINERS_CACHE", str(tmp_path / "not the user's"))
    return calls


def load(folder, **kwargs):
    return corpus.load_docstrings(["numpy"], cache_dir=folder, **kwargs)


def test_the_second_use_reads_the_cache(built, tmp_path):
    first, second = load(tmp_path), load(tmp_path)
    assert built == [["numpy"]]
    assert list(first) == list(second)
    assert first.key == second.key
    assert first.content_hash() == second.content_hash()
    load(tmp_path, refresh=True)
    assert len(built) == 2


@pytest.mark.parametrize("damage", ["bit", "cut", "empty", "line", "garbage"])
def test_a_damaged_cache_is_noticed_and_rebuilt(built, tmp_path, damage):
    sound = load(tmp_path)
    (path,) = tmp_path.glob("*.gz")
    content = path.read_bytes()
    lines = gzip.decompress(content).split(b"\n")
    path.write_bytes(
        {
            "bit": content[:60] + bytes([content[60] ^ 1]) + content[61:],
            "cut": content[:-20],
            "empty": b"",
            "line": gzip.compress(b"\n".join(lines[1:])),
            "garbage": gzip.compress(b"\n".join([lines[0].replace(b"Sum", b"Sun"), *lines[1:]])),
        }[damage]
    )
    with pytest.warns(corpus.CorpusWarning, match="damaged and is built anew"):
        again = load(tmp_path)
    assert again.content_hash() == sound.content_hash()
    assert path.read_bytes() == content
    assert len(built) == 2


def test_a_folder_that_cannot_be_written_warns_and_still_answers(built, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.warns(corpus.CorpusWarning, match=r"not cached.*file"):
        assert len(load(tmp_path / "file" / "below")) == 6


def test_another_version_warns_and_has_its_own_cache(built, tmp_path, monkeypatch):
    sound = load(tmp_path)
    version = corpus.importlib.metadata.version
    monkeypatch.setattr(
        corpus.importlib.metadata, "version", lambda name: "2.5.0" if name == "numpy" else version(name)
    )
    with pytest.warns(corpus.CorpusWarning, match=r"numpy 2\.5\.0 \(pinned: 2\.4\.6\).*figures will differ"):
        other = load(tmp_path)
    assert other.key != sound.key
    assert len(built) == 2
    assert other.versions == {"numpy": "2.5.0"}


def test_a_build_label_is_not_another_version(built, tmp_path, monkeypatch, recwarn):
    version = corpus.importlib.metadata.version
    monkeypatch.setattr(corpus.importlib.metadata, "version", lambda name: version(name).partition("+")[0] + "+local")
    load(tmp_path)
    assert not recwarn.list


def test_the_folder_comes_from_the_environment(built, tmp_path, monkeypatch):
    monkeypatch.setenv("EXPLAINERS_CACHE", str(tmp_path / "here"))
    corpus.load_docstrings(["numpy"])
    assert [path.parent.name for path in tmp_path.rglob("*.gz")] == ["here"]


def test_public_only(built, tmp_path, few):
    few.append(make_doc("numpy", "numpy.lib.io._f", "numpy.lib.io", "function", "Hidden."))
    assert len(load(tmp_path)) == 7
    assert len(load(tmp_path, public_only=True)) == 6


def test_the_command_prints_figures_and_place(built, tmp_path, capsys):
    corpus.main(["numpy", "--cache-dir", str(tmp_path)])
    out = capsys.readouterr().out
    assert re.search(r"^numpy +6 +6 ", out, re.M)
    assert str(tmp_path) in out
    with pytest.raises(SystemExit):
        corpus.main(["pandas"])
    assert "unknown package 'pandas'" in capsys.readouterr().err


def test_errors_of_loading(monkeypatch):
    with pytest.raises(ValueError, match=r"unknown package 'pandas': choose from numpy, scipy"):
        corpus.load_docstrings(["numpy", "pandas"])
    with pytest.raises(ValueError, match="no package named"):
        corpus.load_docstrings([])

    def missing(name):
        if name in corpus._TOOLS:
            return corpus.PINNED[name]
        raise corpus.importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(corpus.importlib.metadata, "version", missing)
    with pytest.raises(ModuleNotFoundError, match="'scikit-learn', which is not installed"):
        corpus.load_docstrings(["sklearn"])


# ---------------------------------------------------------------- plain text and fields


@pytest.mark.usefixtures("ends")
@pytest.mark.parametrize(
    ("rest", "plain"),
    [
        ("Use :func:`~numpy.sum` and :ref:`this page <here>`.", "Use sum and this page."),
        ("where :math:`a`, :math:`b` are real", "where <math>, <math> are real"),
        ("the ``axis`` of `x`, *any* or **all**", "the axis of x, any or all"),
        ("As shown [1]_, see https://example.org/a.", "As shown, see."),
        ("Text::\n\n    code = 1\n\nMore.", "Text:\nMore."),
        ("A\n\n>>> f(1)\n2\n\nB", "A\nB"),
        ("A\n\n.. math:: x^2\n\nB", "A\nB"),
        ("A\n\n.. versionadded:: 1.2\n   Or so.\n\nB", "A\nB"),
        ("A\n\n.. warning::\n\n   Do not.\n\nB", "A\nDo not.\nB"),
        ("- one\n- two\n  lines", "one\ntwo lines"),
        ("=== ===\na   b\n=== ===\n1   2\n=== ===\n\nAfter.", "After."),
        ("%(before_notes)s", ""),
        ("The %(name)s thing is long.", "The thing is long."),
        ("Heading\n-------\nText.", "Heading\nText."),
        ("(:class:`Rotation`)", "(Rotation)"),
    ],
)
def test_plain_text(rest, plain):
    assert corpus.plain_text(rest) == plain


@pytest.mark.usefixtures("ends")
def test_numpy_style_fields():
    raw = (
        "Return the sum.\n\nLonger text.\n\nParameters\n----------\na, b : array_like\n    Input of\n    two lines.\n"
        "axis : int, optional\n    Which one.\n\nReturns\n-------\nfloat\n    The sum.\n\nSee Also\n--------\n"
        "mean, numpy.prod : Others.\n\nNotes\n-----\nIt is exact.\n\nReferences\n----------\n.. [1] A book."
    )
    doc = make_doc("numpy", "numpy.lib.f", "numpy.lib", "function", raw)
    assert (doc.summary, doc.body) == ("Return the sum.", "Longer text.")
    assert doc.sections["Parameters"].split("\n") == [
        "a, b : array_like. Input of two lines.",
        "axis : int, optional. Which one.",
    ]
    assert doc.see_also == ("mean", "numpy.prod")
    assert "It is exact." in doc.text
    assert "book" not in doc.text
    assert "prod" not in doc.text


@pytest.mark.usefixtures("ends")
def test_google_style_fields():
    raw = (
        "abs(input) -> Tensor\n\nComputes the absolute value.\n\nMore about it.\n\nArgs:\n    input (Tensor): the one\n"
        "        to take.\n\nReturns:\n    A tensor.\n\nExample::\n\n    >>> torch.abs(x)\n"
    )
    doc = make_doc("torch", "torch.abs", "torch", "function", raw)
    assert (doc.summary, doc.body) == ("Computes the absolute value.", "More about it.")
    assert doc.sections == {"Parameters": "input : Tensor. the one to take.", "Returns": "A tensor."}


def test_private_names_are_not_public():
    assert make_doc("numpy", "numpy.lib._m.f", "numpy.lib._m", "function", "X.").public
    assert not make_doc("numpy", "numpy.lib.m._C.f", "numpy.lib.m", "method", "X.").public


# ---------------------------------------------------------------- Corpus


def test_filter_index_and_slices(few):
    docs = corpus.Corpus(few, key="k", versions={"numpy": "1"})
    assert docs.by_name("numpy.lib.io.f3") is docs[3]
    assert len(docs[1:4]) == 3
    assert docs[1:4].key == "k"
    assert len(docs.filter(package=["numpy", "scipy"], kind="function", topic="numpy.lib", public=True)) == 6
    empty = docs.filter(topic="numpy.fft")
    assert len(empty) == 0
    with pytest.raises(ValueError, match="at least 3 documents, got 0"):
        empty.split()
    with pytest.raises(KeyError, match=r"no document is named 'numpy.lib.f3'; similar names: numpy.lib.io.f3"):
        docs.by_name("numpy.lib.f3")


def test_split_is_a_partition_that_new_documents_do_not_disturb(docstrings):
    docs = docstrings.filter(package="numpy")
    parts = docs.split((0.8, 0.1, 0.1))
    assert sorted(doc.name for part in parts for doc in part) == [doc.name for doc in docs]
    assert [len(part) / len(docs) for part in parts] == pytest.approx([0.8, 0.1, 0.1], abs=0.03)
    place = {doc.name: at for at, part in enumerate(parts) for doc in part}
    fewer = corpus.Corpus([doc for at, doc in enumerate(docs) if at % 7])
    moved = sum(place[doc.name] != at for at, part in enumerate(fewer.split()) for doc in part)
    assert moved <= 0.02 * len(fewer)  # only a near-duplicate whose leader left


def test_near_duplicates_stay_together(docstrings):
    parts = docstrings.filter(package="scipy").split()
    for field in ("summary", "body"):
        texts = [{getattr(doc, field) for doc in part} - {""} for part in parts]
        assert not texts[0] & texts[1]
        assert not texts[0] & texts[2]
        assert not texts[1] & texts[2]


def test_split_by_topic_keeps_topics_whole(docstrings):
    topics = [{doc.topic for doc in part} for part in docstrings.split((0.5, 0.5), by="topic")]
    assert not topics[0] & topics[1]


@pytest.mark.parametrize("fractions", [(), (0.5, 0.6), (1.2, -0.2), (0.5, math.nan)])
def test_bad_fractions(few, fractions):
    with pytest.raises(ValueError, match="positive and sum to 1"):
        corpus.Corpus(few).split(fractions)


def test_see_also_prefers_the_topic():
    def doc(name, kind="function", see=""):
        module = name.rpartition(".")[0]
        return make_doc("scipy", name, module, kind, f"About {name}." + see)

    see = "\n\nSee Also\n--------\nmean, scipy.fft.dct, nothing\n"
    docs = corpus.Corpus(
        [doc("scipy.ndimage.mean"), doc("scipy.stats.mean"), doc("scipy.fft.dct"), doc("scipy.stats.f", see=see)]
    )
    assert docs.see_also_pairs().tolist() == [[3, 1], [3, 2]]


# ---------------------------------------------------------------- tokens


def test_tokenize():
    text = "It's 3.5e-3 of <math>, (A) No_1."
    assert corpus.tokenize(text) == ["it's", "<num>", "of", "<math>", "a", "no", "<num>"]
    assert corpus.tokenize(text, lower=False, numbers=None)[:2] == ["It's", "3.5e-3"]
    assert corpus.tokenize("a: (b), c.", keep="punct") == ["a", ":", "(", "b", ")", ",", "c", "."]
    with pytest.raises(ValueError, match="keep must be"):
        corpus.tokenize(text, keep="all")


def test_vocabulary_order_and_round_trip():
    docs = [["b", "a", "b"], ["c", "a", "d", "b"]]
    vocab = corpus.Vocabulary.build(docs)
    assert vocab.words == ("<unk>", "b", "a", "c", "d")
    assert vocab.counts.tolist() == [0, 3, 2, 1, 1]
    assert vocab.decode(vocab.encode(docs[1])) == docs[1]
    assert corpus.Vocabulary.build(docs, max_size=3).words == ("<unk>", "b", "a")
    assert corpus.Vocabulary.build(docs, min_count=2, specials=()).words == ("b", "a")
    with pytest.raises(ValueError, match="room for 1 specials"):
        corpus.Vocabulary.build(docs, max_size=0)
    with pytest.raises(ValueError, match="distinct"):
        corpus.Vocabulary(("a", "a"), np.array([1, 2]))


def test_encode_corpus():
    docs = [["a", "z", "b"], [], ["b"]]
    vocab = corpus.Vocabulary.build([["a", "b"]])
    ids, offsets = corpus.encode_corpus(docs, vocab, unknown="unk")
    assert (ids.dtype, offsets.dtype) == (np.int32, np.int64)
    assert [vocab.decode(ids[a:b]) for a, b in itertools.pairwise(offsets)] == [["a", "<unk>", "b"], [], ["b"]]
    assert corpus.encode_corpus(docs, vocab)[1].tolist() == [0, 2, 2, 3]
    with pytest.raises(ValueError, match="needs '<unk>'"):
        corpus.encode_corpus(docs, corpus.Vocabulary.build([["a"]], specials=()), unknown="unk")
    with pytest.raises(ValueError, match="'drop' or 'unk'"):
        corpus.encode_corpus(docs, vocab, unknown="skip")


def test_subsampling_keeps_the_rule():
    rng = np.random.default_rng(0)
    ids = rng.choice(3, size=200_000, p=[0.9, 0.0999, 0.0001]).astype(np.int32)
    offsets = np.array([0, 50_000, 50_000, 200_000])
    counts = np.bincount(ids)
    kept, new_offsets = corpus.subsample(ids, offsets, counts, threshold=1e-2, seed=1)
    expected = counts * np.minimum(1, np.sqrt(1e-2 / (counts / counts.sum())))
    assert np.abs(np.bincount(kept) - expected).max() < 6 * np.sqrt(expected.max())
    assert np.bincount(kept)[2] == counts[2]
    first = corpus.subsample(ids[:50_000], offsets[:2], counts, threshold=1e-2, seed=1)[0]
    assert np.array_equal(kept[: new_offsets[1]], first)
    assert new_offsets[1] == new_offsets[2]
    assert not np.array_equal(kept, corpus.subsample(ids, offsets, counts, threshold=1e-2, seed=2)[0])


def test_subsampling_refuses_what_does_not_fit():
    ids, offsets, counts = np.array([0, 1]), np.array([0, 2]), np.array([1, 1])
    with pytest.raises(ValueError, match="threshold must be positive"):
        corpus.subsample(ids, offsets, counts, threshold=0)
    with pytest.raises(ValueError, match=r"token_ids must lie in 0\.\.0"):
        corpus.subsample(ids, offsets, counts[:1])
    with pytest.raises(ValueError, match="offsets must end with"):
        corpus.subsample(ids, offsets[:1], counts)


# ---------------------------------------------------------------- public data


def test_wikitext_names_what_is_missing(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"train\.txt, valid\.txt and test\.txt of WikiText-2"):
        corpus.load_wikitext2(tmp_path)
    monkeypatch.setenv("EXPLAINERS_DATA", str(tmp_path / "data"))
    with pytest.raises(FileNotFoundError, match="data"):
        corpus.load_wikitext2(split="valid")
    with pytest.raises(ValueError, match="split must be"):
        corpus.load_wikitext2(tmp_path, "dev")


def test_wikitext_checks_the_file(tmp_path):
    (tmp_path / "test.txt").write_text(" = One = \n \n Words . \n")
    with pytest.raises(ValueError, match=r"not the published file: 22 bytes.*expected 1256449 bytes"):
        corpus.load_wikitext2(tmp_path, "test")
    assert corpus.load_wikitext2(tmp_path, "test", check=False) == [["=", "One", "=", "Words", "."]]


def test_no_network_says_what_to_do(tmp_path, monkeypatch):
    import pooch

    def fail(*args, **kwargs):
        assert kwargs["progressbar"]
        assert args[1].startswith("md5:")
        raise OSError("no route")

    monkeypatch.setattr(pooch, "retrieve", fail)
    with pytest.raises(
        ConnectionError, match=r"valid\.txt could not be fetched from https://.*by hand and put it into"
    ):
        corpus.load_wikitext2(tmp_path, "valid", download=True)


def test_word_pairs(tmp_path, monkeypatch):
    path = tmp_path / "word_similarity" / "men.csv"
    path.parent.mkdir()
    path.write_text("word1,word2,score,split\nsun,moon,30.5,dev\nsun,tea,2,test\n")
    monkeypatch.setenv("EXPLAINERS_DATA", str(tmp_path))
    assert corpus.load_word_pairs("men.csv", check=False) == [("sun", "moon", 30.5), ("sun", "tea", 2.0)]
    with pytest.raises(ValueError, match=r"men\.csv is not the published table .*expected e48d5a20"):
        corpus.load_word_pairs("men.csv")
    assert corpus.load_word_pairs(path, part="test") == [("sun", "tea", 2.0)]
    with pytest.raises(ValueError, match="no pairs with split 'train'"):
        corpus.load_word_pairs(path, part="train")
    with pytest.raises(FileNotFoundError, match=r"word-similarity sets: MEN"):
        corpus.load_word_pairs("none.csv")


NATURAL = "word1 word2 score\nstairs sun 50.000000\nsun born 2.500000\n"
LEMMAS = "stair-n sun-n 50.000000\nsun-n bear-v 2.500000\n"
MEN = "word1,word2,score,pos1,pos2,split\nstairs,sun,50,n,n,test\nsun,born,2.5,n,v,dev\n"


class Shelf(http.server.BaseHTTPRequestHandler):
    """Serves ``files``; one marked in ``cut`` promises more bytes than it sends and hangs up."""

    files: ClassVar[dict[str, str]] = {}
    cut: ClassVar[set[str]] = set()

    def do_GET(self):
        name = self.path.lstrip("/")
        content = self.files.get(name, "").encode()
        self.send_response(200 if name in self.files else 404)
        self.send_header("Content-Length", str(len(content) + 100 * (name in self.cut)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args):
        pass


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """A server on this machine with the sources of a two-row MEN; ``EXPLAINERS_DATA`` is an empty folder."""
    monkeypatch.setattr(Shelf, "files", {"natural": NATURAL, "lemmas": LEMMAS, "dev": LEMMAS.split("\n", 1)[1]})
    monkeypatch.setattr(Shelf, "cut", set())
    monkeypatch.setenv("EXPLAINERS_DATA", str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Shelf) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        table = dataclasses.replace(
            _corpus_data._PAIR_TABLES["men.csv"],
            sha256=hashlib.sha256(MEN.encode()).hexdigest(),
            address=f"http://127.0.0.1:{server.server_port}/",
            files={"natural": "sha256:" + hashlib.sha256(NATURAL.encode()).hexdigest(), "lemmas": None, "dev": None},
        )
        monkeypatch.setitem(_corpus_data._PAIR_TABLES, "men.csv", table)
        yield tmp_path / "word_similarity" / "men.csv"
        server.shutdown()
        thread.join()


def test_word_pairs_are_fetched_once(shelf, capfd):
    with pytest.raises(FileNotFoundError, match="download=True fetches it"):
        corpus.load_word_pairs("men.csv")
    assert corpus.load_word_pairs("men.csv", download=True) == [("stairs", "sun", 50.0), ("sun", "born", 2.5)]
    assert "100%" in capfd.readouterr().err  # progress
    assert shelf.read_text() == MEN
    Shelf.files.clear()  # from now on the file on disk serves
    assert corpus.load_word_pairs("men.csv", part="dev", download=True) == [("sun", "born", 2.5)]
    assert [file.name for file in shelf.parent.iterdir()] == ["men.csv"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("natural", NATURAL.replace("50", "49"), "hash"),  # the source's own checksum
        ("lemmas", LEMMAS.replace("bear-v", "bear-n"), "not the published table"),  # the finished table's
        ("lemmas", LEMMAS.split("\n", 1)[1], "zip"),  # a row short
    ],
)
def test_changed_sources_leave_no_table(shelf, name, text, message):
    Shelf.files[name] = text
    with pytest.raises(ValueError, match=message):
        corpus.load_word_pairs("men.csv", download=True)
    assert not shelf.exists()


def test_interrupted_and_absent_downloads(shelf):
    Shelf.cut.add("lemmas")
    with pytest.raises(
        ConnectionError, match=r"lemmas could not be fetched from http://127.*men\.csv: MEN, 3,000 pairs"
    ):
        corpus.load_word_pairs("men.csv", download=True)
    assert not shelf.exists()
    Shelf.cut.clear()
    del Shelf.files["dev"]
    with pytest.raises(ConnectionError, match=r"dev could not be fetched .*HTTPError"):
        corpus.load_word_pairs("men.csv", download=True)
    table = dataclasses.replace(_corpus_data._PAIR_TABLES["men.csv"], address="http://127.0.0.1:9/")  # nobody listens
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(_corpus_data._PAIR_TABLES, "men.csv", table)
        with pytest.raises(ConnectionError, match=r"put the table itself at .*word_similarity.men\.csv"):
            corpus.load_word_pairs("men.csv", download=True)
    Shelf.files["dev"] = LEMMAS.split("\n", 1)[1]
    assert len(corpus.load_word_pairs("men.csv", download=True)) == 2  # nothing half fetched stands in the way


def test_other_names_are_not_fetched(shelf):
    with pytest.raises(FileNotFoundError, match=r"none\.csv is missing"):
        corpus.load_word_pairs("none.csv", download=True)


def test_published_wordsim_is_written_from_its_source():
    """gensim (a peer of the benchmarks) installs the very file that the address names."""
    data = pytest.importorskip("gensim.test.utils").datapath("wordsim353.tsv")
    table = _corpus_data._PAIR_TABLES["wordsim353.csv"]
    assert table.files["wordsim353.tsv"] == "sha256:" + hashlib.sha256(Path(data).read_bytes()).hexdigest()
    written = table.convert(_corpus_data._rows(Path(data)))
    assert hashlib.sha256(written.encode()).hexdigest() == table.sha256


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("word1,word2\na,b\n", "lacks the column 'score'"),
        ("word1,word2,score\na,b,nan\n", "line 2"),
        ("word1,word2,score\na,,3\n", "two words and a number"),
        ("word1,word2,score\n", "has no pairs"),
    ],
)
def test_bad_word_pairs(tmp_path, text, message):
    path = tmp_path / "pairs.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        corpus.load_word_pairs(path)


# ---------------------------------------------------------------- found by `make mutate`


def test_parts_of_a_corpus_know_where_it_comes_from(few):
    whole = corpus.Corpus(few, key="a key", versions={"numpy": "1"})
    for part in (whole[1:3], whole.filter(kind="function"), *whole.split()):
        assert (part.key, part.versions) == ("a key", {"numpy": "1"})
    assert corpus.Corpus(few).key == ""


def test_similar_names_are_offered_even_if_no_last_component_fits(few):
    whole = corpus.Corpus(few)
    with pytest.raises(KeyError, match=r"similar names: numpy\.lib\.io\.f"):
        whole.by_name("numpy.lib.io.g")
    with pytest.raises(KeyError, match=r"similar names: numpy\.lib\.io\.f3'?\"?$"):
        whole.by_name("numpy.io.f3")  # of those with this last component
    with pytest.raises(KeyError, match="similar names: none"):
        corpus.Corpus(few).by_name("@")


def test_the_smallest_split_and_what_is_refused(few):
    assert sum(map(len, corpus.Corpus(few[:3]).split())) == 3
    assert [len(part) for part in corpus.Corpus(few[:3]).split((1.0,))] == [3]
    with pytest.raises(ValueError, match="at least 3 documents, got 2"):
        corpus.Corpus(few[:2]).split()
    with pytest.raises(ValueError, match="by must be 'name' or 'topic', got 'size'"):
        corpus.Corpus(few).split(by="size")
    with pytest.raises(ValueError, match="fractions must be positive"):
        corpus.Corpus(few).split((1.0, 0.0))


def test_near_duplicates_follow_the_first_name_in_any_order():
    where = "numpy.lib.io"
    docs = [
        make_doc("numpy", f"{where}.{name}", where, "function", f"{summary}.\n\n{body}.")
        for name, summary, body in [
            ("a", "One", "First"), ("b", "Two", "First"), ("c", "Two", "Third"), ("d", "Four", "Fourth"),
        ]
    ]  # fmt: skip
    for order in itertools.permutations(docs):
        leaders = dict(zip((doc.name[-1] for doc in order), corpus.Corpus(order)._leaders))
        assert leaders == {"a": f"{where}.a", "b": f"{where}.a", "c": f"{where}.a", "d": f"{where}.d"}


def test_a_cache_holds_no_time_and_is_left_whole_or_not_at_all(built, tmp_path, monkeypatch):
    load(tmp_path)
    (path,) = tmp_path.glob("*.gz")
    assert path.read_bytes()[4:8] == bytes(4)  # where gzip keeps the time
    path.unlink()
    monkeypatch.setattr(corpus.os, "replace", lambda *names: (_ for _ in ()).throw(OSError("no room")))
    with pytest.warns(corpus.CorpusWarning, match="not cached.*no room"):
        load(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_command_refreshes_and_prints_what_identifies_the_corpus(built, tmp_path, capsys):
    corpus.main(["numpy", "--cache-dir", str(tmp_path)])
    corpus.main(["numpy", "--cache-dir", str(tmp_path), "--refresh"])
    assert len(built) == 2
    out = capsys.readouterr().out
    whole = load(tmp_path)
    assert f"versions  numpy {whole.versions['numpy']}\n" in out
    assert f"key       {whole.key}\n" in out
    assert f"content   {whole.content_hash()}\n" in out
    assert "topics    1, of which 0 have 20 documents or more" in out
    with pytest.raises(SystemExit):
        corpus.main(["--help"])
    assert "Build the docstring corpus" in capsys.readouterr().out


def test_topics_of_twenty_documents_are_large(built, few, tmp_path, capsys):
    where = "numpy.fft.a"
    few += [make_doc("numpy", f"{where}.f{n}", where, "function", f"Part {n}.") for n in range(20)]
    corpus.main(["numpy", "--cache-dir", str(tmp_path)])
    assert "topics    2, of which 1 have 20 documents or more" in capsys.readouterr().out


# ---------------------------------------------------------------- reading sources, on a small tree

LONG = "A docstring that is long enough to be kept, because it has more than eighty characters in it."


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A package's folder in which every file holds one function with a long docstring."""
    names = [
        "__init__.py", "a.py", "z/__init__.py", "z/b.py", "conftest.py", "setup.py", "test_a.py", "tests/a.py",
        "testing/a.py", "_private/a.py", "_core/a.py", "z/_core/a.py", "distutils/a.py", "z/distutils/a.py",
        "externals/a.py", "z/_vendor/a.py", "_module.py", "z/data.txt",
    ]  # fmt: skip
    for name in names:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'def f():\n    """{name}. {LONG}"""\n')
    monkeypatch.setattr(_corpus_build, "package_folder", lambda package: tmp_path)
    monkeypatch.setattr(_corpus_build, "EXTENSION_OBJECTS", {})
    return tmp_path


def test_files_that_are_read(tree):
    found = [module for module, _ in _corpus_build.source_files("numpy")]
    public = ["numpy", "numpy.a", "numpy.z", "numpy.z.b", "numpy._module", "numpy.z.distutils.a"]
    assert sorted(found) == sorted([*public, "numpy._core.a"])
    public = [name.replace("numpy", "sympy") for name in public]
    assert sorted(module for module, _ in _corpus_build.source_files("sympy")) == sorted([*public, "sympy.distutils.a"])
    found = [module for module, _ in _corpus_build.source_files("scipy")]
    private = ["scipy._core.a", "scipy._private.a", "scipy.z._core.a", "scipy.distutils.a"]
    assert sorted(found) == sorted([*(name.replace("sympy", "scipy") for name in public), *private])


def test_a_package_is_extracted_in_the_order_of_its_names(tree, capsys):
    (tree / "broken.py").write_text("def f(:\n")
    done = []
    static, extension = _corpus_build.extract("numpy", done.append)
    assert [found.name for found in static] == sorted(found.name for found in static)
    assert len(static) == 7
    assert extension == []
    assert done == [1] * 8
    captured = capsys.readouterr()
    assert "broken.py was left out" in captured.err
    assert captured.out == ""


def test_every_definition_of_a_source_is_found():
    source = f'''"""Module. {LONG}"""
if a:
    def one():
        """One. {LONG}"""
        def inner():
            """Inner. {LONG}"""
else:
    async def other():
        """Other. {LONG}"""
try:
    def tried(): "Tried. {LONG}"
except ImportError:
    def caught(): "Caught. {LONG}"
else:
    def quiet(): "Quiet. {LONG}"
finally:
    def at_last(): "At last. {LONG}"
with b:
    def within(): "Within. {LONG}"
class A:
    """Class. {LONG}"""
    if c:
        def method(self): "Method. {LONG}"
    try:
        pass
    except d:
        def rescued(self): "Rescued. {LONG}"
    @property
    def value(self): "Value. {LONG}"
    @functools.cached_property
    def cached(self): "Cached. {LONG}"
    @value.setter
    def set(self, x): "Set. {LONG}"
    @staticmethod
    def static(): "Static. {LONG}"
    class B:
        def deep(self): "Deep. {LONG}"
def short(): "Short."
'''
    found = {text.name: text.kind for text in _corpus_build.static_texts("numpy.m", source)}
    assert found == {
        "numpy.m": "module",
        **{f"numpy.m.{name}": "function" for name in ("one", "other", "tried", "caught", "quiet", "at_last", "within")},
        "numpy.m.A": "class",
        **{f"numpy.m.A.{name}": "method" for name in ("method", "rescued", "static", "B.deep")},
        **{f"numpy.m.A.{name}": "property" for name in ("value", "cached", "set")},
    }
    assert {text.module for text in _corpus_build.static_texts("numpy.m", source)} == {"numpy.m"}


@pytest.mark.parametrize(("size", "kept"), [(79, 0), (80, 1)])
def test_a_text_of_eighty_characters_is_long_enough(size, kept):
    source = f'def f():\n    "{"w" * size}"\n'
    assert len([*_corpus_build.static_texts("numpy", source)]) == kept
    blanks = f'def f():\n    """{"w" * size}\n    {" " * 9}"""\n'  # trailing blanks do not count
    assert len([*_corpus_build.static_texts("numpy", blanks)]) == kept
    thing = type("Thing", (), {"__doc__": "w" * size})
    assert len([*_corpus_build._extension("a", "b", "class", thing)]) == kept


def test_a_text_keeps_its_own_indentation():
    source = f'def f():\n    """{LONG}\n\n        code\t1\n    text   \n    """\n'
    (found,) = _corpus_build.static_texts("numpy", source)
    assert found.raw == f"{LONG}\n\n    code    1\ntext"


def test_texts_of_c_code_by_their_kinds(monkeypatch):
    monkeypatch.setattr(_corpus_build, "MIN_CHARACTERS", 5)
    monkeypatch.setattr(_corpus_build, "EXTENSION_OBJECTS", {"numpy": ["math", "builtins.complex"]})
    found = {text.name: (text.module, text.kind) for text in _corpus_build.extension_texts("numpy")}
    assert found["math.sqrt"] == ("math", "function")
    assert "math.pi" not in found  # no code
    assert found["builtins.complex"] == ("builtins", "class")
    assert found["builtins.complex.conjugate"] == ("builtins", "method")
    assert found["builtins.complex.real"] == ("builtins", "property")
    assert not any("._" in name for name in found)
    assert [*_corpus_build.extension_texts("sympy")] == []
    method = _corpus_build._members(math, "m", "m", ["sqrt"], in_class=True)
    assert [text.kind for text in method] == ["method"]


def test_the_first_of_equal_names_and_of_equal_texts_stays():
    found = [_corpus_build.Found(*fields) for fields in (
        ("a", "m", "function", "one"), ("a", "m", "function", "two"), ("b", "m", "function", "one"),
        ("c", "m", "function", "two"), ("d", "m", "function", "two"),
    )]  # fmt: skip
    assert [entry.name for entry in _corpus_build.unique([found[:2], found[2:]])] == ["a", "c"]


def test_documents_of_a_package_from_sources_and_from_c_code(tree, monkeypatch):
    monkeypatch.setattr(_corpus_build, "EXTENSION_OBJECTS", {"numpy": ["cmath"]})
    monkeypatch.setattr(_corpus_build, "MIN_CHARACTERS", 20)
    static, extension = _corpus_build.docs_of("numpy")
    assert len(static) == 7
    assert {doc.name for doc in extension} >= {"cmath.isnan", "cmath.polar"}


def test_progress_is_shown_only_if_wanted(capsys):
    with _corpus_build._bar(3, False) as advance:
        advance(1)
    assert capsys.readouterr().err == ""
    with _corpus_build._bar(3, True) as advance:
        advance(2)
    assert "2/3" in capsys.readouterr().err


def test_a_notebook_shows_no_progress(capsys, monkeypatch):
    """On the first run a bar would be an output that no later run gives, and nbval would compare it."""

    class Shell:
        kernel = object()

    monkeypatch.setattr("IPython.get_ipython", Shell)
    with _corpus_build._bar(3, True) as advance:
        advance(2)
    assert capsys.readouterr().err == ""


PARSED_AGAIN = {
    "numpy": ("numpy.lib", "numpy.ma"), "torch": ("torch.nn.modules", "torch.distributions", "torch.optim"),
    "scipy": ("scipy.stats", "scipy.signal"), "sympy": ("sympy.core", "sympy.functions"),
    "sklearn": ("sklearn.linear_model", "sklearn.metrics"), "matplotlib": ("matplotlib.axes", "matplotlib.figure"),
}  # fmt: skip


@pytest.mark.parametrize("package", PARSED_AGAIN)
def test_documents_that_are_parsed_again_are_those_of_the_cache(docstrings, package):
    """A cache is found by the extractor's number: cleaning that changed without a new number would go unnoticed."""
    wanted, seen = {doc.name: doc for doc in docstrings.filter(package=package)}, 0
    for module, path in _corpus_build.source_files(package):
        if module.startswith(PARSED_AGAIN[package]):
            for found in _corpus_build.static_texts(module, path.read_text(encoding="utf-8")):
                if found.name in wanted and wanted[found.name].raw == found.raw:
                    assert make_doc(package, *found) == wanted[found.name]
                    seen += 1
    assert seen > 100


# ---------------------------------------------------------------- tokens and articles at their borders


def test_numbers_from_zero_to_nine_begin_a_number():
    assert corpus.tokenize("0 05 9") == ["<num>"] * 3
    assert corpus.tokenize("0.5") == ["<num>"]


def test_a_vocabulary_of_specials_only_and_of_words_that_do_not_occur():
    assert corpus.Vocabulary.build([["a"]], max_size=1).words == ("<unk>",)
    assert corpus.Vocabulary.build([["a"]], max_size=0, specials=()).words == ()
    assert corpus.Vocabulary.build([["a"]], min_count=1).words == ("<unk>", "a")


def test_subsampling_an_empty_text_and_its_borders():
    counts = np.array([4, 0])
    ids, offsets = corpus.subsample(np.zeros(0, int), np.array([0, 0]), counts, threshold=0.1)
    assert (len(ids), offsets.tolist()) == (0, [0, 0])
    assert len(corpus.subsample(np.zeros(0, int), np.array([0]), np.zeros(0, int), threshold=0.1)[0]) == 0
    for bad in ([-1, 0], [0, 2]):
        with pytest.raises(ValueError, match=r"token_ids must lie in 0\.\.1"):
            corpus.subsample(np.array(bad), np.array([0, 2]), counts)
    kept, offsets = corpus.subsample(np.array([1, 1, 0, 1]), np.array([0, 2, 4]), counts, threshold=1.0)
    assert kept.tolist() == [1, 1, 0, 1]  # rarer than the threshold: all stay, also a word that was never counted
    assert offsets.tolist() == [0, 2, 4]
    with pytest.raises(ValueError, match="offsets must end with"):
        corpus.subsample(np.array([0]), np.zeros(0, int), counts)


def test_a_title_stands_between_blank_lines():
    lines = [
        " ",
        " = One = \r",
        " ",
        " a formula ",
        " = 1 = ",
        " ",
        " text ",
        " ",
        " = 2 = ",
        " text ",
        " ",
        " = Two = ",
        "",
    ]
    articles = _corpus_data._articles(lines)
    assert [" ".join(article) for article in articles] == ["= One = a formula = 1 = text = 2 = text", "= Two ="]


def test_pairs_may_stand_between_tabs_and_in_quotes(tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_text("word1\tword2\tscore\nsun\tsunlight\t50\n")
    assert corpus.load_word_pairs(path) == [("sun", "sunlight", 50.0)]


def test_one_package_is_built_as_in_the_whole(docstrings, capfd):
    built = _corpus_build.build(["numpy"])
    assert "100%" in capfd.readouterr().err
    assert [doc.name for doc in built] == sorted({doc.name for doc in built})
    whole = {doc.name: doc for doc in docstrings.filter(package="numpy")}
    assert set(whole) <= {doc.name for doc in built}  # alone it keeps texts that larger packages have, too
    assert [doc for doc in built if doc.name in whole] == list(whole.values())
    assert len(built) - len(whole) < 20
    assert any(doc.name == "numpy.add" for doc in built)  # from C code


def test_a_worker_that_fails_says_why(tmp_path):
    with pytest.raises(RuntimeError, match=r"'nothing_here' failed with status 1:\n(.|\n)*KeyError"):
        _corpus_build._run_workers({"nothing_here": tmp_path / "part.jsonl"}, lambda files: None)


# ---------------------------------------------------------------- pieces of the cleaning


@pytest.mark.usefixtures("ends")
def test_common_indents_are_taken_off():
    dedented = _corpus_fields._dedented
    assert dedented(["  a", "", "    b"]) == ["a", "", "  b"]
    assert dedented([" a", " b"]) == ["a", "b"]
    assert dedented(["a", "  b"]) == ["a", "  b"]
    assert dedented(["", "  a"]) == ["", "a"]
    assert dedented([]) == []


@pytest.mark.usefixtures("ends")
def test_sections_of_torch_by_their_titles():
    chunks = list(
        _corpus_fields._google_chunks(["Sum.", "", "Args:", " x: the input", "Raises:", "ValueError: if not.", ""])
    )
    assert [title for title, _ in chunks] == ["", "Args", "Raises"]
    assert chunks[1][1] == [" x: the input"]
    lines = ["Sum.", "Shape:", "    Any.", "", "After that.", "More.", "Examples:", "    none"]
    assert list(_corpus_fields._google_chunks(lines)) == [
        ("", ["Sum."]), ("Shape", ["    Any.", ""]), ("Notes", ["After that.", "More."]), ("Examples", ["    none"]),
    ]  # fmt: skip


@pytest.mark.usefixtures("ends")
@pytest.mark.parametrize(
    ("lines", "paragraphs"),
    [
        (["a: one", "  more", "b - two", "plain"], ["a: one more", "b - two", "plain"]),
        (["a: one", "plain"], ["a: one", "plain"]),  # half of them
        (["a: one", "plain", "plainer"], ["a: one plain plainer"]),
        (["", "  in: side", "plain", "", "plainer"], ["in: side plain", "plainer"]),
    ],
)
def test_lists_that_no_parser_reads(lines, paragraphs):
    found = [" ".join(part.split()) for part in _corpus_fields._unparsed_parameters(lines)]
    assert found == paragraphs


@pytest.mark.usefixtures("ends")
def test_repeated_sections_are_joined_and_the_first_summary_stays():
    raw = "Sum.\n\nNotes\n-----\nOne.\n\nExtra\n-----\nTwo.\n\nNotes\n-----\nThree.\n"
    doc = make_doc("numpy", "numpy.lib.f", "numpy.lib", "function", raw)
    assert doc.summary == "Sum."
    assert doc.sections["Notes"].split() == ["One.", "Three."]


@pytest.mark.usefixtures("ends")
@pytest.mark.parametrize(
    ("rest", "plain"),
    [
        ("1. One\n2. Two\n   goes on\n3. Three", "One\nTwo goes on\nThree"),
        ("A sentence with a number that is\n2. and goes on.", "A sentence with a number that is 2. and goes on."),
        (
            "1. One\n\ntext that is not in a list\n2. and not the next item.",
            "One\ntext that is not in a list 2. and not the next item.",
        ),
        ("1. One\n\n  of the item\n2. Two", "One\nof the item\nTwo"),
        ("It reads::\nand goes on.", "It reads: and goes on."),
        ("It reads::\n\n  code\n\n  more\n\nOn.", "It reads:\nOn."),
        ("  It reads::\n\n  not code, as far out\n", "It reads:\nnot code, as far out"),
        ("A\n\n.. admonition:: Title\n\n   Text of it.\n\nB", "A\nTitle\nText of it.\nB"),
        ("A\n\n.. note:: Text\n   of it.\n\nB", "A\nText of it.\nB"),
        ("A\n\n.. note::\n   :class: dropdown\n\n     Inner text.\n\nB", "A\nInner text.\nB"),
        ("=== ===\na   b\n=== ===\n\n1   2\n=== ===\nAfter.", "1 2 After."),
        ("=== ===\na   b\nAfter.", "a b After."),
        (":param x: the input\n:type x: int\n:rtype: float\n:returns: the output", "x : the input\nthe output"),
    ],
)
def test_plain_text_of_lists_literals_tables_and_fields(rest, plain):
    assert corpus.plain_text(rest) == plain


def test_subsampling_of_a_word_that_was_seen_once():
    ids = np.zeros(10_000, int)
    kept, _ = corpus.subsample(ids, np.array([0, 10_000]), np.array([1]), threshold=0.25)
    assert abs(len(kept) - 5000) < 300


@pytest.mark.filterwarnings("error")
def test_subsampling_of_words_never_seen_divides_by_nothing():
    assert len(corpus.subsample(np.array([1]), np.array([0, 1]), np.array([4, 0]), threshold=1.0)[0]) == 1
