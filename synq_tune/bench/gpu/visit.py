"""One visit to a GPU, printed row by row."""

from __future__ import annotations

from pathlib import Path

import torch

from synq_tune import store
from synq_tune.bench.gpu.check import FULL, TINY, check
from synq_tune.bench.gpu.rows import plain, table
from synq_tune.errors import InputError


def gpu_check(dry_run: bool, minutes: float, json_file: Path | None) -> int:
    """Print what was found; 1 if a number is wrong or could not be had, else 0.

    Args:
        dry_run: go through every part on the CPU instead, at tiny sizes.
        minutes: after which no part begins, > 0.
        json_file: gets the rows as JSON, again after each of them.

    Raises:
        InputError: there is no GPU, or no time.
    """
    if minutes <= 0:
        raise InputError(f"`--minutes > 0` must hold, but got {minutes:g}.")
    if not dry_run and not torch.cuda.is_available():
        raise InputError("This machine has no GPU that torch can use. Try --dry-run.")
    device = torch.device("cpu" if dry_run else "cuda")
    place = "CPU, a dry run" if dry_run else torch.cuda.get_device_name(device)
    print(f"{place}, torch {torch.__version__}", flush=True)
    rows = []
    for row in check(device, TINY if dry_run else FULL, minutes):
        rows.append(row)
        print(" ".join(table([row])[1].split()), flush=True)
        if json_file is not None:  # a visit may end at any moment
            store.write_json(
                json_file, {"device": place, "torch": torch.__version__, "rows": plain(rows)}
            )
    print("", *table(rows), sep="\n")
    return int(any(not row.is_right for row in rows))
