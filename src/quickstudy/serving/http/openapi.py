"""What OpenAPI says of bodies that are read by hand, as JSON or as a form with files (inputs.py)."""

from typing import Any, cast

from quickstudy.serving.http.bodies import FORM, Body

_FIELDS: dict[str, dict[str, Any]] = {
    "string": {"type": "string"},
    "strings": {"type": "array", "items": {"type": "string"}},
    "files": {"type": "array", "items": {"type": "string", "format": "binary"}},
}


def described(body: type[Body], **fields: str) -> dict[str, Any]:
    """Return a route's `openapi_extra` for a body of JSON.

    Args:
        fields: of the form that may be sent instead, each "string", "strings" or "files"; none: there is no form.
    """
    content: dict[str, Any] = {"application/json": {"schema": _inlined(body.model_json_schema())}}
    if fields:
        properties = {name: _FIELDS[what] for name, what in fields.items()}
        content[FORM] = {"schema": {"type": "object", "required": list(fields), "properties": properties}}
    return {"requestBody": {"required": True, "content": content}}


def _inlined(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a JSON schema without references, which in OpenAPI's document would lead nowhere."""
    parts = schema.pop("$defs", {})

    def resolved(node: Any) -> Any:
        if isinstance(node, list):
            return [resolved(one) for one in node]
        if not isinstance(node, dict):
            return node
        if "$ref" in node:
            return resolved(parts[node["$ref"].rpartition("/")[2]])
        return {name: resolved(one) for name, one in node.items()}

    return cast(dict[str, Any], resolved(schema))
