"""The wheel, installed where the checkout is out of sight: does the README's code run there?"""

import os
import re
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from softlens import files

ROOT = Path(__file__).parents[1]


def run(command, **options):
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, check=False, **options
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    target = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", target, ROOT]
    code, out, err = run(command)
    assert code == 0, out + err
    (built,) = target.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel, tmp_path_factory):
    """A fresh environment: the wheel, and the dependencies of this one.

    The dependencies come by a .pth file. Paths added that way do not run the .pth files they hold,
    so that an editable softlens of this environment stays out of sight.
    """
    folder = tmp_path_factory.mktemp("environment") / "venv"
    code, out, err = run([sys.executable, "-m", "venv", "--without-pip", folder])
    assert code == 0, out + err
    interpreter = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    install = [sys.executable, "-m", "pip", "--python", interpreter, "install", "--quiet"]
    code, out, err = run(
        [*install, "--disable-pip-version-check", "--no-deps", "--no-index", wheel]
    )
    assert code == 0, out + err
    code, site, err = run(
        [interpreter, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    )
    assert code == 0, err
    paths = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (Path(site.strip()) / "dependencies.pth").write_text("\n".join(sorted(paths)), "utf-8")
    return interpreter


def test_the_wheel_carries_the_data_and_no_real_text(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert "softlens/data/README.md" in names
    assert not [name for name in names if "real_texts" in name]
    assert not [name for name in names if name.split("/")[0] in {"data", "tests", "notebooks"}]
    data = {path.name for path in (ROOT / "data").iterdir() if path.name != "real_texts"}
    carried = {name.split("/")[2] for name in names if name.startswith("softlens/data/")}
    assert carried == data
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_installed_package_finds_its_data(python, tmp_path):
    code = (
        "import softlens, softlens.files, softlens.corpora as c, sys; "
        "d = softlens.files.data_dir(); assert (d / 'README.md').is_file(); "
        "assert str(d).startswith(sys.prefix), d; "
        "assert softlens.files.cache_dir() in c.folder().parents"
    )
    status, out, err = run([python, "-I", "-c", code], cwd=tmp_path)
    assert status == 0, out + err


def test_the_readmes_first_code_runs_there(python, tmp_path):
    blocks = re.findall(
        r"^```python\n(.*?)^```", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    assert blocks, "the README shows no python"
    # An installed softlens looks for real texts in the user's cache, a checkout in data/.
    cache = tmp_path / "cache"
    cache.mkdir()
    for path in [*files.cache_dir().glob("*"), ROOT / "data" / "real_texts"]:
        if path.exists() and not (cache / path.name).exists():
            (cache / path.name).symlink_to(path)
    environment = {**os.environ, "SOFTLENS_CACHE": str(cache), "MPLBACKEND": "agg"}
    status, out, err = run([python, "-I", "-c", blocks[0]], cwd=tmp_path, env=environment)
    if status and "MissingExtraError" in err:
        pytest.skip(f"run `make real`: {err.strip().splitlines()[-1]}")
    assert status == 0, out + err
