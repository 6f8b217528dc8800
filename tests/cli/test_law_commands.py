"""`fit`, `optimise` and `explain` on invented runs whose law is known."""

import dataclasses
import json

import numpy as np
import pytest

from bimix_tune import LossCurve, Mixture, SearchSpace, fit, write_curves
from bimix_tune.cli import law_commands, law_options
from bimix_tune.laws import LAWS, LawFit
from bimix_tune.laws.explain import RELATIVE
from bimix_tune.laws.peers import missing_library

NAMES = ("web", "code", "books")
TOKENS = [500, 1000]
WORDS = ("natural", "uniform")


def runs(names=NAMES, count=10, scale="", seed=0, targets=None):
    """Losses of a law with a floor: own proportions count, web for code a little."""
    rng = np.random.default_rng(seed)
    alpha = np.linspace(0.1, 0.3, len(names))
    found = []
    for i in range(count):
        r = rng.dirichlet(np.ones(len(names)))
        x = 0.02 + r
        x[1] += 0.2 * r[0]
        losses = [x**-alpha * (2 + 30 * s**-0.5) for s in TOKENS]
        run = f"{scale}{i}"
        found.append(LossCurve(Mixture(names, r), TOKENS, losses, targets, run=run, scale=scale))
    return found


@pytest.fixture(scope="module")
def laws(tmp_path_factory):
    """Files: a law of three domains, one of 22, and the runs of both."""
    folder = tmp_path_factory.mktemp("laws")
    many = tuple(f"a-domain-with-a-long-name-{i:02d}" for i in range(22))
    for name, domains, count in (("small", NAMES, 10), ("large", many, 30)):
        curves = runs(domains, count)
        write_curves(folder / f"{name}.jsonl", curves)
        law = fit(curves, SearchSpace(domains), "transfer", judge=name == "small")
        (folder / f"{name}.json").write_text(json.dumps(law.to_dict()))
    return folder


def proportions(out):
    return json.loads(out[out.rindex("{\n") :])


@pytest.mark.parametrize("name", LAWS)
def test_every_law_is_fitted_printed_and_read_back(cli, tmp_path, name):
    if missing_library(name):
        pytest.skip(f"{name} needs a library")
    write_curves(tmp_path / "runs.jsonl", runs())
    code, out, err = cli("fit", "runs.jsonl", "--law", name, "--output", "law.json")
    assert (code, err) == (0, "")
    assert f"{name} law from 10 runs" in out
    assert "held-out error" in out and "%" in out
    law = LawFit.from_dict(json.loads((tmp_path / "law.json").read_text()))
    assert law.law == name
    code, out, err = cli("optimise", "law.json", "--tokens", "1000")
    assert (code, err) == (0, "")
    assert sum(proportions(out).values()) == pytest.approx(1)
    code, out, err = cli("explain", "law.json")
    if name == "lightgbm":
        assert (code, "has no derivatives" in err) == (1, True)
    else:
        assert (code, err) == (0, "")
        assert "Change of the losses" in out
        assert ("exchange rates" in out or "Tokens of" in out) == (name not in RELATIVE)


def test_fit_shows_rungs_with_their_shares_and_warnings(cli, tmp_path):
    write_curves(tmp_path / "runs.jsonl", runs())
    _, out, _ = cli("fit", "runs.jsonl")
    assert "transfer + process" in out.partition("What the prediction consists of")[2]
    assert "Coefficients of the part transfer" in out
    assert "by domain too: transfer" in out
    write_curves(tmp_path / "few.jsonl", runs(count=3))
    _, out, _ = cli("fit", "few.jsonl")
    assert "note: only 3 different mixtures" in out


def test_targets_without_domain_share_the_table(cli, tmp_path):
    write_curves(tmp_path / "runs.jsonl", runs(targets=("web", "code", "exam")))
    code, out, err = cli("fit", "runs.jsonl", "--law", "additive", "--output", "law.json")
    assert (code, err) == (0, "")
    assert "by domain too: transfer, additive" in out
    code, out, err = cli("explain", "law.json")
    assert (code, err) == (0, "")
    assert "W: about the part" in out and "exam" in out


def test_smaller_scales_help_and_are_named(cli, tmp_path):
    sizes = [*runs(scale="70M", count=12), *runs(scale="160M", count=3), *runs(scale="1B", seed=1)]
    write_curves(tmp_path / "runs.jsonl", sizes)
    _, out, _ = cli("fit", "runs.jsonl", "--output", "law.json")
    assert "scale 1B: its runs, and those of 70M as a start" in out
    assert "160M with fewer than 4 mixtures left out" in out
    assert "transported" in out
    assert cli("explain", "law.json")[0] == 0
    _, out, _ = cli("fit", "runs.jsonl", "--scale", "70M", "--law", "bimix")
    assert "scale 70M: its runs alone; larger ones left out: 160M, 1B" in out
    assert "bimix law from 12 runs" in out
    _, out, _ = cli("fit", "runs.jsonl", "--law", "log-linear")
    assert "scale 1B: its runs alone, since the law 'log-linear' takes no notice" in out


def test_scales_that_are_no_sizes_are_not_ordered(cli, tmp_path):
    write_curves(tmp_path / "runs.jsonl", [*runs(scale="big"), *runs(scale="tiny")])
    code, _, err = cli("fit", "runs.jsonl")
    assert code == 1
    assert "every scale must be a size" in err
    code, out, _ = cli("fit", "runs.jsonl", "--scale", "big", "--law", "bimix")
    assert code == 0
    assert "scale big: its runs alone, since big, tiny are no sizes" in out


def test_the_best_mixture_obeys_groups_and_fixed_shares(cli, laws):
    args = ("optimise", laws / "small.json", "--tokens", "1000")
    code, out, _ = cli(*args, "--group", "code+books<=0.3", "--group", "books >= 0.1")
    assert code == 0
    found = proportions(out)
    assert found["code"] + found["books"] <= 0.3 + 1e-9
    assert found["books"] >= 0.1 - 1e-9
    assert "the uniform mixture breaks the bound on code+books" in out
    _, out, _ = cli(*args, "--fix", "web=0.25", "--fix", "code = 0.5")
    assert proportions(out) == pytest.approx({"web": 0.25, "code": 0.5, "books": 0.25})
    assert "search: the bounds leave one mixture" in out


def test_a_pull_to_the_prior_and_other_objectives_move_the_optimum(cli, laws):
    args = ("optimise", laws / "small.json", "--tokens", "1000")
    _, plain, _ = cli(*args)
    assert "predicted objective" in plain and "one sd of a run" in plain
    assert "search: exact" in plain
    for part in ("optimum", "natural", "uniform", "Predicted losses", "mean by weight"):
        assert part in plain
    assert "greatest" not in plain and "worst" not in plain
    _, pulled, _ = cli(*args, "--kl", "100")
    assert proportions(pulled) == pytest.approx(dict.fromkeys(NAMES, 1 / 3), abs=1e-2)
    _, worst, _ = cli(*args, "--objective", "worst")
    assert "predicted greatest loss" in worst and "greatest loss" in worst.split("mean by")[1]
    references = "web=4,code=3.5,books=3.9"
    _, regret, _ = cli(*args, "--regret", references)
    assert "predicted greatest excess" in regret
    points = [proportions(out) for out in (plain, worst, regret)]
    assert max(abs(points[0][n] - points[1][n]) for n in NAMES) > 0.01
    assert max(abs(points[1][n] - points[2][n]) for n in NAMES) > 0.01
    (laws / "reference.json").write_text(json.dumps({"web": 4, "code": 3.5, "books": 3.9}))
    _, again, _ = cli(*args, "--regret", laws / "reference.json")
    assert proportions(again) == pytest.approx(points[2])


def test_the_worst_mixture_shows_what_is_at_stake(cli, laws):
    _, out, _ = cli("optimise", laws / "small.json", "--tokens", "1000", "--worst")
    row = next(line for line in out.splitlines() if "mean by weight" in line)
    optimum, natural, uniform, worst = (float(cell) for cell in row.split("│")[2:-1])
    assert optimum < natural <= worst
    assert optimum < uniform < worst


def test_proportions_that_no_run_tried_are_named(cli, laws):
    _, out, _ = cli("optimise", laws / "small.json", "--tokens", "1000", "--fix", "web=0.99")
    assert "note: web: 99.0% is outside what was tried" in out
    uneven = json.dumps({"web": 0.998, "code": 0.001, "books": 0.001})
    _, out, _ = cli("explain", laws / "small.json", "--mixture", uneven)
    assert "note: web: 99.8% is outside what was tried" in out


def test_explain_takes_a_mixture_and_tokens(cli, laws):
    _, out, _ = cli("explain", laws / "small.json")
    assert "About the law's optimum at 1,000 tokens" in out
    assert "exchange rates are one" in out
    assert "Transfer: what a domain is worth" in out
    given = {"web": 0.1, "code": 0.1, "books": 0.8}
    (laws / "mixture.json").write_text(json.dumps(given))
    _, out, _ = cli("explain", laws / "small.json", "--mixture", laws / "mixture.json")
    assert "About the given mixture at 1,000 tokens" in out
    even = [cli("explain", laws / "small.json", "--mixture", name)[1] for name in WORDS]
    assert even[0] == even[1] and "33.3%" in even[0]
    assert "Tokens of the column's domain" in out
    _, more, _ = cli(
        "explain", laws / "small.json", "--mixture", json.dumps(given), "--tokens", "2k"
    )
    assert "at 2,000 tokens" in more
    rows = {line.split()[0]: line.split() for line in more.splitlines() if "±" in line}
    assert float(rows["web"][2]) < 0 < float(rows["books"][2])


@pytest.mark.parametrize("width", [80, 100])
def test_explain_fits_the_terminal_and_says_what_it_leaves_out(cli, laws, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    uneven = json.dumps(
        dict(
            zip(
                (f"a-domain-with-a-long-name-{i:02d}" for i in range(22)),
                np.arange(1, 23) / 253,
                strict=True,
            )
        )
    )
    code, out, _ = cli("explain", laws / "large.json", "--mixture", uneven)
    assert code == 0
    assert max(map(len, out.splitlines())) <= width
    assert "10 more domains and 15 more targets matter less: --all shows them" in out
    _, everything, _ = cli("explain", laws / "large.json", "--all")
    assert "matter less" not in everything
    assert len(everything.splitlines()) > 2 * len(out.splitlines())


def test_many_untried_proportions_are_counted(cli, laws):
    fixed = "a-domain-with-a-long-name-00=1"
    _, out, _ = cli("optimise", laws / "large.json", "--tokens", "1k", "--fix", fixed)
    assert out.count("is outside what was tried") == 5
    assert "more proportions are outside what was tried" in out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--group", "code"), "--group must be domains and a bound"),
        (("--group", "code<0.3"), "--group must be domains and a bound"),
        (("--group", "code+web<=much"), "'much' is not a number"),
        (("--group", "code+web<=30"), "bounds must satisfy 0 <= low <= high <= 1"),
        (("--group", "code+wib<=0.3"), "unknown domain 'wib'; did you mean 'web'"),
        (("--group", "web+code+books<=0.5"), "no mixture satisfies the bounds"),
        (("--fix", "web"), "--fix must be a domain and its share"),
        (("--fix", "web=most"), "'most' is not a number"),
        (("--fix", "wib=0.2"), "unknown domain 'wib'; did you mean 'web'"),
        (("--fix", "web=1.2"), "--fix web=1.2 is outside the domain's bounds [0, 1]"),
        (("--fix", "web=nan"), "is outside the domain's bounds"),
        (("--fix", "web=0.2", "--fix", "web=0.3"), "--fix gives the share of 'web' twice"),
        (("--fix", "web=0.8", "--fix", "code=0.8"), "no mixture satisfies the bounds"),
        (("--objective", "wurst"), "unknown objective 'wurst'; did you mean 'worst'"),
        (("--objective", "worst", "--regret", "web=1"), "leave out --objective"),
        (("--regret", "web=1"), "the reference gives no loss for ['code', 'books']"),
        (("--regret", "web=1,code"), "--regret must be a JSON file, or losses"),
        (("--regret", "web=1,web=2"), "--regret gives the loss of 'web' twice"),
        (("--regret", "web=low"), "'low' is not a number"),
        (("--regret", "nothing.json"), "--regret: no file 'nothing.json'"),
        (("--regret", "list.json"), "must hold losses by target, but holds a list"),
        (("--regret", "text.json"), "--regret: text.json is not JSON"),
        (("--regret", "odd.json"), "the reference loss of 'web' must be a finite number"),
        (("--kl", "-1"), "kl must be a finite number >= 0"),
    ],
)
def test_malformed_options_of_optimise(cli, laws, tmp_path, options, message):
    (tmp_path / "list.json").write_text("[1]")
    (tmp_path / "text.json").write_text("web: 1")
    (tmp_path / "odd.json").write_text('{"web": "low"}')
    code, _, err = cli("optimise", laws / "small.json", "--tokens", "1000", *options)
    assert code == 1
    assert message in err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--mixture", '{"web": 1'), "is not JSON"),
        (("--mixture", "nothing.json"), "--mixture: no file 'nothing.json'"),
        (("--mixture", '{"web": 0.5, "code": 0.5}'), "no proportion for ['books']"),
        (("--mixture", '{"wib": 1}'), "unknown domain 'wib'; did you mean 'web'"),
        (("--mixture", '{"web": 1, "code": 1, "books": 1}'), "sum"),
        (("--mixture", '{"web": "1", "code": 0, "books": 0}'), "must be a number, but is '1'"),
        (("--tokens", "0"), "--tokens must be >= 1"),
    ],
)
def test_malformed_options_of_explain(cli, laws, options, message):
    code, _, err = cli("explain", laws / "small.json", *options)
    assert code == 1
    assert message in err


def test_unknown_laws_and_old_files(cli, laws, tmp_path):
    code, _, err = cli("fit", laws / "small.jsonl", "--law", "bimx")
    assert code == 1
    assert "unknown law 'bimx'; did you mean 'bimix'" in err
    code, _, err = cli("fit", laws / "small.jsonl", "--law", "xyz")
    assert "Known: additive, auto, bimix" in err
    (tmp_path / "old.json").write_text('{"law": "auto", "theta": []}')
    code, _, err = cli("explain", "old.json")
    assert code == 1
    assert "of an earlier version; fit it to its runs again" in err


def test_a_search_that_did_not_converge_is_a_warning(cli, laws, monkeypatch):
    known = law_commands.find_optimum

    def halting(*args, **options):
        return dataclasses.replace(known(*args, **options), converged=False, status="gave up")

    monkeypatch.setattr(law_commands, "find_optimum", halting)
    _, out, _ = cli("optimise", laws / "small.json", "--tokens", "1000")
    assert "search: gave up" in out
    assert "note: the search for the optimum did not converge" in out


def test_names_with_plus_signs_are_found_in_groups():
    names = ("c", "c++", "math")
    assert law_options.group_of("c+++math>=0.1", names).domains == ("c++", "math")
    assert law_options.group_of("c+c++<=0.1", names).domains == ("c", "c++")
