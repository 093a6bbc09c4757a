"""README and guide tell the truth: their commands exist, their links lead somewhere, the tree is the tree."""

import re
import tomllib
from pathlib import Path

import pytest
from typer.main import get_command

from nightshift.cli import app
from nightshift.data.sources.preview import EXTENSIONS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {path: path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("*.md")}
GUIDE = "\n".join((README, *PAGES.values()))


def test_every_nightshift_command_exists_with_its_options():
    verbs = get_command(app).commands
    lines = re.findall(r"(?m)(?:^|`)nightshift ([a-z]+)([^`\n]*)", GUIDE)
    assert len(lines) >= 40
    for verb, rest in lines:
        assert verb in verbs, verb
        known = {option for parameter in verbs[verb].params for option in parameter.opts}
        assert set(re.findall(r"--[a-z-]+", rest)) <= known, (verb, rest)


def test_every_make_target_exists():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"(?m)^([a-z]+):", makefile))
    named = set(re.findall(r"(?:`|^)make ([a-z]+)", GUIDE, flags=re.M))
    assert {"demo", "test", "lint", "bench", "down"} <= named <= targets


def test_ci_runs_what_the_readme_tells():
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert set(re.findall(r"(?m)^make ([a-z]+)", script)) == {"test", "lint"}


def test_the_annotated_tree_is_the_tree():
    section = README.split("## The tree")[1].split("```")[1]
    top, parent = set(), ""
    for line in section.strip().splitlines():
        name = line.split(" ")[0].rstrip("/") or line.split("/")[0]
        if line.startswith("  "):
            assert (ROOT / parent / name.strip()).is_dir(), line
        else:
            parent = name
            top.add(name.split("/")[0])
    hidden = {path.name for path in ROOT.iterdir() if path.is_dir() and path.name.startswith((".", "_"))}
    built = {path.name for path in ROOT.iterdir() if path.name.endswith(".egg-info") or path.name == "build"}
    assert top == {path.name for path in ROOT.iterdir() if path.is_dir()} - hidden - built


@pytest.mark.parametrize(("page", "columns"), [("security", 4), ("images", 3)])
def test_what_a_table_claims_is_tested(page, columns):
    """Threats and what stops them; what people bring and what becomes of it."""
    text = PAGES[ROOT / "docs" / f"{page}.md"].partition("## Limits")[0]
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) > 20
    for row in rows[2:]:
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert len(cells) == columns, row
        file, name = re.fullmatch(r"`(test_\w+\.py)::(test_\w+)`", cells[-1]).groups()
        text = (ROOT / "tests" / file).read_text(encoding="utf-8")
        assert re.search(rf"(?m)^def {name}\(", text), row


def test_every_format_that_is_read_stands_in_the_table_of_what_people_bring():
    brought = [line.split("|")[1] for line in PAGES[ROOT / "docs" / "images.md"].splitlines() if "::" in line]
    for name in {*EXTENSIONS.values(), "NPY"}:
        assert any(re.search(rf"\b{name}\b", what) for what in brought), name


def test_every_link_leads_to_a_page_and_a_heading_that_exist():
    links = [(path, link) for path, text in PAGES.items() for link in re.findall(r"\]\(([^)]+)\)", text)]
    links += [(ROOT / "README.md", link) for link in re.findall(r"\]\(([^)]+)\)", README)]
    within = [(path, link) for path, link in links if "://" not in link]
    assert within
    for path, link in within:
        name, _, heading = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        assert target.is_file(), (path.name, link)
        if heading:
            headings = re.findall(r"(?m)^#+ (.+)$", target.read_text(encoding="utf-8"))
            assert heading in {"-".join(re.findall(r"[\w-]+", each.lower())) for each in headings}, link


def test_the_readme_leads_to_every_page_of_the_guide():
    linked = set(re.findall(r"\(docs/([\w-]+\.md)", README))
    assert linked == {path.name for path in PAGES}


def test_pictures_exist_and_are_small():
    pictures = re.findall(r"!\[[^]]+\]\(([^)]+)\)", README)
    assert pictures
    for picture in pictures:
        assert (ROOT / picture).is_file(), picture
        assert (ROOT / picture).stat().st_size < 300_000, picture


@pytest.mark.parametrize("folder", ["mlflow", "docker"])
def test_folders_named_like_packages_hold_no_python(folder):
    assert not list((ROOT / folder).rglob("*.py"))


def test_the_lock_is_pinned_and_names_no_index():
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    assert all(re.match(r"(#|[\w.\[\]-]+==)", line.strip()) for line in lines if line.strip()), "not pinned"
    assert not any("://" in line for line in lines)
    assert not (ROOT / "uv.lock").exists()


def test_the_package_finds_all_its_rooms():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["tool"]["setuptools"]["packages"]["find"]["include"] == ["nightshift*"]
    for folder in (ROOT / "tasks" / "nightshift").rglob("*"):
        if folder.is_dir() and folder.name != "__pycache__":
            assert (folder / "__init__.py").is_file(), folder
