"""The key that packages are signed with, from where the configuration says that it lies."""

from prefect.blocks.system import Secret

from packhouse.errors import InputError
from packhouse.provenance.config import SigningConfig
from packhouse.provenance.keys import SigningKey, parse_signing_key, read_signing_key


def load_signing_key(config: SigningConfig) -> SigningKey:
    """Return the key in the file or the block; it is never to be returned by a task, which would store it.

    Raises:
        InputError: there is none, or it cannot be used.
    """
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
