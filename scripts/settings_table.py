"""Writes the README's tables of settings anew, from the settings themselves."""

import importlib
import re
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def row(prefix: str, name: str, default: object, description: str) -> str:
    """Write one setting as a row."""
    if isinstance(default, tuple):
        default = ",".join(default)
    if isinstance(default, dict):
        default = ",".join(f"{key}={value}" for key, value in default.items())
    if isinstance(default, float):
        default = f"{default:g}"
    if isinstance(default, bool):
        default = str(default).lower()
    if isinstance(default, int) and default >= 1 << 20:
        default = f"{default >> 20}MiB"
    return f"| `{prefix}{name.upper()}` | {f'`{default}`' if default not in {None, ''} else ''} | {description} |"


def table(service: str) -> str:
    """Write a service's settings as a table."""
    settings = importlib.import_module(f"{service}.settings")
    fields = settings.Settings.model_fields.items()
    rows = [row(settings.Settings.prefix, name, field.default, field.description) for name, field in fields]
    return "\n".join([f"| {service} | default | |", "|---|---|---|", *rows])


def main() -> None:
    """Replace the tables."""
    text = README.read_text()
    for service in ("engine_service", "edge_gateway"):
        text = re.sub(
            rf"\| {service} \| default \|.*?\n\n+", lambda _, s=service: table(s) + "\n\n", text, flags=re.DOTALL
        )
    README.write_text(text)


if __name__ == "__main__":
    main()
