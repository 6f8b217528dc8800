import os
import signal
import threading

import pytest

from bimix_tune.loop.interrupts import Interrupts


@pytest.fixture(autouse=True)
def handler_restored():
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


def interrupt():
    os.kill(os.getpid(), signal.SIGINT)


def test_a_signal_waits_for_a_moment_at_which_it_is_allowed():
    interrupts, done = Interrupts(), []
    with pytest.raises(KeyboardInterrupt), interrupts.deferred():
        interrupt()
        done.append("the step under way")
        with interrupts.allowed():
            done.append("the next wait")
    assert done == ["the step under way"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_signal_is_not_held_back_while_it_is_allowed():
    interrupts = Interrupts()
    with interrupts.deferred(), pytest.raises(KeyboardInterrupt), interrupts.allowed():
        interrupt()


def test_a_second_signal_does_not_wait():
    interrupts = Interrupts()
    with pytest.raises(KeyboardInterrupt), interrupts.deferred():
        interrupt()
        interrupt()
        pytest.fail("the second signal was held back too")


def test_a_signal_that_was_never_allowed_takes_effect_at_the_end():
    interrupts, done = Interrupts(), []
    with pytest.raises(KeyboardInterrupt), interrupts.deferred():
        interrupt()
        done.append("all")
    assert done == ["all"]


def test_an_ignored_signal_stays_ignored():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with Interrupts().deferred():
        interrupt()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_other_threads_do_not_touch_handlers():
    seen = []

    def search():
        with Interrupts().deferred():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=search)
    thread.start()
    thread.join()
    assert seen == [signal.default_int_handler]
