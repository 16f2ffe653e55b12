"""Mutation testing is itself tested: edits do what they say, caught mutants count as caught, missed ones as missed."""

import ast
import contextlib
import doctest
import json
import shutil
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mutate import engine, library, operators
from mutate.operators import Mutant, mutants

ROOT = Path(__file__).resolve().parents[2]


def edits(source: str) -> set[str]:
    return {mutant.after for mutant in mutants(source)}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("y = a < b", {"y = a <= b", "y = a > b"}),
        ("y = a <= b < c", {"y = a < b < c", "y = a >= b < c", "y = a <= b <= c", "y = a <= b > c"}),
        ("y = a not in b", {"y = a in b"}),
        ("y = (a) + (b)", {"y = (a) - (b)"}),
        ("y = a and b or c", {"y = a or b or c", "y = a and b and c"}),
        ("y = -x", {"y = x"}),
        ("y = not (a or b)", {"y = (a or b)", "y = not (a and b)"}),
        ("y = x[-1]", {"y = x[1]", "y = x[-0]", "y = x[-2]"}),
        ("y = 0.5", {"y = 1.0"}),
        ("y = True", {"y = False"}),
        ("y += 2", {"y -= 2", "y += 3"}),
        ("y = x.max(dim=k)", {"y = x.min(dim=k)", "y = x.max()"}),
        ("y = x.detach()", {"y = x"}),
        ("y = f(a, key=b)", {"y = f(a)"}),
        ("y = [a for a in b if a]", {"y = [a for a in b if True]"}),
        ("for a in b:\n    break", {"continue"}),
        ("if a:\n    raise E(1 + 1)", {"if (not (a)):", "pass"}),
        ("with no_grad():\n    x", {"with __import__('contextlib').nullcontext():"}),
        ("@torch.no_grad()\ndef f():\n    x", {"@(lambda function: function)"}),
        ("def f(a, *, n=2):\n    return a", {"def f(a, *, n=3):"}),
    ],
)
def test_edits(source, expected):
    assert edits(source) == expected


@pytest.mark.parametrize(
    "source",
    [
        '"""A docstring with 1 + 1."""', "x: int | None", "def f(a: int | str) -> int | str: ...", "y = 'a' + b",
        "y = f'{1 + 1}'", "def f(seed=0): ...", "y = f(seed=3, stacklevel=2)", "__all__ = [1]", "import a",
        "class A:\n    def __repr__(self):\n        return 1 + 1",
        "def f(ax):\n    y = 1 + 1", "if TYPE_CHECKING:\n    y = 1", "warn('a', 1 + 1)", "y = 1e-9",
        "def f(x=None): ...", "y = x.reshape(-1, n)",
    ],
)  # fmt: skip
def test_what_is_left_alone(source):
    assert mutants(source) == []


def test_places_are_right_after_signs_of_several_bytes():
    (mutant, *_) = mutants('x = "é—数"; y = a - b\n')
    assert mutant.source == 'x = "é—数"; y = a + b\n'
    assert str(mutant).startswith('1:15 arithmetic: x = "é—数"; y = a - b -> ')


def test_an_edit_keeps_the_number_of_lines():
    source = "def f(a):\n if a:\n  raise E(\n   1,\n  )\n return g(\n  a,\n  k=b,\n )\n"
    for mutant in mutants(source):
        assert mutant.source.count("\n") == source.count("\n"), mutant
        ast.parse(mutant.source)
    assert mutants(source, lines=[8]) == [mutant for mutant in mutants(source) if mutant.line == 8]


def test_every_mutant_of_the_library_parses_and_differs():
    source = (ROOT / "lib/explainers/verify.py").read_text(encoding="utf-8")
    found = mutants(source)
    assert len(found) > 300
    assert len({mutant.source for mutant in found}) == len(found)
    same = ast.dump(ast.parse(source))
    for mutant in found[::9]:
        assert ast.dump(ast.parse(mutant.source)) != same
        assert mutant.before != mutant.after


# --- The engine, on a package of three lines ----------------------------------------------------------------------

TRIED = (
    "return 2 / x",
    "pass",
    "n += 1",
    "return x - 1",
    "if x >= LIMIT:",
    "LIMIT = 4",
    "if x < LIMIT:",
    "return [x + y for y in (4, 5)]",
    "def shift(x, by=2):",
)
MODULE = """\
import functools

LIMIT = 3


@functools.cache
def scale(x):
    if x > LIMIT:
        raise ValueError(x)
    return 2 * x


def loops(n):
    while n > 0:
        n -= 1
    return n


def untested(x):
    return x + 1


def shift(x, by=1):
    return x - by


class Box:
    def inner(self, x):
        return [x - y for y in (4, 5)]
"""
TESTS = """\
import pytest
from explainers.verify import Box, loops, scale, shift

@pytest.fixture(scope="module")
def six():
    return scale(3)

def test_scale(six):
    assert six == 6

def test_limit():
    with pytest.raises(ValueError):
        scale(5)

def test_loops():
    assert loops(4) == 0

def test_shift():
    assert shift(2) == 1

def test_box():
    assert Box().inner(5) == [1, 0]
"""


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory):
    """What the tool says about each mutant of the small package, by line after."""
    root = tmp_path_factory.mktemp("tree")
    for name, text in {
        "explainers/__init__.py": "",
        "explainers/verify.py": MODULE,
        "tests/test_verify.py": TESTS,
    }.items():
        path = root / "lib" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    script = f"""\
        import json, os, sys
        from pathlib import Path
        sys.path[:0] = [{str(root / "lib")!r}, {str(ROOT / "lib")!r}]
        os.chdir({str(root / "lib")!r})
        sys.dont_write_bytecode = True
        from mutate import library
        from mutate.operators import mutants
        module = library.Module("verify", Path({str(root)!r}))
        found = [mutant for mutant in mutants(module.path.read_text()) if mutant.after in {TRIED}]
        options = library.Options(None, False, False, 9, lambda line: None)
        print(json.dumps([(v.after, v.state, v.by) for v in library.try_tests(module, found, options)]))
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    output = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert output.returncode == 0, output.stderr
    return {after: (state, by) for after, state, by in json.loads(output.stdout.splitlines()[-1])}


def test_a_caught_mutant_names_the_test_that_caught_it(verdicts):
    assert verdicts["return 2 / x"] == ("test", "tests/test_verify.py::test_scale")
    assert verdicts["pass"] == (
        "test",
        "tests/test_verify.py::test_limit",
    )
    assert verdicts["n += 1"][0] == "timeout"


def test_code_of_a_method_is_replaced_in_the_living_function(tmp_path, monkeypatch):
    path = tmp_path / "patched_here.py"
    path.write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    import patched_here as module

    living = engine.functions_of(path)
    old = {mutant.after: mutant for mutant in mutants(MODULE)}
    assert engine.patch(living, path, old["return [x + y for y in (4, 5)]"])
    assert module.Box().inner(5) == [9, 10]
    assert engine.patch(living, path, old["return 2 / x"])
    assert module.scale(2) == 1
    assert not engine.patch(living, path, old["LIMIT = 4"])  # no function holds it


def test_a_missed_mutant_survives(verdicts):
    assert verdicts["return x - 1"] == ("survived", "")  # no test runs it
    assert verdicts["if x >= LIMIT:"][0] == "test"
    assert verdicts["LIMIT = 4"] == (
        "survived",
        "",
    )  # a constant of the module: imported afresh, and no test at the border
    assert verdicts["if x < LIMIT:"][0] == "test"


def test_a_default_is_caught_by_a_fresh_import(verdicts):
    assert verdicts["def shift(x, by=2):"] == ("test", "tests/test_verify.py::test_shift")


def test_again_runs_what_survived_and_keeps_the_rest(tmp_path, monkeypatch):
    """The stored report has a caught, a surviving, a lost and a mutant that has become equivalent; one is new."""
    module = library.Module("verify", tmp_path)
    module.path.parent.mkdir(parents=True)
    module.path.write_text(MODULE)
    found = {mutant.after: mutant for mutant in mutants(MODULE)}
    caught, missed, same = (found[after] for after in ("return 2 / x", "return x - 1", "LIMIT = 4"))
    old = [
        library.Verdict("verify", mutant.line, mutant.operator, mutant.before, mutant.after, state)
        for mutant, state in ((caught, "test"), (missed, "survived"), (same, "survived"))
    ]
    old.append(library.Verdict("verify", 3, "number", "a line that is gone", "it, broken", "survived"))
    monkeypatch.setattr(library, "ROOT", tmp_path)
    library.save({"verify": {"possible": 9, "draw": None, "notebook_run": None, "seconds": 5, **library._counted(old)}})
    library.save({"other": {"possible": 1}})
    monkeypatch.setattr(library, "read_equivalent", lambda: {("verify", same.before, same.after, ""): "no reason"})
    tried = []

    def try_tests(module, chosen, options):
        tried.extend(chosen)
        return [library.Verdict("verify", m.line, m.operator, m.before, m.after, "test", "test_new") for m in chosen]

    monkeypatch.setattr(library, "try_tests", try_tests)
    options = library.Options(None, False, True, 9, lambda line: None, again=True)
    new = found["return [x + y for y in (4, 5)]"]
    report = library.run_again(module, [caught, missed, same, new], options)
    assert [mutant.after for mutant in tried] == [missed.after, new.after]
    assert (report["mutants"], report["test"], report["equivalent"], report["survived"]) == (4, 3, 1, 0)
    assert (report["possible"], report["seconds"], report["score"]) == (4, 5, 100.0)
    assert library.load().keys() == {"verify", "other"}  # one run does not lose the report of another


def test_survivors_meet_the_notebook_up_to_the_cap(tmp_path, monkeypatch):
    """Without unit tests every mutant is a survivor so far; the notebook here catches each that it is run on."""
    module = library.Module("verify", tmp_path)
    for path in (module.path, module.notebook):
        path.parent.mkdir(parents=True)
        path.write_text(MODULE)
    monkeypatch.setattr(library, "nbval", lambda module, folder, seconds: ("survived", ""))
    monkeypatch.setattr(library, "try_notebook", lambda module, mutant, seconds: ("notebook", "cell 3"))
    found = mutants(MODULE)
    options = library.Options(None, True, True, 9, lambda line: None, cap=2, tests=False)
    report = library.run_module(module, found, options)
    assert (report["notebook"], report["survived"], report["notebook_run"]) == (2, len(found) - 2, True)
    whole = library.run_module(module, found, library.Options(None, True, True, 9, lambda line: None, tests=False))
    assert (whole["notebook"], whole["survived"]) == (len(found), 0)


def test_again_asks_for_a_first_run(tmp_path, monkeypatch):
    monkeypatch.setattr(library, "ROOT", tmp_path)
    options = library.Options(None, False, True, 9, lambda line: None, again=True)
    with pytest.raises(ValueError, match="no report of verify: run it without --again first"):
        library.run_again(library.Module("verify", tmp_path), [], options)


# --- Forks, samples, modules --------------------------------------------------------------------------------------


def test_a_fork_reports_its_value_its_death_and_its_time():
    assert engine.in_child(lambda: {"a": 1}, 5)[:2] == ("done", {"a": 1})
    assert engine.in_child(lambda: 1 / 0, 5)[0] == "died"
    start = time.monotonic()
    assert engine.in_child(lambda: [None for _ in iter(int, 1)], 1)[0] == "timeout"
    assert time.monotonic() - start < 20


def test_the_place_of_a_mutant():
    source = "X = 1\n\n\n@cache\ndef f(a=2):\n    def g():\n        return (a +\n            1)\n    return g\n"
    tree = ast.parse(source)
    places = {mutant.after: engine.place_of(tree, mutant) for mutant in mutants(source)}
    assert places["X = 0"].function is None
    assert places["def f(a=3):"] == engine.Place(None, range(6, 10))
    inner = places["return (a - 1)"] if "return (a - 1)" in places else places["return (a -"]
    assert inner.function.name == "f"
    assert inner.lines == range(7, 9)


def test_a_sample_is_stable_and_depends_on_the_lines_only():
    source = "\n".join(f"x{n} = a{n} + {n}" for n in range(60))
    found = mutants(source)
    drawn = library.sample("m", found, 20)
    assert len(drawn) == 20
    assert drawn == sorted(drawn, key=lambda mutant: mutant.line)
    moved = library.sample("m", mutants("\n\n" + source), 20)
    assert [mutant.after for mutant in moved] == [mutant.after for mutant in drawn]
    assert [mutant.after for mutant in library.sample("n", found, 20)] != [mutant.after for mutant in drawn]
    assert library.sample("m", found, None) == found


def test_modules_have_tests_and_notebooks():
    found = library.modules(ROOT)
    names = [module.name for module in found]
    assert names[0] == "verify"
    assert {"mitchell", "_corpus_text", "bioword_tasks", "transformer"} <= set(names)
    assert not {"_summarization_record", "plots", "__init__"} & set(names)
    for module in found:
        assert all(path.is_file() for path in module.files)
        assert len(module.files) >= 2
        assert module.notebook.is_file()
    assert {module.group for module in library.modules(ROOT, ["sampling"])} == {"sampling"}
    with pytest.raises(ValueError, match="no module or group nonsense"):
        library.modules(ROOT, ["nonsense"])


def source_of(module: str) -> str:
    return (ROOT / "lib/explainers" / f"{module}.py").read_text(encoding="utf-8")


def test_a_reason_may_hold_in_one_function_only():
    source = "def f(x):\n    return x + 1\n\n\ndef g(x):\n    return x + 1\n"
    in_f, in_g = (m for m in mutants(source) if m.after == "return x - 1")
    known = {("verify", in_f.before, in_f.after, "f"): "nobody calls it"}
    assert library.reason_of("verify", in_f, known) == "nobody calls it"
    assert library.reason_of("verify", in_g, known) is None
    assert library.reason_of("corpus", in_f, known) is None
    anywhere = {("verify", in_f.before, in_f.after, ""): "no difference"}
    assert library.reason_of("verify", in_g, anywhere) == "no difference"


def test_equivalent_mutants_exist_and_have_reasons():
    found = {}
    for (module, before, after, within), reason in library.read_equivalent().items():
        if module not in found:
            found[module] = {(mutant.before, mutant.after) for mutant in mutants(source_of(module))}
        assert (before, after) in found[module], f"no such mutant of {module}: {before} -> {after}"
        assert not within or f"def {within}(" in source_of(module)
        assert len(reason) > 10


def test_the_score_leaves_equivalent_mutants_out():
    assert library.score({"test": 8, "notebook": 1, "timeout": 0, "survived": 1, "equivalent": 90}) == 90.0


def test_a_mutant_is_one_edit():
    mutant = Mutant("number", 1, 4, 4, 5, "2", "y = 1  # one\nz = 3\n")
    assert mutant.source == "y = 2  # one\nz = 3\n"
    assert (mutant.before, mutant.after) == ("y = 1 # one", "y = 2 # one")


def test_the_example_in_the_docstring():
    results = doctest.testmod(operators)
    assert (results.attempted > 0, results.failed) == (True, 0)


def test_a_source_stands_in_a_file_for_a_while_only(tmp_path):
    path = tmp_path / "a.py"
    path.write_bytes(b"x = 1\r\n")
    with contextlib.suppress(ZeroDivisionError), library._standing(path, "x = 2"):
        assert path.read_text() == "x = 2"
        raise ZeroDivisionError
    assert path.read_bytes() == b"x = 1\r\n"


def test_mutants_write_to_a_copy_of_the_cache(tmp_path, monkeypatch):
    mine, folder = tmp_path / "mine", tmp_path / "run"
    mine.mkdir(), folder.mkdir()
    (mine / "docstrings-1.gz").write_text("documents")
    monkeypatch.setenv("EXPLAINERS_CACHE", str(mine))
    copy = library.copy_of_cache(folder)
    assert [(path.name, path.read_text()) for path in copy.iterdir()] == [("docstrings-1.gz", "documents")]
    assert copy.parent == folder


def test_functions_that_only_record_a_study_are_left_out():
    (module,) = library.modules(ROOT, ["matching"])
    source = module.path.read_text(encoding="utf-8")
    found, every = library.mutants_of(module), mutants(source)
    assert 0 < len(every) - len(found) < 40
    assert set(found) < set(every)


def test_a_notebook_catches_what_its_claims_and_outputs_show(tiny, tmp_path):
    module = library.Module("mitchell", tiny)
    assert library.nbval(module, ROOT / "lib", 60) == ("survived", "")
    broken = tmp_path / "lib"
    shutil.copytree(ROOT / "lib/explainers", broken / "explainers")
    path = broken / "explainers/verify.py"
    (mutant,) = (m for m in mutants(path.read_text(encoding="utf-8")) if 'if label.endswith("eq-")' in m.after)
    path.write_text(mutant.source, encoding="utf-8")
    state, by = library.nbval(module, broken, 60)
    assert state == "notebook"
    assert "mitchell.ipynb" in by
