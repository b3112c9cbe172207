"""Holds a conversation against a description of its API, in OpenAPI 3.0.

    published.py DESCRIPTION

A line of stdin is a call with its answer, as JSON. The answer is JSON: how many were looked at, and what is
wrong, a line for each.
"""

import json
import re
import sys
from urllib.parse import parse_qsl

import jsonschema


def plain(schema):
    """The same as JSON Schema, which has no `nullable`."""
    if isinstance(schema, list):
        return [plain(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    made = {name: plain(value) for name, value in schema.items() if name not in ("nullable", "example", "format")}
    if schema.get("nullable") is True:
        return {"anyOf": [{"type": "null"}, made]}
    return made


with open(sys.argv[1]) as file:
    described = json.load(file)
schemas = plain(described["components"]["schemas"])
paths = [
    (re.compile("/" + re.sub(r"\{\w+\}", r"\\d+", path.strip("/")) + "$"), methods)
    for path, methods in described["paths"].items()
]


def resolved(schema):
    while "$ref" in schema:
        schema = described["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
    return schema


def against(what, value, schema):
    whole = {**plain(schema), "components": {"schemas": schemas}}
    for error in jsonschema.Draft7Validator(whole).iter_errors(value):
        # The reason of an `anyOf` is one level below.
        reasons = [one.message[:200] for one in error.context] or [error.message[:200]]
        yield f"{what}: {'/'.join(map(str, error.absolute_path))}: {'; '.join(reasons)}"


def wrong_with(call):
    found = [methods for path, methods in paths if path.match(call["path"])]
    if not found:
        yield "no such path"
        return
    operation = found[0].get(call["method"].lower())
    if operation is None:
        yield "no such method"
        return
    parameters = {one["name"]: one for one in operation.get("parameters", []) if one["in"] == "query"}
    for name, value in parse_qsl(call["query"], keep_blank_values=True):
        if name not in parameters:
            yield f"query: {name} is not published"
            continue
        schema = parameters[name]["schema"]
        schema = schema["items"] if schema["type"] == "array" else schema
        value = int(value) if schema["type"] == "integer" else value
        yield from against(f"query: {name}", value, schema)
    body = operation.get("requestBody")
    if call["request"] is not None:
        if body is None:
            yield "request: there is none"
        else:
            schema = body["content"]["application/json"]["schema"]
            yield from against("request", call["request"], schema)
            for name in call["request"]:
                if name not in resolved(schema)["properties"]:
                    yield f"request: {name} is not published"
    elif body is not None and body.get("required"):
        yield "request: it is missing"
    status = str(call["status"])
    responses = operation["responses"]
    response = responses.get(status) or responses.get(status[0] + "xx")
    if response is None:
        yield f"no such status, {status}"
    elif "content" in response:
        yield from against("answer", call["answer"], response["content"]["application/json"]["schema"])
    elif call["answer"] is not None:
        yield "answer: there is none"


looked_at = 0
wrong = []
for line in sys.stdin:
    call = json.loads(line)
    looked_at += 1
    wrong += [f"{call['method']} {call['path']}: {reason}" for reason in wrong_with(call)]
print(json.dumps({"looked_at": looked_at, "wrong": wrong}))
