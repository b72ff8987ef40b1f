"""`docs/spaces.md`: what each bundled space is, costs, needs and has shown."""

from __future__ import annotations

import os.path
from collections.abc import Iterator

from synq_tune.cli.pages.note import head
from synq_tune.cli.spaces import bits_text, purpose
from synq_tune.config.cost import final_runs, most_updates, trial_updates
from synq_tune.config.load import SPACES_DIR, load_space, names_in
from synq_tune.config.measured import Measurement, measurements
from synq_tune.config.weights_source import weights_source
from synq_tune.text_table import markdown

_HEADS = (
    "space",
    "network",
    "bits",
    "quantizer",
    "images",
    "held out",
    "trials",
    "more runs",
    "updates of a run",
    "updates of a study",
    "measured",
)
_MEANING = """\
Each is a file in `search_spaces/`; `synq-tune search --space NAME` searches it.

- *bits*: W is the width of weights, A that of values (activations).
- *images*: synthetic images that trials train on; *held out*: those on which it is compared.
- *more runs*: the finalists with other seeds, and the paper's defaults in the final table.
- *updates*: steps of the optimizer. Those of a study are of all runs, if nothing is stopped early; a search
  stops most trials earlier.
- *measured*: what was measured of the space as it is, and where that stands. "Never run here" means that
  nothing is known of its accuracy.
"""


def spaces_page() -> str:
    """The page's text."""
    names, measured = names_in(SPACES_DIR), measurements()
    rows = (_row(name, measured[name]) for name in names)
    return "\n".join(
        [
            *head("Spaces", "search_spaces/*.yaml and search_spaces/tables/measured.yaml"),
            _MEANING,
            *markdown(_HEADS, rows),
            "",
            "## Where the weights come from",
            "",
            "A sum is of the checkpoint itself, not of an archive around it. `--weights FILE` takes a file "
            "instead, and its sum is compared, too.",
            "",
            *markdown(("network", "weights", "checksum"), _weights(names)),
            "",
            "## What each is for",
            "",
            *(f"- `{name}`: {purpose(name)}" for name in names),
            "",
        ]
    )


def _row(name: str, measured: Measurement | None) -> tuple[str, ...]:
    spec = load_space(name)
    synthesis, trials = spec.synthesis, spec.study.num_trials
    counts = (synthesis.num_images, synthesis.num_holdout, trials, final_runs(spec))
    numbers = (*counts, trial_updates(spec), most_updates(spec))
    what = (f"`{name}`", f"`{spec.teacher.model}`", bits_text(name), f"`{spec.quantizer}`")
    return (*what, *(f"{number:,}" for number in numbers), _link(measured))


def _link(measured: Measurement | None) -> str:
    if measured is None:
        return "never run here"
    return f"[{measured.what}]({os.path.relpath(measured.where, 'docs')})"


def _weights(names: list[str]) -> Iterator[tuple[str, str, str]]:
    """Each network once."""
    seen = set()
    for name in names:
        teacher = load_space(name).teacher
        source = weights_source(teacher)
        if (teacher.model, source) not in seen:
            seen.add((teacher.model, source))
            yield f"`{teacher.model}`", source.place, source.checksum or "not pinned"
