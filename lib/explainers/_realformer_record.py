"""The long runs of chapter realformer: ``python -m explainers._realformer_record FILE`` (ten minutes of one core).

They are stored with their settings, because a chapter has a minute. Runs that the file already holds are skipped.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from explainers import corpus, realformer
from explainers.transformer import causal_mask

PACKAGES = ("numpy", "scipy", "sklearn")
ALL = ["post", "sum", "pre", "mean", "deep"]
SETTINGS: dict[str, dict[str, Any]] = {
    "loss": {"variants": ALL, "seeds": 6, "steps": 150, "lr": 0.003, "warmup": 0, "text": "raw"},
    "no warm-up": {"variants": ALL[:3], "seeds": 5, "steps": 60, "lr": 0.01, "warmup": 0, "text": "raw"},
    "warm-up": {"variants": ALL[:3], "seeds": 5, "steps": 100, "lr": 0.01, "warmup": 50, "text": "raw"},
    "prose": {"variants": ALL, "seeds": 6, "steps": 150, "lr": 0.003, "warmup": 0, "text": "prose"},
}


def texts() -> dict[str, torch.Tensor]:
    """Return the symbols of whole docstrings ("raw"), and of their prose without code, lists and boilerplate."""
    docs = corpus.load_docstrings(PACKAGES)
    parts = {"raw": [doc.raw for doc in docs], "prose": docs.prose()}
    return {name: realformer.encode("\n\n".join(part)) for name, part in parts.items()}


def one(study: str, variant: str, seed: int, text: torch.Tensor) -> dict[str, Any]:
    """Train one model and return what is stored of it."""
    options = {name: SETTINGS[study][name] for name in ("steps", "lr", "warmup")}
    model, history = realformer.train(variant, seed, text, **options)
    batch = realformer.validation(realformer.halves(text)[1], 1)[0]
    found = realformer.probe(model, batch[:, :-1], batch[:, 1:], mask=causal_mask(realformer.WINDOW))
    return {
        "held_out": round(history.final, 4),
        "losses": [round(loss, 3) for loss in history.losses],
        "entropy": found.entropy.round(4).tolist(),
        "divergence": found.divergence.round(5).tolist(),
    }


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
                    record = {"packages": PACKAGES, "settings": SETTINGS, "torch": torch.__version__, "runs": runs}
                    path.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
