"""Running a page's notebook in a fresh kernel, top to bottom, the same way everywhere."""

from __future__ import annotations

import copy
import os
import re
from pathlib import Path

from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpecManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from traitlets import default

CELL_SECONDS = 300
# One thread: the sum of a float array depends on how many there are.
THREADS = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
_ANSI = re.compile(r"\x1b\[[0-9;]*m")


class RunFailed(Exception):
    """A cell failed; ``notebook`` holds the outputs up to there, the message names cell and error."""

    def __init__(self, message: str, notebook: NotebookNode):
        super().__init__(message)
        self.notebook = notebook


class _ThisPython(AsyncKernelManager):
    """Starts the Python that runs this program, whatever kernels of that name are installed elsewhere."""

    @default("kernel_spec_manager")
    def _no_folders(self) -> KernelSpecManager:
        return KernelSpecManager(kernel_dirs=[])


def environment() -> dict[str, str]:
    """Return the environment of the kernels: this process's, with one thread for the numerical libraries."""
    return {**os.environ, **THREADS}


def execute(notebook: NotebookNode, folder: Path, name: str) -> NotebookNode:
    """Return a copy of the notebook with the outputs of a run whose working directory is ``folder``.

    Raises
    ------
    RunFailed
        With the cell and the error, if a cell fails, takes too long or kills its kernel.
    """
    notebook = copy.deepcopy(notebook)
    started: list[NotebookNode] = []
    client = NotebookClient(
        notebook,
        kernel_name="python3",
        kernel_manager_class=_ThisPython,
        timeout=CELL_SECONDS,
        record_timing=False,
        coalesce_streams=True,
        extra_arguments=["--IPKernelApp.log_level=40"],  # errors only: it warns of its own transport on every start
        resources={"metadata": {"path": str(folder)}},
        on_cell_execute=lambda cell, cell_index: started.append(cell),
    )
    try:
        client.execute(env=environment())
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        cell = started[-1] if started else None
        where = f"chapters/{name}.md: code cell {len(started)}"
        raise RunFailed(_describe_failure(where, cell, error), notebook) from None
    return notebook


def _describe_failure(where: str, cell: NotebookNode | None, error: Exception) -> str:
    source = "\n".join(f"    {line}" for line in cell.source.splitlines()) if cell else ""
    shown = [output for output in cell.outputs if output.output_type == "error"] if cell else []
    if not shown:  # the kernel died, or the cell took too long
        return f"{where}: {error}\n\nthe cell:\n{source}"
    traceback = _ANSI.sub("", "\n".join(shown[0].traceback[-2:]))
    return f"{where} failed with {shown[0].ename}: {shown[0].evalue}\n\nthe cell:\n{source}\n\nwhere:\n{traceback}"
