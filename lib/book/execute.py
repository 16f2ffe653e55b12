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

from book.pages import code_cells

CELL_SECONDS = 300
# One thread: the sum of a float array depends on how many there are.
THREADS = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
_ANSI = re.compile(r"\x1b\[[0-9;]*m")


class RunFailed(Exception):
    """A cell failed; ``notebook`` holds the outputs up to there, the message names cell and error."""

    def __init__(self, message: str, notebook: NotebookNode):
        super().__init__(message)
        self.notebook = notebook


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
    # Without kernel folders the spec is ipykernel's own: the Python that runs this program.
    kernel = AsyncKernelManager(kernel_name="python3", kernel_spec_manager=KernelSpecManager(kernel_dirs=[]))
    client = NotebookClient(
        notebook,
        km=kernel,
        timeout=CELL_SECONDS,
        record_timing=False,
        coalesce_streams=True,
        extra_arguments=["--IPKernelApp.log_level=40"],  # errors only: it warns of its own transport on every start
        resources={"metadata": {"path": str(folder)}},
    )
    try:
        client.execute(env=environment())
    except CellExecutionError as error:
        raise RunFailed(_describe_failure(notebook, name, error), notebook) from None
    except (CellTimeoutError, DeadKernelError) as error:
        cell = len([cell for cell in code_cells(notebook) if cell.execution_count]) + 1
        raise RunFailed(f"chapters/{name}.md: code cell {cell}: {error}", notebook) from None
    return notebook


def _describe_failure(notebook: NotebookNode, name: str, error: CellExecutionError) -> str:
    for number, cell in enumerate(code_cells(notebook), 1):
        errors = [output for output in cell.outputs if output.output_type == "error"]
        if errors:
            source = "\n".join(f"    {line}" for line in cell.source.splitlines())
            traceback = _ANSI.sub("", "\n".join(errors[0].traceback[-2:]))
            headline = f"chapters/{name}.md: code cell {number} failed with {errors[0].ename}: {errors[0].evalue}"
            return f"{headline}\n\nthe cell:\n{source}\n\nwhere:\n{traceback}"
    return f"chapters/{name}.md: {error}"
