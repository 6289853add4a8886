"""What a scoring script has to be, as far as that can be seen without running it."""

import symtable
from collections.abc import Iterator
from pathlib import Path

from packhouse.errors import Problem

ENTRY_POINTS = ("init", "run")
STAR = "import *"


def problems_of(script: Path) -> Iterator[Problem]:
    """Say why a file is no scoring script; `where` is the key that names it."""
    try:
        source = script.read_text(encoding="utf-8")
        table = symtable.symtable(source, str(script), "exec")
    except OSError as error:
        yield Problem("scoring_script", f"{script} cannot be read ({error.strerror})", "name a file in code_folder")
        return
    except (SyntaxError, ValueError) as error:
        yield Problem("scoring_script", f"{script} is no Python: {error}", "mend it")
        return
    defined = {symbol.get_name() for symbol in table.get_symbols() if symbol.is_assigned() or symbol.is_imported()}
    for name in ENTRY_POINTS:
        if name not in defined and STAR not in source:
            remedy = "Azure ML calls init() once, and run() with data"
            yield Problem("scoring_script", f"{script} defines no {name}()", remedy)
