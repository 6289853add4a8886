"""The text of a Dockerfile that installs what is in ``docker_content`` and serves the model there.

Any builder can follow it, BuildKit or not. Packages are installed in a stage of their own, so that the image has neither the
wheels nor pip's traces; modes are set, and nothing is compiled, so that the same content gives the same layers.
"""

import json
import re
from collections.abc import Mapping

from packhouse.packaging.docker.base_images import BaseImage, split_image

CONTENT_FOLDER, PACKAGES_FOLDER = "/opt/model", "/opt/packages"
PORT = 8080
USER = "10001:10001"
SERVE = ("python3", "-m", "inference_server")

INSTALL = "pip install --no-cache-dir --no-compile --no-deps --require-hashes"
TEXT = """\
# Serves the model {title} over HTTP with the Open Inference Protocol v2, on port {port}.
# {build}
FROM {base} AS install
COPY docker_content/ {content}/
RUN {mount}{install} \\
        {source} \\
        --target={packages} --requirement={content}/requirements.txt \\
    && rm -rf {content}/ONNXRuntimePackages \\
    && chmod -R u=rwX,go=rX {content} {packages}

FROM {base}
LABEL {labels}
ENV {environment}
COPY --from=install {packages} {packages}
COPY --from=install {content} {content}
WORKDIR {content}
USER {user}
EXPOSE {port}
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s CMD {check}
ENTRYPOINT {serve}
"""
CONTROL = re.compile(r"[\x00-\x1f\x7f]")
OFFLINE = "The wheels are in docker_content, so no network is needed: docker build --network=none --tag {tag} ."
ONLINE = "Packages come from pip's index, if need be of your pip.conf: docker build --secret id=pip.conf,src=… --tag {tag} ."


def dockerfile_text(title: str, tag: str, base: BaseImage, labels: Mapping[str, str], wheels: str | None) -> str:
    """Return the Dockerfile; `wheels` is the folder in ``docker_content`` that has them, without which pip gets them."""
    environment = {
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": f"{PACKAGES_FOLDER}:{CONTENT_FOLDER}/server",
        "PYTHONSAFEPATH": "1",
        "PYTHONUNBUFFERED": "1",
        **base.environment,
    }
    return TEXT.format(
        title=title,
        port=PORT,
        build=(OFFLINE if wheels else ONLINE).format(tag=tag),
        base=base.name,
        mount="" if wheels else "--mount=type=secret,id=pip.conf,target=/etc/pip.conf \\\n    ",
        install=INSTALL,
        source=f"--no-index --find-links={CONTENT_FOLDER}/{wheels}" if wheels else "--only-binary=:all:",
        packages=PACKAGES_FOLDER,
        content=CONTENT_FOLDER,
        labels=_assignments({**_base_labels(base.name), **labels}),
        environment=_assignments(environment),
        user=USER,
        check=json.dumps([*SERVE, "--check"]),
        serve=json.dumps(SERVE),
    )


def _base_labels(name: str) -> dict[str, str]:
    """Return the labels of the base image that the OCI image specification names."""
    _, _, digest = split_image(name)
    prefix = "org.opencontainers.image.base"
    return {f"{prefix}.name": name, **({f"{prefix}.digest": digest} if digest else {})}


def _assignments(values: Mapping[str, str]) -> str:
    """Return ``name="value"`` for each, on lines of their own; nothing in a value is expanded, or ends it."""
    return " \\\n    ".join(f"{name}={_quoted(value)}" for name, value in sorted(values.items()))


def _quoted(value: str) -> str:
    value = CONTROL.sub(" ", value)  # a line break would begin another instruction, and there is no way to write one
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$")
    return f'"{escaped}"'
