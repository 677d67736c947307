from __future__ import annotations

import threading

import pytest
import torch

from xmodal.lanes import in_threads, set_own_threads


@pytest.fixture
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def test_each_lane_keeps_its_own_number_of_torch_threads(three_threads):
    def work(numbers):
        for _ in numbers:
            yield torch.get_num_threads()

    assert list(in_threads(work, 8, 2, room=1, name="lane", torch_threads=1)) == [1] * 8
    assert torch.get_num_threads() == 3


def test_a_thread_keeps_the_number_that_it_set_when_others_set_theirs(three_threads):
    set_, others, seen = threading.Event(), threading.Event(), []

    def run():
        set_own_threads(2)
        set_.set()
        others.wait()
        torch.ones(3).sum()
        seen.append(torch.get_num_threads())

    thread = threading.Thread(target=run)
    thread.start()
    set_.wait()
    torch.set_num_threads(3)
    others.set()
    thread.join()
    assert seen == [2]
