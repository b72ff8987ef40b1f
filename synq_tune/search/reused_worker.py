"""What Tune asks of a worker process that takes run after run; imports no torch."""

from __future__ import annotations

from typing import Any

from ray import tune


class ReusedWorker(tune.Trainable):
    """A worker whose runs leave nothing behind: the ledger is the only state."""

    def take(self, run: dict[str, Any]) -> None:
        """Take a run.

        Args:
            run: {key, kind, params, seed, epoch, state}.
        """
        raise NotImplementedError

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Start another run in this process."""
        self.take(new_config["run"])
        return True

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any]:
        """Nothing: the ledger is the only state (Tune insists on the method)."""
        return {}

    def load_checkpoint(self, checkpoint: dict[str, Any] | None) -> None:
        """Nothing, see `save_checkpoint`."""
