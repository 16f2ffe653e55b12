"""``python -m mutate library``: break ``lib/explainers`` line by line, and count what is caught.

Every mutant meets the unit tests of its chapter first (``tests/test_<chapter>*.py`` and the doctests of the module).
What survives them meets the chapter's notebook: nbval runs it on a copy of the library with the mutant in it.  All is
done on a snapshot of the working tree, so that one may go on editing.

Why not a ready tool.  ``cosmic-ray`` starts a pytest process for each mutant: three seconds for imports alone, where
a fork takes a few tenths with the tests.  ``mutmut`` 3.8 forks as we do, but leaves out the functions under decorators
such as ``no_grad`` and ``cache`` and what stands outside of functions, chooses tests by function and not by line, wants
equivalent mutants marked by comments in the source (each would make every page stale), and knows no notebooks.

Not mutated: what :mod:`mutate.operators` leaves alone, and ``SCRIPTS`` and ``SCRIPT_FUNCTIONS`` (they recorded studies
of minutes to hours, of which the chapters show the stored results) and ``PICTURES``.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from platformdirs import user_cache_dir

from mutate import engine
from mutate.operators import Mutant, mutants

ROOT = Path(__file__).resolve().parents[2]
EQUIVALENT = Path(__file__).with_name("equivalent.toml")
REPORT = Path("_build", "mutation.json")
SCRIPTS = frozenset({"_realformer_record", "_summarization_record", "bioword_recorded"})
SCRIPT_FUNCTIONS = {"matching": {"record", "_look_inside"}}
PICTURES = frozenset({"_summarization_figures", "plots"})
ORDER = ("verify", "transformer", "realformer", "mitchell", "flooding", "imbalance", "sampling", "summarization",
         "bioword", "corpus", "matching", "training")  # fmt: skip
MORE_TESTS = {"training": ["test_ensemble.py"]}
OTHER_TESTS = frozenset({"test_mitchell_adder.py"})  # of a page in a browser, no line of Python
# The notebook that a module shared by several chapters is tried on.
NOTEBOOKS = {"verify": "mitchell", "training": "flooding", "corpus": "sampling"}
UNPATCHED = "not a function that can be patched"
UNRUN = "no test runs the line"
TRIED = "the notebook passes too"
LONG = 10_000  # CPU seconds: no limit worth the name
STATES = ("test", "notebook", "timeout", "survived", "equivalent")


@dataclass(frozen=True)
class Verdict:
    """What became of a mutant: ``state`` is one of ``STATES``; ``by`` the test or cell that caught it, or a reason."""

    module: str
    line: int
    operator: str
    before: str
    after: str
    state: str
    by: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Options:
    """How many mutants a module (None: all), whether notebooks and fresh imports follow, and a way to report.

    ``cap`` is how many survivors of a module meet the notebook (None: all). Without ``tests`` every mutant does: that
    measures what the claims of the chapters catch alone.
    """

    size: int | None
    notebooks: bool
    quick: bool
    seconds: int
    say: Callable[[str], None]
    draw: int = 0
    again: bool = False
    cap: int | None = None
    tests: bool = True


@dataclass(frozen=True)
class Module:
    """A module, its tests and its notebook, in a snapshot of the tree."""

    name: str
    root: Path

    @property
    def path(self) -> Path:
        return self.root / "lib/explainers" / f"{self.name}.py"

    @property
    def group(self) -> str:
        """The chapter, or shared module, that it belongs to."""
        return self.name.lstrip("_").split("_")[0]

    @property
    def files(self) -> list[Path]:
        tests = self.root / "lib/tests"
        found = [path for path in sorted(tests.glob(f"test_{self.group}*.py")) if path.name not in OTHER_TESTS]
        return [*found, *(tests / name for name in MORE_TESTS.get(self.group, [])), self.path]

    @property
    def notebook(self) -> Path:
        return self.root / "chapters" / f"{NOTEBOOKS.get(self.group, self.group)}.ipynb"


def modules(root: Path, names: Iterable[str] = ()) -> list[Module]:
    """Return the modules to mutate, in the order of ``ORDER``; a name stands for all the modules of its group.

    Raises
    ------
    ValueError
        If a name belongs to no module.
    """
    found = [Module(path.stem, root) for path in sorted((root / "lib/explainers").glob("*.py"))]
    found = [module for module in found if module.group in ORDER and module.name not in SCRIPTS | PICTURES]
    names = set(names)
    if unknown := names - {module.name for module in found} - {module.group for module in found}:
        raise ValueError(f"no module or group {', '.join(sorted(unknown))}; there are {', '.join(ORDER)}")
    chosen = [module for module in found if not names or names & {module.name, module.group}]
    return sorted(chosen, key=lambda module: (ORDER.index(module.group), module.name.startswith("_"), module.name))


def mutants_of(module: Module) -> list[Mutant]:
    """Return the mutants of a module outside the functions that only record a study."""
    source = module.path.read_text(encoding="utf-8")
    names, tree = SCRIPT_FUNCTIONS.get(module.name, set()), ast.parse(source)
    skipped = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name in names]
    lines = {line for node in skipped for line in range(node.lineno, node.end_lineno + 1)}
    return [mutant for mutant in mutants(source) if mutant.line not in lines]


def sample(module: str, found: list[Mutant], size: int | None, draw: int = 0) -> list[Mutant]:
    """Return ``size`` of the mutants, the same ones as long as their lines read the same, in the order of the text.

    Another ``draw`` is another sample: tests written for the survivors of one are judged by the next.
    """
    if size is None or len(found) <= size:
        return found

    def digest(mutant: Mutant) -> bytes:
        return hashlib.sha256(repr((draw, module, mutant.before, mutant.after)).encode()).digest()

    chosen = set(sorted(found, key=digest)[:size])
    return [mutant for mutant in found if mutant in chosen]


# --- Unit tests ---------------------------------------------------------------------------------------------------


def try_tests(module: Module, chosen: list[Mutant], options: Options) -> list[Verdict]:
    """Run mutants of a module against its unit tests, first on the quick road, then on the thorough one."""
    if not chosen:
        return []
    say = options.say
    fate, answer, _ = engine.in_child(partial(_quickly, module, chosen), LONG)
    if fate != "done" or isinstance(answer, str):
        raise RuntimeError(f"{module.name}: the tests do not pass without a mutant: {fate}, {answer}")
    verdicts, seconds, packages = answer
    engine.warm(packages)
    limit = 3 * sum(seconds.values()) + 20
    for number, (mutant, verdict) in enumerate(zip(chosen, verdicts)):
        if verdict.state == "survived" and not (options.quick and (verdict.seconds or verdict.by == UNRUN)):
            with _standing(module.path, mutant.source):
                outcome = engine.in_child(partial(engine.run_all, module.files, seconds), limit)
            verdicts[number] = _judged(verdict, *outcome)
        if verdicts[number].state == "survived":
            say(f"  {module.name}:{mutant}")
    return verdicts


@contextlib.contextmanager
def _standing(path: Path, source: str) -> Iterator[None]:
    """Put a source into a file for a while."""
    original = path.read_bytes()
    path.write_text(source, encoding="utf-8")
    try:
        yield
    finally:
        path.write_bytes(original)


def _judged(verdict: Verdict, fate: str, failed: str | None, seconds: float) -> Verdict:
    if fate == "timeout":
        return replace(verdict, state="timeout", seconds=round(seconds, 2))
    caught = failed if fate == "done" else "the process died"
    state = "test" if caught else "survived"
    return replace(verdict, state=state, by=caught or "", seconds=round(verdict.seconds + seconds, 2))


def _quickly(module: Module, chosen: list[Mutant]) -> object:
    """In a fork: collect, trace, try each mutant that lies in a function. Return what :func:`try_tests` wants."""
    answer: list[object] = ["no test was collected"]

    def action(session: object) -> None:
        fate, traced, _ = engine.in_child(partial(engine.trace, session, module.path), LONG)
        if fate != "done" or traced[1]:
            answer[0] = f"{fate}: {traced and traced[1]}"
            return
        lines = traced[0]
        verdicts = [_quick(module, mutant, session, lines, tree, functions) for mutant in chosen]
        packages = [
            name for name in sys.modules if name.split(".")[0] not in ("explainers", "book", "tests", "conftest")
        ]
        answer[0] = verdicts, lines.seconds, [name for name in packages if not name.startswith(("test_", "__"))]

    tree = ast.parse(module.path.read_text(encoding="utf-8"))
    functions: dict = {}

    def collected(session: object) -> None:
        functions.update(engine.functions_of(module.path))
        action(session)

    engine.collect(module.files, collected)
    return answer[0]


def _quick(module, mutant, session, lines, tree, functions) -> Verdict:
    verdict = _unjudged(module, mutant)
    place = engine.place_of(tree, mutant)
    names = lines.of(place.lines)
    if place.function is None:
        return verdict
    if not names:
        return replace(verdict, by=UNRUN)

    def action() -> str | None:
        return engine.run_items(session, names) if engine.patch(functions, module.path, mutant) else UNPATCHED

    limit = 3 * sum(lines.seconds[name] for name in names) + 3
    fate, failed, seconds = engine.in_child(action, limit)
    return verdict if failed == UNPATCHED else _judged(verdict, fate, failed, seconds)


# --- Notebooks ----------------------------------------------------------------------------------------------------


def try_notebook(module: Module, mutant: Mutant, seconds: int) -> tuple[str, str]:
    """Run the module's notebook through nbval on a library with the mutant; return the state and what caught it."""
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        library = Path(folder) / "lib"
        shutil.copytree(module.root / "lib/explainers", library / "explainers")
        (library / "explainers" / module.path.name).write_text(mutant.source, encoding="utf-8")
        return nbval(module, library, seconds)


def nbval(module: Module, library: Path, seconds: int) -> tuple[str, str]:
    """Run the module's notebook on a library until a cell fails; return ``survived``, ``notebook`` or ``timeout``."""
    command = [
        sys.executable, "-m", "pytest", "--nbval", "--nbval-current-env", "-x", "-q", "--tb=no", "-rfE",
        f"--nbval-sanitize-with={module.root / 'lib/tests/nbval_sanitize.cfg'}", f"--nbval-cell-timeout={seconds}",
        "-p", "no:cacheprovider", "-p", "no:xdist", "-W", "ignore", f"--rootdir={module.root}", str(module.notebook),
    ]  # fmt: skip
    path = os.pathsep.join([str(library), str(module.root / "lib")])
    process = subprocess.Popen(
        command, env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip
    try:
        output, _ = process.communicate(timeout=4 * seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        process.communicate()
        return "timeout", f"{module.notebook.name} took more than {4 * seconds} s"
    failed = [line for line in output.splitlines() if line.startswith(("FAILED", "ERROR"))]
    if process.returncode == 0:
        return "survived", ""
    return "notebook", (failed or output.splitlines()[-1:] or ["died"])[0][:160]


# --- The whole ----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def snapshot(root: Path) -> Iterator[Path]:
    """Give a copy of the files that git knows or would take, in a folder that is removed in the end."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=root, check=True, capture_output=True, text=True
    ).stdout.split("\0")
    with tempfile.TemporaryDirectory(prefix="mutate-") as folder:
        copy = Path(folder).resolve() / "book"
        for name in filter(None, listed):
            if (root / name).is_file():
                (copy / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(root / name, copy / name)
        yield copy


def copy_of_cache(folder: Path) -> Path:
    """Copy what the corpus has stored, so that no mutant writes a false one where the user's next run would find it."""
    given = os.environ.get("EXPLAINERS_CACHE") or user_cache_dir("explainers")
    copy = folder / "cache"
    copy.mkdir()
    for path in Path(given).glob("docstrings-*"):
        shutil.copy2(path, copy / path.name)
    return copy


def read_equivalent(path: Path = EQUIVALENT) -> dict[tuple[str, str, str, str], str]:
    """Return the reason why a mutant changes nothing that one can observe.

    The keys are the module, the line before, the line after, and the function (or "", where the line tells enough).
    """
    entries = tomllib.loads(path.read_text(encoding="utf-8"))["equivalent"] if path.exists() else []
    return {
        (entry["module"], " ".join(entry["before"].split()), " ".join(entry["after"].split()), entry.get("within", "")):
        entry["reason"] for entry in entries
    }  # fmt: skip


def reason_of(module: str, mutant: Mutant, known: dict[tuple[str, str, str, str], str]) -> str | None:
    """Return why a mutant is known to be equivalent, or None."""
    key = (module, mutant.before, mutant.after)
    if (*key, "") in known:
        return known[*key, ""]
    if not any(entry[:3] == key for entry in known):
        return None
    function = engine.place_of(ast.parse(mutant.original), mutant).function
    return known.get((*key, function.name if function else ""))


def run(names: list[str], options: Options) -> dict[str, dict]:
    """Break the modules of the named groups, or of all; return the report."""
    with snapshot(ROOT) as root:
        sys.path.insert(0, str(root / "lib"))
        os.chdir(root / "lib")
        # Two mutants of one size within one second: compiled files would take one for the other.
        sys.dont_write_bytecode, os.environ["PYTHONDONTWRITEBYTECODE"] = True, "1"
        os.environ["EXPLAINERS_CACHE"] = str(copy_of_cache(root.parent))
        reports = {}
        for module in modules(root, names):
            found = mutants_of(module)
            if found and options.again:
                reports[module.name] = run_again(module, found, options)
            elif found:
                reports[module.name] = run_module(module, found, options)
            if module.name in reports and options.tests:
                save({module.name: reports[module.name]})
    return reports


def run_again(module: Module, found: list[Mutant], options: Options) -> dict:
    """Run what survived in the stored report once more; return the report with the new verdicts in their places.

    After a complete run, mutants that it did not know (of lines written since) are run, too, and verdicts on lines that
    are gone are dropped.

    Raises
    ------
    ValueError
        If no report of the module is stored.
    """
    if module.name not in (stored := load()):
        raise ValueError(f"{REPORT} has no report of {module.name}: run it without --again first")
    report = stored[module.name]
    old = [Verdict(**verdict) for verdict in report["verdicts"]]
    known = {(verdict.before, verdict.after) for verdict in old}
    wanted = {(verdict.before, verdict.after) for verdict in old if verdict.state == "survived"}
    if report["draw"] is None:
        present = {(mutant.before, mutant.after) for mutant in found}
        wanted |= present - known
        old = [verdict for verdict in old if (verdict.before, verdict.after) in present]
    again = run_module(module, [mutant for mutant in found if (mutant.before, mutant.after) in wanted], options)
    kept = [verdict for verdict in old if (verdict.before, verdict.after) not in wanted]
    verdicts = kept + [Verdict(**verdict) for verdict in again["verdicts"]]
    passes = again["notebook_run"] if again["notebook_run"] is not None else report["notebook_run"]
    return {**report, "possible": len(found), **_counted(verdicts), "notebook_run": passes}


def run_module(module: Module, found: list[Mutant], options: Options) -> dict:
    """Break one module; return the counts and the verdicts that are not simply caught by a test."""
    start, cpu = time.monotonic(), engine.now()
    known, say, seconds = read_equivalent(), options.say, options.seconds
    chosen = sample(module.name, found, options.size, options.draw)
    say(f"{module.name}: {len(chosen)} of {len(found)} mutants")
    trials = [mutant for mutant in chosen if reason_of(module.name, mutant, known) is None]
    verdicts = try_tests(module, trials, options) if options.tests else [_unjudged(module, m) for m in trials]
    passes = None
    if options.notebooks and module.notebook.exists() and any(verdict.state == "survived" for verdict in verdicts):
        state, by = nbval(module, module.root / "lib", seconds)
        passes = state == "survived"
        if not passes:
            say(f"  {module.notebook.name} does not pass without a mutant ({by}): no mutant is run on it")
        survivors = [mutant for mutant, verdict in zip(trials, verdicts) if verdict.state == "survived"]
        tried = set(sample(module.name, survivors, options.cap, options.draw)) if passes else set()
        for number, (mutant, verdict) in enumerate(zip(trials, verdicts)):
            if mutant in tried and verdict.state == "survived":
                state, by = try_notebook(module, mutant, seconds)
                verdicts[number] = replace(verdict, state=state, by=by or TRIED)
                say(f"  {module.name}:{mutant}\n    {state} {by}")
    for mutant in chosen:
        if reason := reason_of(module.name, mutant, known):
            verdicts.append(
                Verdict(module.name, mutant.line, mutant.operator, mutant.before, mutant.after, "equivalent", reason)
            )
    return {
        "possible": len(found),
        "draw": None if len(chosen) == len(found) else options.draw,
        "notebook_run": passes,
        "seconds": round(time.monotonic() - start),
        "cpu_seconds": round(engine.now() - cpu),
        **_counted(verdicts),
    }


def _unjudged(module: Module, mutant: Mutant) -> Verdict:
    return Verdict(module.name, mutant.line, mutant.operator, mutant.before, mutant.after, "survived")


def _counted(verdicts: list[Verdict]) -> dict:
    counts = Counter(verdict.state for verdict in verdicts)
    return {
        "mutants": len(verdicts),
        **{state: counts[state] for state in STATES},
        "score": score(counts),
        "verdicts": [asdict(verdict) for verdict in sorted(verdicts, key=lambda verdict: verdict.line)],
    }


def save(reports: dict[str, dict]) -> None:
    """Put reports into ``_build/mutation.json``, in the place of earlier ones of the same modules.

    Several runs may share the file: each waits for the other to have written.
    """
    target = ROOT / REPORT
    target.parent.mkdir(exist_ok=True)
    with target.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        target.write_text(json.dumps({**load(), **reports}, indent=1, ensure_ascii=False), encoding="utf-8")


def load() -> dict[str, dict]:
    """Return the stored reports, by module."""
    target = ROOT / REPORT
    return json.loads(target.read_text(encoding="utf-8")) if target.exists() else {}


def score(counts: dict[str, int]) -> float:
    """Return the share of the mutants that are not equivalent that was caught, in percent."""
    caught = sum(counts[state] for state in ("test", "notebook", "timeout"))
    return round(100 * caught / max(1, caught + counts["survived"]), 1)


def table(reports: dict[str, dict]) -> str:
    """Return the report as text: one line for each module and group, then the survivors."""
    heads = ("of", "mutants", "test", "notebook", "timeout", "equiv.", "survived", "score", "s")
    head = f"{'module':28}" + "".join(f"{word:>9}" for word in heads)
    lines = [head, "-" * len(head)]
    total: Counter = Counter()
    for name, report in reports.items():
        numbers = Counter({key: report[key] for key in ("possible", "mutants", *STATES, "seconds")})
        total += numbers
        lines.append(_row(name, numbers))
    lines += ["-" * len(head), _row("all", total), "", "survivors"]
    for name, report in reports.items():
        for verdict in report["verdicts"]:
            if verdict["state"] == "survived":
                lines.append(
                    f"{name}:{verdict['line']} {verdict['operator']}\n  - {verdict['before']}\n  + {verdict['after']}"
                )
    return "\n".join(lines)


def _row(name: str, counts: Counter) -> str:
    shown = [counts[key] for key in ("possible", "mutants", *STATES[:3], "equivalent", "survived")]
    return f"{name:28}" + "".join(f"{value:9}" for value in [*shown, score(counts), counts["seconds"]])


def main(arguments: list[str] | None = None) -> int:
    """Read the command line, run, print the table and write ``_build/mutation.json``."""
    parser = argparse.ArgumentParser(prog="python -m mutate library", description=__doc__.split("\n")[0])
    parser.add_argument("modules", nargs="*", help="modules, or chapters with all their modules (default: all)")
    parser.add_argument("--per-module", type=int, default=60, help="mutants drawn from each file (60)")
    parser.add_argument("--draw", type=int, default=0, help="another number draws another sample (0)")
    parser.add_argument("--all", action="store_true", help="every mutant")
    parser.add_argument("--again", action="store_true", help="only what survived in the stored report, or is new")
    parser.add_argument("--show", action="store_true", help="run nothing, print the stored report")
    parser.add_argument("--no-tests", action="store_true", help="notebooks only; the stored report stays as it is")
    parser.add_argument("--no-notebooks", action="store_true", help="unit tests only")
    parser.add_argument("--cap", type=int, help="how many survivors of a module meet the notebook (all)")
    parser.add_argument("--seconds", type=int, default=90, help="limit for a cell of a notebook (90)")
    parser.add_argument(
        "--quick", action="store_true", help="believe the tests that execute the line, without a fresh import"
    )
    given = parser.parse_args(arguments)
    screen = os.dup(2)

    def say(line: str) -> None:
        os.write(screen, f"{line}\n".encode())

    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = "1"
    size = None if given.all or given.again else given.per_module
    options = Options(size, not given.no_notebooks, given.quick, given.seconds, say, given.draw, given.again, given.cap,
                      not given.no_tests)  # fmt: skip
    if given.show:
        names = {module.name for module in modules(ROOT, given.modules)}
        reports = {name: report for name, report in load().items() if name in names}
    else:
        reports = run(given.modules, options)
    print(table(reports))
    drawn = "every mutant" if size is None else f"{size} mutants a module, draw {given.draw} by a hash of their lines"
    print(f"\n{'stored' if given.show else drawn}; details in {REPORT}")
    return 0
