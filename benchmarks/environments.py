"""The environments that the drivers run in: the project's own, and one a group of libraries."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

CHECKOUT: Final = Path(__file__).resolve().parents[1]
FOLDER: Final = CHECKOUT / ".benchmarks"
REQUIREMENTS: Final = Path(__file__).parent / "requirements"
GROUPS: Final = ("agents", "llama_index")


class MissingEnvironmentError(Exception):
    """An environment has not been set up."""


def python_of(environment: str) -> Path:
    """Return the interpreter of an environment; MissingEnvironmentError if there is none."""
    if environment == "project":
        return Path(sys.executable)
    python = FOLDER / environment / "bin" / "python"
    if not python.exists():
        raise MissingEnvironmentError(
            f"the environment {environment} is missing; run: python -m benchmarks setup"
        )
    return python


def set_up(say: Callable[[str], None]) -> None:
    """Make each environment that is missing, and install exactly what its file names."""
    for group in GROUPS:
        home, requirements = FOLDER / group, REQUIREMENTS / f"{group}.txt"
        say(f"{group}: installing {requirements.relative_to(CHECKOUT)}")
        if not (home / "bin" / "python").exists():
            subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
        subprocess.run(
            [home / "bin" / "python", "-m", "pip", "install", "-q", "-r", str(requirements)],
            check=True,
        )


def versions(environment: str, names: tuple[str, ...]) -> dict[str, str]:
    """Return the versions of the packages *names* that an environment has."""
    script = (
        "import sys, importlib.metadata as m\n"
        "for name in sys.argv[1:]:\n"
        "    try: print(name, m.version(name))\n"
        "    except m.PackageNotFoundError: pass\n"
    )
    done = subprocess.run(
        [python_of(environment), "-c", script, *names], check=True, capture_output=True, text=True
    )
    return dict(line.split() for line in done.stdout.splitlines())
