import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import optuna
import pytest

from bimix_tune import Domain, Mixture, SearchSpace, read_curves, search
from bimix_tune.errors import ConfigError, ExecutorError
from bimix_tune.executors.local import LocalExecutor
from bimix_tune.laws import LawFit
from bimix_tune.loop import ledger, run_folder
from bimix_tune.loop.outcome import load_study, outcome
from bimix_tune.training.base import described

sys.path.insert(0, str(Path(__file__).parent))  # the child process below imports it the same way
from trainers import ALPHA, NAMES, LawTrainer

PRIORS = (6, 2, 1, 1)
SPACE = SearchSpace([Domain(n, prior=p) for n, p in zip(NAMES, PRIORS, strict=True)])


@pytest.fixture
def memory():
    """Tests that need no disk are spared its latency."""
    return optuna.storages.InMemoryStorage()


def interrupt_after(runs):
    """A monitor that presses Ctrl-C."""

    def monitor(state):
        if state.done >= runs:
            raise KeyboardInterrupt

    return monitor


def loss_of(mixture):
    r = np.array([mixture[n] for n in NAMES])
    return float(np.mean((0.02 + r) ** -ALPHA * (2.0 + 20 * 1000**-0.5)))


def test_a_search_recommends_a_better_mixture_and_confirms_it(memory, tmp_path):
    states = []
    result = search(
        SPACE,
        LawTrainer(),
        folder=tmp_path / "run",
        storage=memory,
        trials=14,
        monitor=states.append,
    )
    draws = np.random.default_rng(0).dirichlet(np.ones(4), 5000)
    best = min(loss_of(dict(zip(NAMES, r, strict=True))) for r in draws)
    assert loss_of(result.recommendation) < best + 0.003
    assert [r.label for r in result.records[:2]] == ["natural", "uniform"]
    assert len(result.confirmation.seeds) == 2
    uniform = next(c for c in result.confirmation.comparisons if c.label == "uniform")
    gain = loss_of(SPACE.uniform()) - loss_of(result.recommendation)
    assert uniform.mean == pytest.approx(gain, abs=0.02)
    assert uniform.low > 0
    assert states[-1].phase == "confirmation"
    assert states[-1].done == states[-1].total == 6
    assert sum(r.role != "confirmation" for r in result.records) == 14


def test_a_confirmation_is_predicted_by_the_law_that_recommended(memory, tmp_path):
    result = search(SPACE, LawTrainer(), folder=tmp_path / "run", storage=memory, trials=10)
    runs = [r for r in result.records if r.label == "recommendation"]
    mean, sd = result.fit.objective([result.recommendation], 1000)
    assert len(runs) == 2
    assert all(r.predicted == pytest.approx((mean[0], sd[0])) for r in runs)


def test_the_folder_holds_everything_in_readable_form(tmp_path):
    result = search(SPACE, LawTrainer(), folder=tmp_path / "run", trials=8)
    data = json.loads((tmp_path / "run" / "result.json").read_text())
    assert data["recommendation"] == dict(result.recommendation)
    assert data["confirmation"]["comparisons"][0]["label"] in ("natural", "uniform")
    law = LawFit.from_dict(json.loads((tmp_path / "run" / "law.json").read_text()))
    mixtures = [result.recommendation]
    assert law.predict(mixtures, 1000) == pytest.approx(result.fit.predict(mixtures, 1000))
    ended = [r for r in result.records if r.state in ("COMPLETE", "PRUNED")]
    assert len(read_curves(tmp_path / "run")) == len(ended)
    study, space = load_study(tmp_path / "run")
    assert outcome(study, space, tmp_path / "run").recommendation == result.recommendation


def test_the_same_call_again_trains_nothing_and_says_the_same(tmp_path):
    log = tmp_path / "log"
    options = {"folder": tmp_path / "run", "trials": 8}
    first = search(SPACE, LawTrainer(log=str(log)), **options)
    count = len(log.read_text().splitlines())
    second = search(SPACE, LawTrainer(log=str(log)), **options)
    assert len(log.read_text().splitlines()) == count
    assert second.recommendation == first.recommendation
    assert second.confirmation == first.confirmation


def test_more_trials_continue_a_search(tmp_path):
    log = tmp_path / "log"
    search(SPACE, LawTrainer(log=str(log)), folder=tmp_path / "run", trials=8, confirm_seeds=0)
    search(SPACE, LawTrainer(log=str(log)), folder=tmp_path / "run", trials=11, confirm_seeds=0)
    assert len(log.read_text().splitlines()) == 11


def test_an_interrupted_search_continues_without_repeating_finished_work(tmp_path):
    log = tmp_path / "log"
    options = {"folder": tmp_path / "run", "trials": 8, "confirm_seeds": 0}
    trainer = LawTrainer(log=str(log), sleep=0.15)
    with pytest.raises(KeyboardInterrupt):
        search(SPACE, trainer, **options, monitor=interrupt_after(4))
    study, _ = load_study(tmp_path / "run")
    assert not study.get_trials(states=[optuna.trial.TrialState.RUNNING])
    search(SPACE, LawTrainer(log=str(log)), **options)
    study, _ = load_study(tmp_path / "run")
    assert not study.get_trials(states=[optuna.trial.TrialState.RUNNING])
    started = log.read_text().splitlines()
    finished = [t for t in study.trials if t.state.is_finished() and t.state.name != "FAIL"]
    assert len(finished) == 8
    assert len(started) <= 9  # at most the one run that was under way began twice


def test_a_killed_driver_loses_only_the_runs_under_way(tmp_path):
    log = tmp_path / "log"
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from test_search import SPACE, LawTrainer\n"
        "from bimix_tune import search\n"
        "search(SPACE, LawTrainer(log=sys.argv[2], sleep=0.2), folder=sys.argv[3], trials=8,"
        " confirm_seeds=0)\n"
    )
    args = [sys.executable, "-c", script, str(Path(__file__).parent), str(log)]
    child = subprocess.Popen([*args, str(tmp_path / "run")])
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if log.exists() and len(log.read_text().splitlines()) >= 4:
            break
        time.sleep(0.05)
    child.kill()
    child.wait()
    before = log.read_text().splitlines()
    search(SPACE, LawTrainer(log=str(log)), folder=tmp_path / "run", trials=8, confirm_seeds=0)
    study, space = load_study(tmp_path / "run")
    assert {t.state.name for t in study.trials} <= {"COMPLETE", "PRUNED", "FAIL"}
    assert len(log.read_text().splitlines()) == 8 + 1
    lost = [t for t in study.trials if t.state.name == "FAIL"]
    assert [t.user_attrs["cause"] for t in lost] == [
        "the driver stopped while this run was under way"
    ]
    assert len(ledger.records_of(study, space)) == 8
    repeated = log.read_text().splitlines()[len(before)]
    assert repeated == before[-1]  # the same mixture and seed


def test_two_drivers_cannot_share_a_folder(tmp_path):
    with run_folder.only_driver(tmp_path), pytest.raises(ExecutorError, match="another process"):
        search(SPACE, LawTrainer(), folder=tmp_path, trials=8)


def test_other_settings_are_not_mixed_into_a_search(tmp_path):
    search(SPACE, LawTrainer(), folder=tmp_path / "run", trials=4, confirm_seeds=0)
    with pytest.raises(ConfigError, match="begun with another tokens"):
        search(SPACE, LawTrainer(tokens=2000), folder=tmp_path / "run", trials=6)


def test_another_trainer_is_not_mixed_into_a_search(memory, tmp_path):
    options = {"folder": tmp_path / "run", "storage": memory, "trials": 4, "confirm_seeds": 0}
    search(SPACE, LawTrainer(), **options, settings={"corpus": ("a", 1)})
    search(SPACE, LawTrainer(sleep=0.001), **options, settings={"corpus": ("a", 1)})
    with pytest.raises(ConfigError, match="begun with another trainer"):
        search(SPACE, LawTrainer(noise=0.1), **options, settings={"corpus": ("a", 1)})


def test_a_renamed_folder_is_the_same_search(tmp_path):
    search(SPACE, LawTrainer(), folder=tmp_path / "run", trials=4, confirm_seeds=0)
    (tmp_path / "run").rename(tmp_path / "renamed")
    study, _ = load_study(tmp_path / "renamed")
    assert len(study.trials) == 4


def test_a_baseline_outside_the_bounds_is_named(tmp_path):
    space = SearchSpace([Domain("web", high=0.2), *NAMES[1:]])
    mixture = Mixture(NAMES, [0.5, 0.5, 0, 0])
    with pytest.raises(ConfigError, match="baseline 'mine' is no mixture of the space"):
        search(space, LawTrainer(), folder=tmp_path / "run", baselines={"mine": mixture})


def test_a_space_of_one_mixture_is_nothing_to_search(tmp_path):
    space = SearchSpace([Domain("web", low=0.4, high=0.4), *NAMES[1:]])
    fixed = SearchSpace([Domain(n, low=0.25, high=0.25) for n in NAMES])
    with pytest.raises(ConfigError, match="nothing to search"):
        search(fixed, LawTrainer(), folder=tmp_path / "run")
    assert search(space, LawTrainer(), folder=tmp_path / "run", trials=3, confirm_seeds=0)


def test_what_failed_is_tried_again_when_the_search_is_continued(memory, tmp_path):
    options = {"folder": tmp_path / "run", "storage": memory, "trials": 7, "confirm_seeds": 1}
    broken = LawTrainer(diverges_above=0.55)
    first = search(SPACE, broken, **options)
    assert [r.state for r in first.records if r.label == "natural"] == ["FAIL", "FAIL"]
    assert [c.label for c in first.confirmation.comparisons] == ["uniform"]
    study, _ = load_study(tmp_path / "run", memory)
    settings = study.user_attrs["settings"]
    mended = json.loads(json.dumps(described(LawTrainer())))
    study.set_user_attr("settings", {**settings, "trainer": mended})
    again = search(SPACE, LawTrainer(), **options)
    assert [r.state for r in again.records if r.label == "natural"] == ["COMPLETE", "COMPLETE"]
    assert {c.label for c in again.confirmation.comparisons} == {"natural", "uniform"}
    assert sum(r.role != "confirmation" for r in again.records) == 7


def test_settings_may_be_mended_while_no_run_has_ended(memory, tmp_path):
    options = {"folder": tmp_path / "run", "storage": memory, "trials": 4, "confirm_seeds": 0}
    with pytest.raises(ExecutorError):
        search(SPACE, LawTrainer(diverges_above=-1), **options)
    assert search(SPACE, LawTrainer(), **options).records[-1].state == "COMPLETE"


def test_broken_storages_are_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be made"):
        search(SPACE, LawTrainer(), folder=tmp_path / "file" / "run")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "study.db").write_text("junk" * 1000)
    with pytest.raises(ConfigError, match="cannot be opened"):
        search(SPACE, LawTrainer(), folder=tmp_path / "run")
    with pytest.raises(ConfigError, match="cannot be opened"):
        load_study(tmp_path / "run")
    other = optuna.storages.InMemoryStorage()
    optuna.create_study(study_name="run", storage=other)
    with pytest.raises(ConfigError, match="no search in"):
        load_study(tmp_path / "run", other)


def test_a_path_that_is_no_url_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"no '\?' and no '%' in its path"):
        search(SPACE, LawTrainer(), folder=tmp_path / "a?b", trials=4)


def test_reading_a_search_does_not_write_to_it(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        search(SPACE, LawTrainer(), folder=tmp_path / "run", trials=9, monitor=interrupt_after(6))
    study, space = load_study(tmp_path / "run")
    before = study.user_attrs
    assert outcome(study, space, tmp_path / "run").confirmation is None
    assert study.user_attrs == before


def test_an_enqueued_trial_that_is_no_mixture_fails_alone(memory, tmp_path):
    options = {"folder": tmp_path / "run", "storage": memory, "confirm_seeds": 0}
    search(SPACE, LawTrainer(), **options, trials=4)
    study, _ = load_study(tmp_path / "run", memory)
    study.enqueue_trial({"r_" + name: 0.9 for name in NAMES})
    result = search(SPACE, LawTrainer(), **options, trials=6)
    assert [r.cause for r in result.records if r.state == "FAIL"] == [
        "trial 4 was enqueued with proportions that sum to 3.6, not to 1"
    ]
    assert len(result.records) == 6


def test_an_interrupted_search_leaves_no_job_in_the_executor(memory, tmp_path):
    trainer = LawTrainer(sleep=0.05)
    with LocalExecutor(trainer) as executor:
        options = {"folder": tmp_path / "run", "storage": memory, "executor": executor}
        with pytest.raises(KeyboardInterrupt):
            search(SPACE, trainer, **options, trials=8, monitor=interrupt_after(3))
        ended = [e for _ in range(5) for e in executor.events(0.3)]
        assert [e.stopped for e in ended] == [True]
        assert executor.events(0.3) == []


def test_proposals_learn_nothing_from_a_confirmation(memory, tmp_path):
    options = {"folder": tmp_path / "run", "storage": memory}
    search(SPACE, LawTrainer(), **options, trials=7)
    states = []
    search(SPACE, LawTrainer(), **options, trials=8, confirm_seeds=0, monitor=states.append)
    assert " from 8 runs" in states[-1].law.status


def test_failed_runs_are_recorded_with_their_cause_and_the_search_goes_on(memory, tmp_path):
    result = search(
        SPACE,
        LawTrainer(diverges_above=0.55),
        folder=tmp_path / "run",
        storage=memory,
        trials=10,
        confirm_seeds=1,
    )
    failed = [r for r in result.records if r.state == "FAIL"]
    assert failed[0].label == "natural"  # 60 % web
    assert failed[0].cause == "DivergedError: the loss became NaN after 250 tokens"
    assert sum(r.state != "FAIL" for r in result.records) >= 8


def test_losses_that_are_not_finite_fail_the_run(memory, tmp_path):
    result = search(
        SPACE,
        LawTrainer(not_finite_above=0.55),
        folder=tmp_path / "run",
        storage=memory,
        trials=8,
        confirm_seeds=0,
    )
    failed = next(r for r in result.records if r.state == "FAIL")
    assert failed.label == "natural"
    assert failed.cause == "the loss of 'code' became inf after 250 tokens"


def test_a_search_that_cannot_work_is_called_off_early(memory, tmp_path):
    with pytest.raises(ExecutorError, match=r"first 3 runs all failed.*NaN"):
        search(
            SPACE, LawTrainer(diverges_above=-1), folder=tmp_path / "run", storage=memory, trials=10
        )


def test_a_run_without_final_losses_fails(memory, tmp_path):
    with pytest.raises(ExecutorError, match="ended after 500 of 1000 tokens"):
        search(
            SPACE, LawTrainer(ends_early=True), folder=tmp_path / "run", storage=memory, trials=10
        )


def test_only_the_best_rival_is_confirmed_on_request(memory, tmp_path):
    result = search(
        SPACE, LawTrainer(), folder=tmp_path / "run", storage=memory, trials=6, rivals="best"
    )
    assert [c.label for c in result.confirmation.comparisons] == ["uniform"]


def test_given_baselines_are_the_rivals(memory, tmp_path):
    mine = Mixture(NAMES, [0.1, 0.2, 0.3, 0.4])
    result = search(
        SPACE,
        LawTrainer(),
        folder=tmp_path / "run",
        storage=memory,
        trials=6,
        baselines={"mine": mine},
    )
    assert list(result.baselines) == ["mine"]
    assert [c.label for c in result.confirmation.comparisons] == ["mine"]


def test_any_optuna_sampler_drives_a_search(memory, tmp_path):
    result = search(
        SPACE,
        LawTrainer(),
        folder=tmp_path / "run",
        storage=memory,
        trials=8,
        confirm_seeds=0,
        sampler=optuna.samplers.TPESampler(seed=0),
        pruner=optuna.pruners.NopPruner(),
        executor=LocalExecutor(LawTrainer()),
    )
    assert {r.state for r in result.records} == {"COMPLETE"}
    assert all(abs(sum(r.mixture.values()) - 1) < 1e-9 for r in result.records)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trials": 1}, "trials must be a whole number >= 2, but got 1"),
        ({"trials": 2.5}, "trials must be a whole number"),
        ({"seed": -1}, "seed must be a whole number >= 0"),
        ({"repeats": -1}, "repeats must be a whole number >= 0"),
        ({"confirm_seeds": -1}, "confirm_seeds must be a whole number >= 0"),
        ({"target_tokens": 0}, "target_tokens must be a whole number >= 1"),
        ({"rivals": "bestt"}, "did you mean 'best'"),
    ],
)
def test_wrong_arguments_are_named(tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        search(SPACE, LawTrainer(), folder=tmp_path, **options)


def test_a_target_that_the_trainer_does_not_know_is_named(tmp_path):
    with pytest.raises(ConfigError, match="'law'"):
        search(SPACE, LawTrainer(targets=NAMES[:3]), folder=tmp_path)


def test_an_empty_folder_holds_no_search(tmp_path):
    with pytest.raises(ConfigError, match="no search in"):
        load_study(tmp_path)


def test_repeated_baselines_tell_the_noise_of_a_run(memory, tmp_path):
    options = {"folder": tmp_path / "run", "storage": memory, "confirm_seeds": 0}
    trainer = LawTrainer(noise=0.02)
    result = search(SPACE, trainer, trials=6, repeats=2, **options)
    runs = [(r.label, r.seed) for r in result.records if r.role == "baseline"]
    assert runs == [("natural", 0), ("uniform", 0), ("natural", 1000), ("uniform", 1000)]
    value = {run: r.objective for run, r in zip(runs, result.records, strict=False)}
    first, second = (value[n, 0] - value[n, 1000] for n in ("natural", "uniform"))
    assert result.run_noise == pytest.approx(abs(first - second) / 2)  # 2 x 2 layout
    saved = json.loads((tmp_path / "run" / "result.json").read_text())
    assert saved["run_noise"] == pytest.approx(result.run_noise)


def test_repeats_are_within_the_trials(memory, tmp_path):
    result = search(
        SPACE,
        LawTrainer(),
        folder=tmp_path / "run",
        storage=memory,
        trials=3,
        repeats=2,
        confirm_seeds=0,
    )
    assert [r.label for r in result.records] == ["natural", "uniform", "natural"]
    assert np.isnan(result.run_noise)


def test_a_search_ends_early_once_further_runs_promise_too_little(memory, tmp_path):
    def run(worth):
        return search(
            SPACE,
            LawTrainer(),
            folder=tmp_path / "run",
            storage=memory,
            trials=16,
            worth=worth,
            confirm_seeds=0,
        )

    short = run(0.5)
    assert len(short.records) < 16
    assert "less than 0.5" in short.settled
    longer = run(None)
    assert len(longer.records) == 16
    assert longer.settled is None
    with pytest.raises(ConfigError, match="worth must be > 0"):
        run(0.0)
