"""The machines of a cluster: what each runs, compared with the driver's before the first trial."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from synq_tune.errors import InputError

PATIENCE = 300.0
"""Seconds a machine has for its first process, which imports torch, perhaps from a slow disk."""

Facts = Mapping[str, str]
"""What runs on a machine, by name; see `environment_probe`."""

_SHOWN = 3


def environment_probe() -> Callable[[], dict[str, str]]:
    """A function that says what runs in the process that calls it.

    Ray sends what is defined within a function as code, not as a name: it also works on a machine
    that has another synq_tune, or none.

    Returns:
        () → {python, ray, torch, synq_tune, source, worker}: versions, or `none`; the start of a
        SHA-256 over the package's .py files, so that an older check-out under the same version
        differs; and `ready`, or why a trial's worker cannot be imported.
    """

    def look() -> dict[str, str]:
        import hashlib
        import importlib
        import platform
        from importlib import metadata, util
        from pathlib import Path

        found = {"python": platform.python_version()}
        for name in ("ray", "torch"):
            try:
                found[name] = metadata.version(name)
            except metadata.PackageNotFoundError:
                found[name] = "none"
        package = util.find_spec("synq_tune")
        if package is None or not package.submodule_search_locations:
            return {**found, "synq_tune": "none", "source": "none", "worker": "ready"}
        found["synq_tune"] = getattr(importlib.import_module("synq_tune"), "__version__", "none")
        digest, root = hashlib.sha256(), Path(next(iter(package.submodule_search_locations)))
        for path in sorted(root.rglob("*.py")):
            if path.relative_to(root).parts[0] == "search_spaces":
                continue  # no code of the package; a link in a source tree
            digest.update(f"{path.relative_to(root).as_posix()}\0".encode() + path.read_bytes())
        found["source"] = digest.hexdigest()[:12]
        try:
            importlib.import_module("synq_tune.search.worker")
            found["worker"] = "ready"
        except Exception as error:
            found["worker"] = f"{type(error).__name__}: {error}".splitlines()[0]
        return found

    return look


def differences(here: Facts, there: Facts) -> list[str]:
    """What another machine has that the driver's has not, in words; empty where nothing differs."""
    found = []
    for name in ("python", "ray", "torch", "synq_tune"):
        mine, other = _release(here[name]), _release(there.get(name, "none"))
        if mine != other:
            found.append(f"{name} {other} (here {mine})")
    if here["synq_tune"] == there.get("synq_tune") and here["source"] != there["source"]:
        found.append(f"synq_tune of other source {there['source']} (here {here['source']})")
    # What differs is the reason why the import fails, if something does.
    if not found and there["worker"] != "ready":
        found.append(f"a worker that cannot be imported ({there['worker']})")
    return found


def _release(version: str) -> str:
    """Without the build's name: a machine without a GPU may well have torch's CPU build."""
    return version.partition("+")[0]


def compare(here: Facts, machines: Mapping[str, Facts]) -> None:
    """Refuse a cluster whose machines do not run what the driver runs.

    Args:
        here: of the driver's process.
        machines: address → of a worker's process there.

    Raises:
        InputError: names each machine and what differs.
    """
    wrong = {address: differences(here, there) for address, there in machines.items()}
    told = [f"{address}: {', '.join(found)}" for address, found in wrong.items() if found]
    if told:
        more = f"; and {len(told) - _SHOWN} more" if len(told) > _SHOWN else ""
        raise InputError(
            "`every machine of the cluster runs what the driver runs` must hold, but got "
            f"{'; '.join(told[:_SHOWN])}{more}. Start them all from one image, or with the same "
            "check-out and requirements.lock."
        )


def check_nodes(patience: float = PATIENCE) -> None:
    """Ask every machine of the joined cluster what it runs; takes none of their CPUs.

    Args:
        patience: seconds that a machine has for its answer.

    Raises:
        InputError: see `compare`; or a machine does not answer.
    """
    look = environment_probe()
    task = ray.remote(num_cpus=0, max_retries=0)(look)
    asked = {}
    for node in ray.nodes():
        if node["Alive"]:
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            name = f"{node['NodeManagerAddress']} (node {node['NodeID'][:8]})"
            asked[name] = task.options(scheduling_strategy=there).remote()
    compare(look(), {address: _answer(address, ref, patience) for address, ref in asked.items()})


def check_this_machine(driver: Facts) -> None:
    """Compare this process with the driver's: a machine may have joined the cluster since it
    looked.

    Raises:
        InputError: see `compare`.
    """
    compare(driver, {ray.util.get_node_ip_address(): environment_probe()()})


def _answer(address: str, ref: ray.ObjectRef, patience: float) -> Facts:
    try:
        return ray.get(ref, timeout=patience)
    except GetTimeoutError:
        reason = f"no answer within {patience:.0f} s"
    except RayError as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
    raise InputError(
        f"`every machine of the cluster can start a worker` must hold, but got {address}: {reason}. "
        "Take it out of the cluster, or see Ray's logs there."
    )
