from __future__ import annotations

import subprocess
import sys

import pytest
import torch

import xmodal.compat


def test_transforms_work_whatever_the_native_extension_does():
    import torchaudio

    mel = torchaudio.transforms.MelSpectrogram(sample_rate=8000, n_fft=256, n_mels=8)(torch.ones(1, 800))
    assert mel.shape[1] == 8
    assert torch.isfinite(mel).all()


def test_the_stand_in_is_used_only_when_the_extension_cannot_be_loaded():
    import torchaudio

    assert torchaudio._extension._IS_TORCHAUDIO_EXT_AVAILABLE == xmodal.compat.HAS_NATIVE_TORCHAUDIO


def test_the_stand_in_refuses_what_only_native_code_can_do():
    refuse = xmodal.compat._extension_stand_in().fail_if_no_align(lambda: None)
    with pytest.raises(RuntimeError, match="native extension is not available"):
        refuse()


@pytest.mark.parametrize("library", ["torchaudio", "transformers", "sentence_transformers"])
def test_libraries_that_import_torchaudio_can_be_imported_after_it(library):
    code = f"import xmodal.compat, {library}"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_an_oserror_puts_the_stand_in_in_place_and_another_error_is_not_hidden():
    code = """
import sys, importlib, importlib.abc
class Broken(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "torchaudio._extension" and name not in sys.modules:
            raise {error}("cannot load this")
sys.meta_path.insert(0, Broken())
import xmodal.compat
print(xmodal.compat.HAS_NATIVE_TORCHAUDIO)
"""
    run = [sys.executable, "-W", "ignore", "-c"]
    done = subprocess.run([*run, code.format(error="OSError")], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "False", done.stderr
    done = subprocess.run([*run, code.format(error="ImportError")], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "cannot load this" in done.stderr
