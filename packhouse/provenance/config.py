"""How packages are signed and published, as it is configured: where the key is, never the key itself; what lies beside them."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import Field, field_validator, model_validator

from packhouse.records import Record

# What lies beside a package, called like that with one of these at the end.
BESIDE = PROVENANCE_SUFFIX, ENVELOPE_SUFFIX, RUN_SUFFIX = ".provenance.json", ".intoto.json", ".run.json"
BLOCK_NAME = re.compile(r"^[a-z0-9][a-z0-9-]{0,254}$")
WITHHELD = "**********"


class SigningConfig(Record):
    """Sign every package with a private key, Ed25519 or ECDSA P-256, in PEM. Give one of the two places that it may lie in."""

    key_file: Path | None = Field(
        default=None,
        description="File with the key, on the machine where packages are published. "
        "The password of an encrypted one is read from the environment variable PACKHOUSE_KEY_PASSWORD.",
    )
    key_block: str | None = Field(
        default=None,
        description="Name of a Prefect Secret block with the key; it is loaded when packages are published.",
        json_schema_extra={"pattern": BLOCK_NAME.pattern},
    )

    @model_validator(mode="before")
    @classmethod
    def _keys_are_withheld(cls, value: Any) -> Any:
        """Replace what may be the key itself, put here by mistake, before any error can quote it."""
        if isinstance(value, cls):
            return value
        if not isinstance(value, Mapping):
            return WITHHELD
        return {name: item if item is None or _may_be_shown(name, item) else WITHHELD for name, item in value.items()}

    @field_validator("key_block")
    @classmethod
    def _block_has_a_name(cls, value: str | None) -> str | None:
        if value == WITHHELD:
            raise ValueError("is no name of a Prefect block; give one, of lowercase letters, digits and dashes, never the key")
        return value

    @field_validator("key_file")
    @classmethod
    def _file_has_a_path(cls, value: Path | None) -> Path | None:
        if value == Path(WITHHELD):
            raise ValueError("is a key, not the path of a file with one; put the key into a file, and give its path")
        return value

    @model_validator(mode="after")
    def _key_is_in_one_place(self) -> Self:
        if (self.key_file is None) == (self.key_block is None):
            found = (
                "neither key_file nor key_block is given" if self.key_file is None else "key_file and key_block are both given"
            )
            raise ValueError(f"{found}; give one of them")
        return self


class Publishing(Record):
    """Where a run publishes, and what goes for the provenance of all its packages.

    `configuration` is the SHA-256 (hex) of the configuration that the candidates were graded by.
    """

    output_dir: Path
    configuration: str
    signing: SigningConfig | None = None


def _may_be_shown(name: str, value: Any) -> bool:
    """Whether a setting is what it should be, so that it is no key."""
    if name == "key_block":
        return isinstance(value, str) and BLOCK_NAME.fullmatch(value) is not None
    text = str(value)
    return name == "key_file" and isinstance(value, str | Path) and "\n" not in text and "PRIVATE KEY" not in text
