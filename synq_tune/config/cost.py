"""How much work a study is, counted from its settings alone."""

from __future__ import annotations

from synq_tune.config.spec import StudySpec


def steps_per_epoch(spec: StudySpec) -> int:
    """Updates of a trial in one epoch: one pass over the training part, unless it is said."""
    config = spec.finetune
    return config.steps_per_epoch or -(-spec.synthesis.num_images // config.batch_size)


def trial_updates(spec: StudySpec) -> int:
    """Updates of a trial that nothing stops."""
    return spec.finetune.epochs * steps_per_epoch(spec)


def reconstruction_images(spec: StudySpec) -> float:
    """Images that a trial's reconstruction shows to all parts, forward and backward, counted with
    repeats; of searched counts the mean."""
    config = spec.reconstruct
    if not config.is_on:
        return 0.0
    domain = spec.search.get("reconstruct.iterations")
    counts = domain.values if domain else (config.iterations,)
    most = config.num_images or spec.synthesis.num_images
    return sum(counts) / len(counts) * min(config.batch_size, most)


def final_runs(spec: StudySpec) -> int:
    """Trained runs after the search: the finalists' other seeds, and the ladder's defaults."""
    confirm = spec.study.confirm
    if not spec.is_trained:
        return 0
    return 1 + (confirm.top * (confirm.seeds - 1) if confirm else 0)


def most_updates(spec: StudySpec) -> int:
    """Updates of all runs of a study, if nothing stops a trial early."""
    trials = spec.study.num_trials if spec.is_trained else 1
    return (trials + final_runs(spec)) * trial_updates(spec)
