"""Contract tests for your own networks, CAM techniques, synthesis methods and recipes.

Plain functions that raise `AssertionError` with the promise that is broken; call them from any test
runner. Our own families pass the same checks.
"""

from synq_tune.testing.cams import check_cam
from synq_tune.testing.networks import check_network
from synq_tune.testing.recipes import check_recipe
from synq_tune.testing.synthesizers import check_synthesizer

__all__ = ["check_cam", "check_network", "check_recipe", "check_synthesizer"]
