"""Retrain a model, or rewrite its exports, or only its older checkpoint.

`python -m workloads.train text|image|embed [--steps N] [--export-only | --older-only]`.
"""

from __future__ import annotations

import argparse
import importlib

import torch

from workloads import weights
from workloads.train import publish


def main() -> None:
    """Train in one thread, so that a run repeats on the same machine."""
    parser = argparse.ArgumentParser(prog="python -m workloads.train", description=__doc__)
    parser.add_argument("model", choices=["text", "image", "embed"])
    parser.add_argument("--steps", type=int, help="optimiser steps; fewer for a trial")
    parser.add_argument("--export-only", action="store_true", help="keep the weights; rewrite graph, card and manifest")
    parser.add_argument(
        "--older-only", action="store_true", help="train up to the older checkpoint and write only that"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    module = importlib.import_module(f"workloads.train.{options.model}")
    folder = publish.folder(options.model)
    if options.export_only:
        return publish.publish(options.model)
    trained = module.train(*([options.steps] if options.steps else []), older_only=options.older_only)
    if not options.older_only:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "weights.safetensors").write_bytes(weights.dump(weights.layout(trained.final)))
        publish.publish(options.model)
    publish.write_older(options.model, trained)
    return None


if __name__ == "__main__":
    main()
