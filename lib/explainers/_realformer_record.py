"""The long runs of chapter realformer: ``python -m explainers._realformer_record FILE`` (twenty minutes of one core).

They are stored with their settings, because a chapter has a minute. Runs that the file already holds are skipped.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from explainers import corpus, realformer, training
from explainers.transformer import causal_mask

PACKAGES = ("numpy", "scipy", "sklearn")
ALL = ["post", "sum", "pre", "mean", "deep"]
USUAL = {"seeds": 6, "steps": 150, "lr": 0.003, "warmup": 0, "text": "raw"}
SETTINGS: dict[str, dict[str, Any]] = {
    "loss": USUAL | {"variants": ALL},
    "no warm-up": {"variants": ALL, "seeds": 5, "steps": 60, "lr": 0.01, "warmup": 0, "text": "raw"},
    "warm-up": {"variants": ALL, "seeds": 5, "steps": 100, "lr": 0.01, "warmup": 50, "text": "raw"},
    "prose": USUAL | {"variants": ALL, "text": "prose"},
    "long": USUAL | {"variants": ALL[:3], "seeds": 5, "steps": 600},
    "scores times 3": USUAL | {"variants": ["post"], "heat": 3},
    "scores times 6": USUAL | {"variants": ["post"], "heat": 6},
}
REARRANGED = {"swapped": realformer.swapped, "paired": realformer.paired}  # of study loss, post- and pre-norm


def texts() -> dict[str, torch.Tensor]:
    """Return the symbols of whole docstrings ("raw"), and of their prose without code, lists and boilerplate."""
    docs = corpus.load_docstrings(PACKAGES)
    parts = {"raw": [doc.raw for doc in docs], "prose": docs.prose()}
    return {name: realformer.encode("\n\n".join(part)) for name, part in parts.items()}


def one(study: str, variant: str, seed: int, text: torch.Tensor) -> dict[str, Any]:
    """Train one model and return what is stored of it."""
    options = {name: SETTINGS[study][name] for name in ("steps", "lr", "warmup", "heat") if name in SETTINGS[study]}
    model, history = realformer.train(variant, seed, text, **options)
    held_out = realformer.validation(realformer.halves(text)[1])
    found = realformer.probe(model, held_out[0][:, :-1], held_out[0][:, 1:], mask=causal_mask(realformer.WINDOW))
    stored = {
        "held_out": round(history.final, 4),
        "losses": [round(loss, 3) for loss in history.losses],
        "entropy": found.entropy.round(4).tolist(),
        "divergence": found.divergence.round(5).tolist(),
    }
    if study == "loss" and variant in ("post", "pre"):
        evaluate = training.mean_loss(realformer.next_symbol_loss, held_out)
        stored["rms"] = found.rms.round(4).tolist()
        stored |= {name: round(evaluate(change(model).eval()), 4) for name, change in REARRANGED.items()}
    return stored


def main() -> None:
    """Fill the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    path = parser.parse_args().file
    runs = json.loads(path.read_text())["runs"] if path.exists() else {}
    torch.set_num_threads(1)
    known = texts()
    for study, setting in SETTINGS.items():
        for seed in range(setting["seeds"]):
            for variant in setting["variants"]:
                key = f"{study}/{variant}/{seed}"
                if key not in runs:
                    runs[key] = one(study, variant, seed, known[setting["text"]])
                    path.write_text(_text(runs))


def _text(runs: dict[str, dict[str, Any]]) -> str:
    """Return the file as JSON, one line a run."""
    head = {"packages": PACKAGES, "settings": SETTINGS, "torch": torch.__version__}
    lines = ",\n".join(f" {json.dumps(key)}: {json.dumps(run)}" for key, run in runs.items())
    return f'{json.dumps(head)[:-1]},\n"runs": {{\n{lines}\n}}}}\n'


if __name__ == "__main__":
    main()
