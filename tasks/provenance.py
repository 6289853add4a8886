"""The provenance of packages, signed where that is configured: what goes beside them when they are registered."""

from prefect.blocks.system import Secret
from prefect.context import FlowRunContext
from prefect.runtime import flow_run

from packhouse.config import PackhouseConfig
from packhouse.errors import InputError
from packhouse.packaging import Packaging, PackagingJob
from packhouse.provenance.config import ENVELOPE_SUFFIX, PROVENANCE_SUFFIX, Publishing, SigningConfig
from packhouse.provenance.keys import SigningKey, parse_signing_key, read_signing_key
from packhouse.provenance.signing import sign_payload
from packhouse.provenance.statement import Run, configuration_digest, provenance
from packhouse.release import Package


def publishing_of(config: PackhouseConfig) -> Publishing:
    """Return where and as what a run of a configuration publishes its packages."""
    return Publishing(output_dir=config.output_dir, configuration=configuration_digest(config), signing=config.signing)


def signing_key(config: SigningConfig | None) -> SigningKey | None:
    """Return the key in the file or the block; None where nothing is to be signed.

    It is used by the task that loads it, and never returned by one, which would store it.

    Raises:
        InputError: there is none, or it cannot be used.
    """
    if config is None:
        return None
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


def require_signing_key(config: SigningConfig | None) -> None:
    """Raise InputError where there is no key to sign with though there should be, so that no work is done for nothing."""
    signing_key(config)


def provenance_beside(
    package: Package,
    packaging: Packaging,
    job: PackagingJob,
    configuration: str,
    *,
    key: SigningKey | None,
    finished_at: str,
) -> dict[str, bytes]:
    """Return the files with the provenance of a package that this flow run registers, and if there is a key, its signature."""
    context = FlowRunContext.get()
    started_at = context.start_time.isoformat(timespec="seconds") if context else None
    run = Run(flow_run=flow_run.id, started_on=started_at, finished_on=finished_at)
    statement = provenance(package, packaging, configuration, job, run).to_json()
    files = {package.name + PROVENANCE_SUFFIX: statement}
    if key:
        files[package.name + ENVELOPE_SUFFIX] = sign_payload(statement, key).to_json()
    return files
