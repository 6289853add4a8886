"""Options that a configuration may give to a builder's commands.

A configuration is kept, in results and in provenance. So an option names where a secret comes from, and never has it in itself.
"""

from collections.abc import Sequence
from itertools import zip_longest

FROM_ENVIRONMENT = "write {option}={variable} alone, which takes it from the environment of the run"
REMEDIES = {
    "--build-arg": f"{FROM_ENVIRONMENT}, or for a secret --secret=id=…,src=…",
    "--env": FROM_ENVIRONMENT,
}
SHORT = {"-e": "--env"}
CREDENTIALS = "--creds"


def check_options(options: Sequence[str]) -> None:
    """Refuse options that give a variable its value, or have a password.

    Raises:
        ValueError: with the option and the variable, and without the value.
    """
    for argument, following in zip_longest(options, options[1:], fillvalue=""):
        option, variable, has_value = _variable(argument, following)
        if has_value:
            remedy = REMEDIES[option].format(option=option, variable=variable)
            raise ValueError(f"{option} {variable} has its value in the configuration, which is kept; {remedy}")
        if argument.partition("=")[0] == CREDENTIALS:
            raise ValueError(
                f"{CREDENTIALS} has a password in the configuration, which is kept; log in before, or use --authfile"
            )


def _variable(argument: str, following: str) -> tuple[str, str, bool]:
    """Return the option and its variable, and whether that has its value here; none are empty texts."""
    option, _, stated = argument.partition("=")
    if argument in REMEDIES or argument in SHORT:
        stated = following
    elif argument.startswith("-e"):  # the value may follow a short option without anything between
        option, stated = "-e", argument.removeprefix("-e").removeprefix("=")
    option = SHORT.get(option, option)
    variable, is_equal, _ = stated.partition("=")
    return (option, variable, bool(is_equal)) if option in REMEDIES else ("", "", False)
