"""The order of training batches through worker processes: epoch after epoch, and ahead of the one that is read."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from torch.utils.data import Dataset

from xmodal.data.loaders import ResumableLoader
from xmodal.data.samplers import BatchSampler, ShuffledBatches
from xmodal.data.tracks import Track

TRACKS = [Track(id=str(number), path=Path(f"{number}.wav")) for number in range(6)]


class Noted(Dataset):
    """Batches are their keys; that a batch was made is noted in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __getitems__(self, keys):
        (self.folder / f"{keys[0][1]}").mkdir(exist_ok=True)
        return keys


class Learning(BatchSampler):
    """Gives one track, the one that it was told of last."""

    told = 0

    def batch(self, epoch, number):
        return np.full(2, self.told)

    def memory(self):
        return {"told": self.told}


def loader_of(order, folder, workers=2):
    order.prepare(TRACKS, batch_size=2)
    return ResumableLoader(Noted(folder), order, workers=workers, position=dict)


def wanted(order, epoch, start=0):
    return [[(int(index), epoch) for index in order.batch(epoch, number)] for number in range(start, len(order))]


def test_workers_go_on_with_the_next_epoch_and_any_other_place_may_be_asked_for(tmp_path):
    order, reference = ShuffledBatches(), ShuffledBatches()
    loader = loader_of(order, tmp_path)
    reference.prepare(TRACKS, batch_size=2)
    assert len(loader) == 3
    assert loader.batch_sampler.sampler is order  # where Lightning sets the epoch
    assert list(loader) == wanted(reference, 0)
    until = time.monotonic() + 60
    while not (tmp_path / "1").exists():
        assert time.monotonic() < until, "nobody went on"
        time.sleep(0.01)
    running = loader._iterator
    order.set_epoch(1)
    assert list(loader) == wanted(reference, 1)
    order.set_epoch(2)
    batches = iter(loader)
    assert next(batches) == wanted(reference, 2)[0]
    batches.close()  # an epoch that was cut short, then the next one
    order.set_epoch(3)
    assert list(loader) == wanted(reference, 3)
    order.start_at(1, 2)  # a restored place
    assert list(loader) == wanted(reference, 1, 2)
    order.set_epoch(2)
    assert list(loader) == wanted(reference, 2)
    assert loader._iterator is running  # the same workers all along
    running._shutdown_workers()  # what Lightning does at the end of a fit
    loader._iterator = None
    order.set_epoch(3)
    assert list(loader) == wanted(reference, 3)


@pytest.mark.parametrize("workers", [0, 2])
def test_what_a_sampler_learns_in_an_epoch_counts_from_the_next_one_on(tmp_path, workers):
    order = Learning()
    loader = loader_of(order, tmp_path, workers)
    list(loader)
    order.told = 5
    order.set_epoch(1)
    assert list(loader) == [[(5, 1), (5, 1)]] * 3
