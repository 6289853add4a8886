"""Register packages of an earlier run: what was made, validated and scored then is taken from the result storage."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from packhouse.packaging.registry import packaging_types
from packhouse.release import read_release
from tasks.package import package_all
from tasks.publish import publish_again


@flow(name="register-release", persist_result=True, result_serializer="json")
async def register_release(record: Path, packaging: Sequence[dict[str, Any]]) -> State[Any]:
    """Take packages of a release through their four steps once more, of which those that are done are cached.

    `record` is its ``release.json``, beside which packages are published. `packaging` has their settings with their ``type``.
    The result is the `Release` with what became of them.
    """
    release, output_dir = read_release(record), record.parent
    kinds = packaging_types()
    chosen = [kinds[settings["type"]].model_validate(settings) for settings in packaging]
    delivered = await package_all(release.job, chosen, output_dir)
    updated = publish_again(release.with_deliveries(delivered), delivered, output_dir)
    failures = [delivery.sentence for delivery in delivered if delivery.failure]
    return (Failed if failures else Completed)(message=". ".join(failures) or None, data=updated)
