"""Best students as versions of one registered model per space, behind an alias.

The registered model of the space `digits_w3a3` is `synq-tune-digits_w3a3`; a registry is shared by
everyone on a server, so the prefix keeps its name apart from theirs. Its alias `best` names the
best student of the study of that space which finished last, whatever an earlier one reached: the
tags of the versions tell which is better. What is in production is for people to decide, under an
alias of their own (MLflow's documents call it `champion`), which nothing here touches.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow import MlflowClient

ALIAS = "best"
_WITHOUT = ("FEATURE_DISABLED", "ENDPOINT_NOT_FOUND", "NOT_IMPLEMENTED", "PERMISSION_DENIED")
"""How a store says that it has no registry, or none that we may write to."""
_THERE = ("RESOURCE_ALREADY_EXISTS", "ALREADY_EXISTS")


def registered_name(space: str) -> str:
    """The registered model of a space's studies."""
    return f"synq-tune-{space}"


def register(client: MlflowClient, name: str, model: Any, tags: dict[str, str]) -> str | None:
    """Make a logged model a version of the registered model `name`, and let the alias name it.

    A file that is a version already, by the tag `synq.sha256`, does not become another one.

    Args:
        client: of a store.
        name: see `registered_name`; made if it is new.
        model: MLflow's `LoggedModel`.
        tags: of a new version; `synq.sha256` of the model file is one of them.

    Returns:
        The version's number; None where the store has no registry for us.
    """
    from mlflow.exceptions import MlflowException

    try:
        return _register(client, name, model, tags)
    except MlflowException as error:
        if error.error_code in _WITHOUT:
            return None
        raise


def is_there(client: MlflowClient, model_uri: str, version: str | None) -> bool:
    """Whether nobody has deleted a logged model, `models:/ID`, nor its version, `NAME/VERSION`."""
    from mlflow.exceptions import MlflowException

    try:
        client.get_logged_model(model_uri.removeprefix("models:/"))
        if version is not None:
            client.get_model_version(*version.rsplit("/", 1))
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return False
        raise
    return True


def _register(client: MlflowClient, name: str, model: Any, tags: dict[str, str]) -> str:
    from mlflow.utils.mlflow_tags import MLFLOW_MODEL_VERSIONS

    version = _version_of(client, name, tags["synq.sha256"])
    if version is None:
        version = _create_version(client, name, model, tags)
    client.set_registered_model_alias(name, ALIAS, version)
    # What MLflow's pages link the model and its version by.
    link = json.dumps([{"name": name, "version": version}])
    client.set_logged_model_tags(model.model_id, {MLFLOW_MODEL_VERSIONS: link})
    return version


def _version_of(client: MlflowClient, name: str, sha256: str) -> str | None:
    """The newest version that is this file; sorted here, since a registry may hold numbers as
    text."""
    found = client.search_model_versions(f"name = '{name}' and tags.`synq.sha256` = '{sha256}'")
    numbers = sorted(int(version.version) for version in found)
    return str(numbers[-1]) if numbers else None


def _create_version(client: MlflowClient, name: str, model: Any, tags: dict[str, str]) -> str:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code not in _THERE:
            raise
    version = client.create_model_version(
        name,
        # The place itself: MLflow looks up `models:/ID` in whatever store the process uses by
        # default.
        model.artifact_location,
        model.source_run_id,
        tags,
        model_id=model.model_id,
    )
    return str(version.version)
