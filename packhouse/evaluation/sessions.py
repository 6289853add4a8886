"""What a worker is asked for to create a session: the same for candidates and for the probe of an accelerator."""

from pathlib import Path
from typing import Any

from packhouse.accelerators import Accelerator, InferenceSettings


def session_arguments(accelerator: Accelerator, settings: InferenceSettings, model: Path) -> dict[str, Any]:
    """Return the arguments of the worker's ``create_session`` for a model with settings of its own."""
    session = accelerator.session_for(settings)
    return {
        "model": str(model),
        "provider": session.execution_provider,
        "provider_options": session.provider_options,
        "session_options": session.session_options.model_dump(exclude_none=True),
        "dimensions": accelerator.dimensions,
        "plugin": accelerator.plugin,
        "device": accelerator.device,
    }
