"""The base of everything that is configured, stored or crosses a task, and the digests made of it."""

import hashlib
import json
from typing import Any

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema


class Record(BaseModel):
    """A frozen model that refuses unknown keys and has a digest of its content."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    @property
    def content_digest(self) -> str:
        """SHA-256 (hex) of the record's canonical JSON: equal content, equal digest."""
        return digest_of(self.model_dump(mode="json"))


def canonical_json(value: Any) -> bytes:
    """Return UTF-8 JSON with sorted keys and no white space; NaN and infinity raise ValueError."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


def digest_of(value: Any) -> str:
    """Return the SHA-256 (hex) of a JSON value's canonical form."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


class AnyOfSchema:
    """Marks a discriminated union so that its JSON schema says ``anyOf``.

    Forms made from the schema, Prefect's among them, can switch between the members of an ``anyOf``, not of a ``oneOf``
    with a discriminator; validation still goes by the discriminator.
    """

    def __get_pydantic_json_schema__(self, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Rewrite ``oneOf`` as ``anyOf``."""
        schema = handler.resolve_ref_schema(handler(core_schema))
        if "oneOf" in schema:
            schema["anyOf"] = schema.pop("oneOf")
            schema.pop("discriminator", None)
        return schema
