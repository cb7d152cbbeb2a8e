"""The repository itself: one truth about dependencies, paired notebooks, no trace of a machine."""

import json
import re
import subprocess
import tomllib
from pathlib import Path

import jupytext
import pytest
import yaml
from packaging.requirements import Requirement

import softlens

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.py"))
LARGEST_NOTEBOOK = 400 * 1024


def pins():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return [Requirement(text) for line in lines if (text := line.partition("#")[0].strip())]


def declared():
    groups = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    return [Requirement(line) for group in groups for line in group]


def tracked_files():
    """Files git knows or would add, as paths."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    paths = (ROOT / name for name in listed.stdout.split("\0") if name)
    return [path for path in paths if path.is_file()]


# -- dependencies -------------------------------------------------------------------------------


def test_environment_yml_adds_nothing_to_pyproject():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    python, pip, from_pip = environment["dependencies"]
    assert Requirement(python).name == "python"
    assert Requirement(python).specifier == PROJECT["requires-python"]
    assert pip == "pip"
    assert set(from_pip) == {"pip"}
    constraints, package = from_pip["pip"]
    assert constraints == "-c constraints.txt"
    extras = re.fullmatch(r"-e \.\[([\w,]+)\]", package)
    assert extras, package
    assert set(extras[1].split(",")) <= set(PROJECT["optional-dependencies"])


def test_make_and_conda_install_the_same_extras():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    extras = re.search(r"^EXTRAS := (\S+)$", makefile, re.MULTILINE)
    assert extras
    assert f"-e .[{extras[1]}]" in (ROOT / "environment.yml").read_text(encoding="utf-8")


def test_pins_lie_inside_pyprojects_ranges():
    names = {requirement.name for requirement in declared()}
    for pin in pins():
        (exact,) = pin.specifier
        assert exact.operator == "==", f"{pin} is no pin"
        assert pin.name in names, f"{pin.name} is pinned and nowhere wanted"
        for requirement in declared():
            if requirement.name == pin.name:
                assert requirement.specifier.contains(exact.version), (pin, requirement)


def test_every_requirement_has_a_lowest_version_and_no_highest():
    for requirement in declared():
        operators = {specifier.operator for specifier in requirement.specifier}
        assert operators == {">="}, f"{requirement}: a range, not a pin, belongs in pyproject.toml"


def test_extras_are_the_documented_ones():
    wanted = {"real", "peft", "distributed", "hub", "test", "bench", "dev"}
    assert wanted <= set(PROJECT["optional-dependencies"])


def test_one_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == PROJECT["version"] == softlens.__version__
    assert citation["title"] == PROJECT["name"] == "softlens"
    assert citation["authors"] == PROJECT["authors"]
    assert citation["license"] == PROJECT["license"]
    assert "2504.02144" in citation["references"][0]["url"]


def test_licence_is_apache():
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text


# -- make ---------------------------------------------------------------------------------------


def documented_targets():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    return set(re.findall(r"^([a-z-]+):.*?## ", makefile, re.MULTILINE))


def test_bare_make_lists_every_documented_target():
    done = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    listed = set(re.findall(r"^\s*make ([a-z-]+) ", done.stdout, re.MULTILINE))
    assert listed == documented_targets()
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = re.findall(r"^\.PHONY:(.*)$", makefile, re.MULTILINE)
    assert set(" ".join(phony).split()) == listed, (
        "a target is phony and undocumented, or not phony"
    )


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "data/README.md"])
def test_pages_name_targets_that_exist(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    named = set(re.findall(r"`make ([a-z-]+)", text)) | set(
        re.findall(r"^make ([a-z-]+)", text, re.MULTILINE)
    )
    assert named <= documented_targets()


# -- what must not be in the repository -----------------------------------------------------------


def test_no_machine_path_in_any_file():
    folders = "|".join(["work", "root", "tmp", "home", "opt", "Users"])
    found = re.compile(rf"(?<![\w.$}}*<>-])/(?:{folders})/[\w.]")
    for path in tracked_files():
        text = path.read_bytes().decode("utf-8", "ignore")
        hit = found.search(text)
        assert not hit, f"{path.relative_to(ROOT)} names {text[hit.start() : hit.end() + 30]!r}"


def test_documents_that_are_named_are_here():
    names = {path.name for path in tracked_files()}
    for path in tracked_files():
        if path.suffix in (".py", ".md", ".ipynb"):
            text = path.read_text(encoding="utf-8")
            named = set(re.findall(r"\b[A-Z]{3,}(?:\.md)\b", text))
            assert named <= names, f"{path.relative_to(ROOT)} names {sorted(named - names)}"


def test_no_pickle_and_no_remote_code():
    ending = re.compile(r"\.(pkl|pickle|pt|pth|bin|ckpt)$")
    assert not [path for path in tracked_files() if ending.search(path.name)]
    for path in (ROOT / "softlens").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(
            r"^\s*(import|from) pickle|trust_remote_code=True|torch\.load\((?!.*weights_only=True)",
            text,
            re.M,
        )
        assert not re.search(r"^\s*print\(", text, re.M), f"{path.name} prints; log instead"


# -- notebooks ----------------------------------------------------------------------------------


def code_cells(notebook):
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


@pytest.mark.parametrize("source", NOTEBOOKS, ids=lambda path: path.stem)
def test_pairs_are_equal(source):
    ours = jupytext.read(source)
    run = jupytext.read(source.with_suffix(".ipynb"))
    kinds = [(cell["cell_type"], cell["source"].strip()) for cell in ours["cells"]]
    assert kinds == [(cell["cell_type"], cell["source"].strip()) for cell in run["cells"]]


@pytest.mark.parametrize("source", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_of_one_clean_run(source):
    path = source.with_suffix(".ipynb")
    cells = [cell for cell in code_cells(json.loads(path.read_text("utf-8"))) if cell["source"]]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert outputs, "run `make notebooks`"
    assert not [output for output in outputs if output["output_type"] == "error"]
    size = path.stat().st_size
    assert size <= LARGEST_NOTEBOOK, f"{path.name} has {size // 1024} KB; draw smaller pictures"


def test_every_notebook_has_its_source():
    made = {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert made == {path.stem for path in NOTEBOOKS}
