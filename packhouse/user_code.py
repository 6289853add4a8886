"""Functions that users name in a configuration: ``package.module:function`` or ``path/to/file.py:function``."""

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from packhouse.errors import InputError

REMEDY = "write package.module:function or path/to/file.py:function"


def load_function(reference: str, where: str) -> Callable[..., Any]:
    """Return the function that `reference` names; `where` is the place in the configuration, for errors.

    Raises:
        InputError: the module or file cannot be imported, or has no such function.
    """
    module_name, _, name = reference.rpartition(":")
    if not module_name or not name:
        raise InputError.at(where, f"{reference!r} names no function", REMEDY)
    try:
        module = _load_file(Path(module_name)) if module_name.endswith(".py") else importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        raise InputError.at(where, f"{module_name} cannot be imported ({type(error).__name__}: {error})", REMEDY) from error
    function = getattr(module, name, None)
    if not callable(function):
        raise InputError.at(where, f"{module_name} has no function {name!r}", REMEDY)
    return function  # type: ignore[no-any-return]


def code_digest(reference: str) -> str:
    """Return a digest of a reference and of the source file behind it, where there is one."""
    name = reference.rpartition(":")[0]
    spec = None if name.endswith(".py") else importlib.util.find_spec(name)
    path = Path(spec.origin if spec and spec.origin else name)
    code = path.read_bytes() if path.is_file() else b""
    return hashlib.sha256(reference.encode() + b"\0" + code).hexdigest()


def _load_file(path: Path) -> Any:
    # Under a name of its own: no module of that stem is hidden, and what looks its module up, as dataclasses do, finds it.
    name = f"packhouse_user_code_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}"
    module = ModuleType(name)
    module.__file__ = str(path)
    sys.modules[name] = module
    try:
        # Compiled here, so that nothing is written beside the user's file, and nothing old is read from there.
        exec(compile(path.read_bytes(), str(path), "exec"), module.__dict__)  # noqa: S102
    except BaseException:
        del sys.modules[name]
        raise
    return module
