"""Reference pages of the guide, made from the code when the site is built (a hook of MkDocs)."""

import ast
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from pydantic import BaseModel
from typer.main import get_command

import nightshift
from nightshift.cli import app
from nightshift.config import Pipeline, Settings
from nightshift.config.quantization import RECIPES
from nightshift.config.upkeep import Upkeep

PACKAGE: Final = Path(nightshift.__file__).parent
MADE_AGAIN: Final = {  # by a section of the pipeline file: what a change of its settings makes again
    "preprocess": "the data set, and everything after it",
    "assemble": "the data set, and everything after it",
    "train": "the training and everything after it; the data set is found",
    "quantize": "the candidates and what is judged of them; checkpoints are found",
    "evaluate": "what is judged",
    "promotion": "what is judged",
    "retrain": "nothing; it decides whether a night trains",
    "predict": "nothing; it concerns images without labels",
}
ROOT_PAGES: Final = {
    "index.md": "README.md",
    "contributing.md": "CONTRIBUTING.md",
    "reporting.md": "SECURITY.md",
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    for name, page in PAGES.items():
        files.append(File.generated(config, f"reference/{name}.md", content=page()))
    root = Path(config.config_file_path).parent
    for path, source in ROOT_PAGES.items():
        files.append(
            File.generated(config, path, content=_of_root((root / source).read_text(encoding="utf-8")))
        )
    return files


def _of_root(text: str) -> str:
    """A page that lies above the guide: its links lead into it."""
    for path, source in ROOT_PAGES.items():
        text = text.replace(f"]({source}", f"]({path}")
    return text.replace("](docs/reference.py)", "](reference/settings.md)").replace("](docs/", "](")


def settings() -> str:
    """Every setting of a pipeline file and of `upkeep.toml`."""
    sections = {
        name: field.annotation
        for name, field in Pipeline.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, Settings)
    }
    parts = [
        "# Settings\n\nOf a pipeline file, `dags/pipelines/NAME.toml`. The form in Airflow and `--set` take "
        "those of a stage's section, with the same ranges.\n",
        "## The file itself\n",
        _table(Pipeline, without=set(sections)),
    ]
    for name, model in sections.items():
        parts += [f"## [{name}]\n", f"A change makes again: {MADE_AGAIN[name]}.\n", _table(model)]
    parts += ["## upkeep.toml\n", "How long things are kept; nothing is trained again.\n", _table(Upkeep)]
    return "\n".join(parts)


def _table(model: type[BaseModel], without: set[str] = frozenset()) -> str:  # type: ignore[assignment]
    rows = ["| setting | default | allowed | |", "|---|---|---|---|"]
    for name, schema in model.model_json_schema()["properties"].items():
        if name not in without:
            default = "the file's name" if name == "name" else f"`{_toml(schema['default'])}`"
            rows.append(
                f"| `{name}` | {default} | {_allowed(schema)} | {_cell(schema.get('description', ''))} |"
            )
    return "\n".join(rows) + "\n"


def _toml(value: Any) -> str:
    if value is None:
        return "none"
    return str(value).lower() if isinstance(value, bool) else repr(value).replace("'", '"')


def _allowed(schema: dict[str, Any]) -> str:
    """Allowed values of one field in words."""
    for variant in schema.get("anyOf", []):
        if variant.get("type") != "null":
            return f"{_allowed(variant)}, or empty"
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if schema.get("type") == "array":
        return f"a list of {_allowed(schema.get('items') or schema['prefixItems'][0])}"
    if schema.get("type") == "boolean":
        return "`true`, `false`"
    kind = {"integer": "whole numbers", "number": "numbers", "string": "text"}.get(
        schema.get("type", ""), "text"
    )
    words = {"exclusiveMinimum": "above", "minimum": "from", "exclusiveMaximum": "below", "maximum": "to"}
    limits = [f"{word} {schema[key]:g}" for key, word in words.items() if key in schema]
    if "maxLength" in schema:
        limits.append(f"of at most {schema['maxLength']} characters")
    return " ".join([kind, *limits])


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def cli() -> str:
    """Every command with its arguments and options."""
    parts = ["# Commands\n\nAn error is one sentence on stderr; the exit code is 1, 2 for wrong arguments.\n"]
    for name, command in get_command(app).commands.items():  # type: ignore[attr-defined]
        parts += [f"## nightshift {name}\n", f"{inspect.cleandoc(command.help or '').replace('<', '&lt;')}\n"]
        rows = [
            f"| `{', '.join((*of.opts, *of.secondary_opts))}` | {_default(of)} | {_cell(of.help or '')} |"
            for of in command.params
            if of.name != "help"
        ]
        if rows:
            parts.append("\n".join(["| | default | |", "|---|---|---|", *rows]) + "\n")
    return "\n".join(parts)


def _default(parameter: Any) -> str:
    if parameter.required:
        return "required"
    empty = parameter.default in (None, False, [], ())
    return "" if empty or callable(parameter.default) else f"`{parameter.default}`"


def http() -> str:
    """The endpoint's API, from what it answers at /openapi.json."""
    from nightshift.serving.app import create
    from nightshift.serving.loaded_model import Options
    from nightshift.serving.metrics import Metrics
    from nightshift.serving.model_watcher import ModelWatcher

    options, metrics = Options(), Metrics()
    schema = create(ModelWatcher("models:/NAME@champion", options, metrics), options, metrics).openapi()
    parts = [
        "# HTTP API\n\n`nightshift serve` answers these; `/docs` shows the same of a running endpoint.\n"
    ]
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            parts.append(f"## {method.upper()} {path}\n\n{operation['description']}\n")
            rows = [
                f"| {code} | {_cell(answer['description'])} |"
                for code, answer in operation["responses"].items()
            ]
            parts.append("\n".join(["| status | |", "|---|---|", *rows]) + "\n")
    return "\n".join(parts)


def python() -> str:
    """What another program imports."""
    from nightshift.inference.model import Model, Prediction

    parts = [
        "# Python API\n\nNeeds the extra `predict`; importing `nightshift` alone imports nothing else.\n"
    ]
    named: Sequence[tuple[str, Callable[..., Any]]] = (
        ("nightshift.load", nightshift.load),
        ("Model.predict", Model.predict),
        ("Prediction", Prediction),
    )
    for name, of in named:
        parts.append(f"## {name}\n\n{inspect.getdoc(of)}\n")
    return "\n".join(parts)


def recipes() -> str:
    """Every quantization recipe, by what its file says of itself."""
    folder = PACKAGE / "quantization" / "recipes"
    parts = [
        "# Recipes\n\nOf `quantize.recipes`; a file of that name in `quantization/recipes` is a recipe.\n"
    ]
    for name in RECIPES:
        said = ast.get_docstring(
            ast.parse((folder / f"{name.replace('-', '_')}.py").read_text(encoding="utf-8"))
        )
        parts.append(f"## {name}\n\n{said}\n")
    return "\n".join(parts)


PAGES: Final[dict[str, Callable[[], str]]] = {
    "settings": settings,
    "cli": cli,
    "http": http,
    "python": python,
    "recipes": recipes,
}
