"""How packages are signed, as it is configured: where the key is, never the key itself; and what lies beside a package."""

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from packhouse.records import Record

# What lies beside a package, called like that with one of these at the end.
BESIDE = PROVENANCE_SUFFIX, ENVELOPE_SUFFIX, RUN_SUFFIX = ".provenance.json", ".intoto.json", ".run.json"


class SigningConfig(Record):
    """Sign every package with a private key, Ed25519 or ECDSA P-256, in PEM. Give one of the two places that it may lie in."""

    key_file: Path | None = Field(
        default=None,
        description="File with the key, on the machine where packages are published. "
        "The password of an encrypted one is read from the environment variable PACKHOUSE_KEY_PASSWORD.",
    )
    key_block: str | None = Field(
        default=None, description="Name of a Prefect Secret block with the key; it is loaded when packages are published."
    )

    @model_validator(mode="after")
    def _key_is_in_one_place(self) -> Self:
        if (self.key_file is None) == (self.key_block is None):
            found = (
                "neither key_file nor key_block is given" if self.key_file is None else "key_file and key_block are both given"
            )
            raise ValueError(f"{found}; give one of them")
        return self
