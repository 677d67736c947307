"""The wheel: what a plain ``pip install`` puts on a machine works without the checkout."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def command(*words, cwd, **settings):
    return subprocess.run(list(map(str, words)), cwd=cwd, capture_output=True, text=True, check=False, **settings)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    done = command(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    assert done.returncode == 0, done.stderr[-2000:]
    (made,) = folder.glob("xmodal-*.whl")
    return made


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A clean environment with the wheel; the libraries that it needs are borrowed from this one."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=True)
    site = next(folder.glob("lib/python*/site-packages"))
    pip = (sys.executable, "-m", "pip", "--python", folder / "bin" / "python")
    done = command(*pip, "install", "--no-deps", "--no-index", wheel, cwd=folder)
    assert done.returncode == 0, done.stderr
    (site / "borrowed.pth").write_text(sysconfig.get_paths()["purelib"])
    return folder


def test_the_wheel_holds_the_package_and_its_configs_and_nothing_of_the_tests(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert "xmodal/configs/base.yaml" in names
    assert "xmodal/configs/demo.yaml" in names
    assert "xmodal/towers/mobile_cnn.py" in names
    assert "serve/app.py" in names
    assert not [name for name in names if name.startswith(("tests", "docs", "benchmarks"))]


def test_it_imports_and_finds_its_configs_without_the_checkout(installed, tmp_path):
    code = "import xmodal, xmodal.training as t; print(xmodal.__file__); print(t.config_folder() / 'base.yaml')"
    done = command(installed / "bin" / "python", "-W", "ignore", "-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    package, config = done.stdout.split()
    assert Path(package).is_relative_to(installed)
    assert Path(config).is_relative_to(installed)
    assert Path(config).is_file()


def test_the_command_is_there_and_answers(installed, tmp_path):
    done = command(installed / "bin" / "xmodal", "--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert all(word in done.stdout for word in ("embed", "index", "search", "tag", "evaluate", "train", "demo"))
