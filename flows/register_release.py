"""Register packages of an earlier run: what was made, validated and scored then is taken from the result storage."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from packhouse.packaging.registry import packaging_types
from packhouse.provenance.config import Publishing, SigningConfig
from packhouse.release import read_release
from tasks.package import package_all, require_sources
from tasks.provenance import require_signing_key
from tasks.publish import publish_again
from tasks.storage import artifact_store


@flow(name="register-release", persist_result=True, result_serializer="json")
async def register_release(
    record: Path, packaging: Sequence[dict[str, Any]], signing: SigningConfig | None = None
) -> State[Any]:
    """Take packages of a release through their four steps once more, of which those that are done are cached.

    `record` is its ``release.json``, beside which packages are published. `packaging` has their settings with their ``type``.
    They are signed as the release was, or as `signing` says. The result is the `Release` with what became of them.
    """
    release, kinds = read_release(record), packaging_types()
    publishing = Publishing(output_dir=record.parent, configuration=release.configuration, signing=signing or release.signing)
    require_signing_key(publishing.signing)
    chosen = [kinds[settings["type"]].model_validate(settings) for settings in packaging]
    known = {delivery.name: delivery.package for delivery in release.deliveries}
    require_sources(release.job, [known.get(item.output_name) for item in chosen], artifact_store())
    delivered = await package_all(release.job, chosen, publishing)
    updated = publish_again(release, delivered, record.parent)
    failures = [delivery.sentence for delivery in delivered if delivery.failure]
    return (Failed if failures else Completed)(message=". ".join(failures) or None, data=updated)
