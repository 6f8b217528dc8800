from bimix_tune.benchmark.asks import SAMPLERS, time_asks


def test_all_samplers_are_timed_in_studies_of_the_size_asked_for():
    found = time_asks(12, domains=4, targets=3, asks=2)
    assert [f.sampler for f in found] == list(SAMPLERS)
    assert all(f.trials == 12 for f in found)
    assert all(0 < f.median <= f.first + f.mean * 2 for f in found)
