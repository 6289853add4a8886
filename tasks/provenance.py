"""Put the provenance of published packages beside them, signed where that is configured."""

from prefect.blocks.system import Secret
from prefect.context import FlowRunContext

from packhouse.config import PackhouseConfig
from packhouse.errors import InputError
from packhouse.output import OutputFolder
from packhouse.provenance.config import ENVELOPE_SUFFIX, PROVENANCE_SUFFIX, SigningConfig
from packhouse.provenance.keys import SigningKey, parse_signing_key, read_signing_key
from packhouse.provenance.signing import sign_payload
from packhouse.provenance.statement import Run, configuration_digest, provenance
from packhouse.release import Release


def signing_key(config: SigningConfig | None) -> tuple[SigningKey | None, str | None]:
    """Return the key to sign with, or why there is none though there should be.

    It is used by the task that loads it, and never returned by one, which would store it.
    """
    try:
        return (_load(config) if config else None), None
    except InputError as error:
        return None, f"the packages are not signed: {error}"


def require_signing_key(config: SigningConfig | None) -> None:
    """Raise InputError where there is no key to sign with though there should be, so that no work is done for nothing."""
    if config:
        _load(config)


def write_provenance(release: Release, config: PackhouseConfig, folder: OutputFolder, key: SigningKey | None) -> None:
    """Write the provenance of every package into the folder that it is in, signed if there is a key.

    A signature of earlier is removed first, so that there is never one of something else.
    """
    packagings = {packaging.output_name: packaging for packaging in config.packaging}
    context = FlowRunContext.get()
    run = Run(
        flow_run=release.flow_run,
        started_on=context.start_time.isoformat(timespec="seconds") if context else None,
        finished_on=release.created_at,
    )
    for package in release.packages:
        statement = provenance(package, packagings[package.name], configuration_digest(config), release.job, run).to_json()
        folder.remove(package.name + ENVELOPE_SUFFIX)
        folder.write(package.name + PROVENANCE_SUFFIX, statement)
        if key:
            folder.write(package.name + ENVELOPE_SUFFIX, sign_payload(statement, key).to_json())


def _load(config: SigningConfig) -> SigningKey:
    """Return the key in the file or the block. Raises InputError where there is none, or it cannot be used."""
    if config.key_file:
        return read_signing_key(config.key_file, f"signing.key_file = {config.key_file}")
    where = f"signing.key_block = {config.key_block}"
    try:
        secret = Secret.load(f"{config.key_block}", _sync=True)  # type: ignore[call-arg]
    except ValueError as error:
        raise InputError.at(where, "there is no Prefect Secret block of this name", "make one in Prefect's UI") from error
    pem = secret.get()  # type: ignore[union-attr]
    if not isinstance(pem, str):
        raise InputError.at(where, "is no text", "put the private key in PEM into the block, as a text")
    return parse_signing_key(pem.encode(), where)
