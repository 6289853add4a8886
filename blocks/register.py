"""Register every block type of this package: ``python -m blocks.register``."""

import importlib
import inspect
import pkgutil

from prefect.blocks.core import Block

import blocks


def block_types() -> list[type[Block]]:
    """Return the block classes that are defined in the modules of this package."""
    modules = [importlib.import_module(f"blocks.{module.name}") for module in pkgutil.iter_modules(blocks.__path__)]
    classes = {item for module in modules for _, item in inspect.getmembers(module, inspect.isclass)}
    found = [item for item in classes if issubclass(item, Block) and item.__module__.startswith("blocks.")]
    return sorted(found, key=lambda item: item.__name__)


def register() -> None:
    """Register the block types with the Prefect API that is configured."""
    for block_type in block_types():
        block_type.register_type_and_schema()
        print(f"registered {block_type.get_block_type_slug()}")


if __name__ == "__main__":
    register()
