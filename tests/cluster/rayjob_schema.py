"""The fields of KubeRay's RayJob that we use, as a JSON schema; anything else is an error.

Taken from ray-operator/apis/ray/v1/rayjob_types.go and raycluster_types.go of KubeRay 1.4 (their
`json` tags and kubebuilder markers are what its CRD `rayjobs.ray.io` is generated from), and
`authOptions` from the API reference of KubeRay 1.5.1, which brought it. Pods are Kubernetes' core/v1.
"""

from __future__ import annotations

from typing import Any

API_VERSION, KIND = "ray.io/v1", "RayJob"


def _object(required: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    return {
        "type": "object", "properties": properties, "required": list(required),
        "additionalProperties": False,
    }  # fmt: skip


_TEXT = {"type": "string", "minLength": 1}
_COUNT = {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}
# A Go map[string]string: a number or a boolean without quotes is refused by the API server.
_STRINGS = {"type": "object", "additionalProperties": {"type": "string"}}
_QUANTITIES = {
    "type": "object",
    "additionalProperties": {
        "anyOf": [{"type": "integer"}, {"type": "string", "pattern": r"^[0-9.]+(m|[kMGT]i?)?$"}]
    },
}
_NAME = {"type": "string", "pattern": r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"}

_CONTAINER = _object(
    ("name", "image"),
    name=_NAME,
    image=_TEXT,
    resources=_object(requests=_QUANTITIES, limits=_QUANTITIES),
    volumeMounts={
        "type": "array",
        "items": _object(("name", "mountPath"), name=_NAME, mountPath=_TEXT),
    },
)
_POD = _object(
    ("containers",),
    securityContext=_object(fsGroup=_COUNT),
    terminationGracePeriodSeconds=_COUNT,
    containers={"type": "array", "items": _CONTAINER, "minItems": 1},
    volumes={
        "type": "array",
        "items": _object(
            ("name",),
            name=_NAME,
            persistentVolumeClaim=_object(("claimName",), claimName=_NAME),
        ),
    },
)
_TEMPLATE = _object(("spec",), spec=_POD)
_HEAD = _object(("rayStartParams", "template"), rayStartParams=_STRINGS, template=_TEMPLATE)
_WORKERS = _object(
    ("groupName", "minReplicas", "maxReplicas", "rayStartParams", "template"),
    groupName=_NAME,
    replicas=_COUNT,
    minReplicas=_COUNT,
    maxReplicas=_COUNT,
    rayStartParams=_STRINGS,
    template=_TEMPLATE,
)
_CLUSTER = _object(
    ("headGroupSpec",),
    rayVersion=_TEXT,
    authOptions=_object(mode={"enum": ["disabled", "token"]}),
    headGroupSpec=_HEAD,
    workerGroupSpecs={"type": "array", "items": _WORKERS},
)
SCHEMA = _object(
    ("apiVersion", "kind", "metadata", "spec"),
    apiVersion={"const": API_VERSION},
    kind={"const": KIND},
    metadata=_object(("name",), name={**_NAME, "maxLength": 47}),
    spec=_object(
        backoffLimit=_COUNT,
        shutdownAfterJobFinishes={"type": "boolean"},
        entrypoint=_TEXT,
        rayClusterSpec=_CLUSTER,
    ),
)
"""Of one RayJob document; KubeRay refuses names of more than 47 characters."""
