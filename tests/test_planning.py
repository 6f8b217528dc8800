import dataclasses
from pathlib import Path

import pytest

from bimix_tune import load_space
from bimix_tune.config import load_config
from bimix_tune.errors import (
    BimixError,
    ConfigError,
    CorpusError,
    OutOfMemoryError,
    SpaceError,
)
from bimix_tune.executors.local import LocalExecutor
from bimix_tune.planning import make_executor, open_corpus, prepare
from bimix_tune.training import load_trainer

WORDS = {
    "fruit": "apple pear plum cherry quince medlar",
    "tools": "hammer saw plane chisel rasp awl",
}


@pytest.fixture
def folder(tmp_path):
    """A run file beside a small corpus of two domains."""
    for name, words in WORDS.items():
        (tmp_path / name).mkdir()
        for i in range(60):
            text = " ".join(words.split()[(i * j + j) % 6] + str(i) for j in range(120))
            (tmp_path / name / f"{i}.txt").write_text(text)
    return tmp_path


def write(folder, text):
    path = folder / "run.yaml"
    path.write_text(text)
    return path


RUN = """
corpus:
  domains: {{fruit: fruit, tools: tools}}
  tokenizer: 300
  cache: {cache}
trainer: {{type: llama, size: 0.1M, tokens: 20k, evaluation_tokens: 0.5k}}
executor: {{type: local}}
"""


def test_a_run_file_becomes_objects(folder):
    path = write(folder, RUN.format(cache=folder / "cache"))
    said = []
    plan = prepare(load_config(path), path, said.append)
    assert plan.space.names == ("fruit", "tools")
    assert (plan.trainer.tokens, plan.trainer.evaluation_tokens) == (20_000, 500)
    assert plan.trainer.targets == ("fruit", "tools")
    assert str(plan.folder) == "runs/run"
    assert {"natural", "uniform", "UniMax", "SE", "CE", "JE", "VNE"} == set(plan.baselines)
    assert said
    with make_executor(load_config(path), plan.trainer) as executor:
        assert isinstance(executor, LocalExecutor)


def test_bounds_and_caps_reach_the_space(folder):
    text = RUN.format(cache=folder / "cache") + (
        "space: {domains: [{name: fruit, low: 0.3}, tools]}\n"
        "search: {max_epochs: 4, target_tokens: 30k}\n"
    )
    path = write(folder, text)
    plan = prepare(load_config(path), path, lambda message: None)
    tokens = {d.name: d.tokens for d in plan.space.domains}
    expected = [min(1, 4 * tokens[n] / 30_000) for n in ("fruit", "tools")]
    assert plan.space.high.tolist() == pytest.approx(expected)
    assert plan.space.low.tolist() == [0.3, 0]


def test_starter_domains_that_could_not_be_fetched_are_left_out_with_a_word(folder):
    text = RUN.format(cache=folder / "cache") + "space: {domains: [fruit, tools, recipes]}\n"
    path = write(folder, text)
    said = []
    plan = prepare(load_config(path), path, said.append)
    assert plan.space.names == ("fruit", "tools")
    assert any("'recipes' could not be fetched" in s for s in said)


def test_a_wrong_domain_name_is_no_domain_to_leave_out(folder):
    path = write(folder, RUN.format(cache=folder / "cache") + "space: {domains: [fruit, tool]}\n")
    with pytest.raises(SpaceError, match="'tool' of the space is not in the corpus; did you mean"):
        prepare(load_config(path), path, lambda message: None)


def test_a_space_without_any_domain_of_the_corpus_is_refused(folder):
    path = write(folder, RUN.format(cache=folder / "cache") + "space: {domains: [a, b]}\n")
    with pytest.raises(SpaceError, match="none of the domains"):
        prepare(load_config(path), path, lambda message: None)


def test_a_target_without_validation_text_is_named(folder):
    extra = "space: {domains: [fruit, tools], targets: [{name: tool}]}\n"
    path = write(folder, RUN.format(cache=folder / "cache") + extra)
    with pytest.raises(SpaceError, match=r"'tool'.*did you mean 'tools'"):
        prepare(load_config(path), path, lambda message: None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("executor: {type: ray, slots: two}", r"executor\.slots must be a whole number.*'two'"),
        ("executor: {type: ray, deadline: soon}", r"executor\.deadline must be .*'soon'"),
        ("executor: {type: ray, slots: true}", r"executor\.slots must be .*True"),
    ],
)
def test_wrong_values_of_executors_are_named(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        make_executor(load_config(write(tmp_path, text)), load_trainer("synthetic"))


def test_the_executor_is_checked_before_the_corpus_is_built(tmp_path):
    path = write(tmp_path, "corpus: {domains: {a: nowhere}}\nexecutor: {type: local, slots: 2}")
    with pytest.raises(ConfigError, match="executor: unknown key 'slots'"):
        prepare(load_config(path), path, lambda message: None)


@pytest.mark.parametrize(
    ("trainer", "message"),
    [
        ("{type: synthetic, noise: x}", r"trainer\.noise must be a valid number.*'x'"),
        ("{type: synthetic, checkpoints: six}", r"trainer\.checkpoints must be .*'six'"),
        ("{type: synthetic, tokens: .inf}", r"trainer\.tokens must be a whole number.*inf"),
        ("{type: synthetic, domains: web}", r"trainer\.domains must be a valid list.*'web'"),
        ("{type: command, command: x, tokens: 5, targets: code}", r"trainer\.targets .*'code'"),
        ("{type: command, command: 'x \"', tokens: 5, targets: [a]}", "No closing quotation"),
        ("{type: replay, runs: [a]}", r"trainer\.runs must be"),
        ("{type: llama, tokens: 1k, corpus: nowhere}", r"trainer\.corpus is set by .*'nowhere'"),
    ],
)
def test_wrong_values_of_trainers_are_named(tmp_path, trainer, message):
    path = write(tmp_path, f"space: {{domains: [web, code]}}\ntrainer: {trainer}")
    with pytest.raises(ConfigError, match=message):
        prepare(load_config(path), path, lambda message: None)


def test_text_repeats_as_often_as_the_space_says_it_will(folder):
    text = RUN.format(cache=folder / "cache") + (
        "space: {domains: [{name: fruit, tokens: 3M}, tools]}\nfolder: somewhere\n"
    )
    path = write(folder, text + "search: {target_tokens: 60M}\n")
    said = []
    trainer = prepare(load_config(path), path, said.append).trainer
    assert trainer.unique_tokens == {"fruit": 1000}  # tools: the corpus may be a sample
    assert any("text of fruit repeats" in message for message in said)
    assert trainer.states == Path("somewhere/states").absolute()
    for search in ("", "search: {target_tokens: 100k}\n"):  # all of 3M is less than once
        path = write(folder, text + search)
        assert prepare(load_config(path), path, lambda message: None).trainer.unique_tokens is None


def test_whole_numbers_may_have_suffixes(tmp_path):
    text = """
        space: {domains: [web, code]}
        trainer: {type: synthetic, domains: [web, code], tokens: 1.5M, checkpoints: "6"}
        search: {target_tokens: 3T}
    """
    path = write(tmp_path, text)
    config = load_config(path)
    trainer = prepare(config, path, lambda message: None).trainer
    assert (trainer.tokens, trainer.checkpoints) == (1_500_000, 6)
    assert config.search.target_tokens == 3 * 10**12


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ("trainer: {type: lama}", ConfigError, "did you mean 'llama'"),
        ("trainer: {type: llama, size: 1M, tokens: 1k, sise: 2}", ConfigError, "'size'"),
        ("trainer: {type: llama, tokens: many}", ConfigError, "trainer.tokens"),
        ("corpus: {domains: {fruit: nowhere}}", CorpusError, "nowhere"),
        ("space: nowhere", SpaceError, "no search space"),
        ("trainer: {type: llama, tokens: 20k, sequence_length: 9999}", CorpusError, "9999"),
    ],
)
def test_wrong_parts_are_explained(folder, change, error, message):
    kept = RUN.format(cache=folder / "cache").splitlines()
    key = change.split(":")[0]
    dropped = [line for line in kept if line and not line.startswith(key)]
    if key == "corpus":
        dropped = [line for line in dropped if not line.startswith("  ")]
    path = write(folder, "\n".join([*dropped, change]))
    with pytest.raises(error, match=message):
        prepare(load_config(path), path, lambda message: None)


@pytest.mark.parametrize(
    ("executor", "fits"),
    [
        ("{type: local}", True),
        ("{type: ray, slots: 5}", True),
        ("{type: ray, slots: 500}", False),
        ("{type: ray, slots: 500, address: 'host:1'}", True),
    ],
)
def test_proxies_that_do_not_fit_at_once_are_refused(folder, executor, fits, monkeypatch):
    monkeypatch.setattr("bimix_tune.planning.free_memory", lambda: 2 * 10**9)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    text = RUN.format(cache=folder / "cache").replace("{type: local}", executor)
    path = write(folder, text.replace("evaluation_tokens", "device: cpu, evaluation_tokens"))
    if fits:
        assert prepare(load_config(path), path, lambda step: None)
        return
    with pytest.raises(
        OutOfMemoryError, match=r"a search needs .* 500 at once.*executor\.slots to"
    ):
        prepare(load_config(path), path, lambda step: None)


def test_a_space_is_needed_without_a_corpus(tmp_path):
    path = write(tmp_path, "trainer: {type: synthetic}")
    with pytest.raises(ConfigError, match="`space` is needed"):
        prepare(load_config(path), path, lambda message: None)


@dataclasses.dataclass(frozen=True)
class Trainer:
    tokens: int = 1


def test_unknown_executors_and_options_are_named(tmp_path):
    for text, message in (
        ("executor: {type: rai}", "did you mean 'ray'"),
        ("executor: {type: ray, slot: 2}", "did you mean 'slots'"),
    ):
        with pytest.raises(BimixError, match=message):
            make_executor(load_config(write(tmp_path, text)), Trainer())


@pytest.mark.parametrize("name", ["starter", "smoke"])
def test_the_examples_are_valid(name, pytestconfig):
    path = pytestconfig.rootpath / "examples" / f"{name}.yaml"
    config = load_config(path)
    assert load_space(config.space).names
    assert config.corpus.domains == "starter"


def test_a_corpus_may_be_built_already_and_lie_at_a_url(folder, monkeypatch):
    fsspec = pytest.importorskip("fsspec")
    text = RUN.format(cache=folder / "cache")
    path = write(folder, text)
    plan = prepare(load_config(path), path, lambda message: None)
    section = text[: text.index("trainer:")]
    monkeypatch.setenv("BIMIX_TUNE_CACHE", str(folder / "copies"))
    files = fsspec.filesystem("memory")
    files.put(f"{plan.corpus.folder}/", "/tokens/one", recursive=True)
    for place in (str(plan.corpus.folder), "memory://tokens/one"):
        path.write_text(text.replace(section, f"corpus: {{folder: '{place}'}}\n"))
        again = prepare(load_config(path), path, lambda message: None)
        assert again.corpus.key == plan.corpus.key
        assert again.trainer.corpus in (place, plan.corpus.folder)
        assert again.trainer.targets == plan.trainer.targets
    assert again.trainer.corpus == place  # for every machine to fetch
    files.rm("/tokens", recursive=True)


def test_a_path_to_text_may_be_a_list_and_a_mapping(folder):
    path = write(
        folder,
        f"corpus: {{domains: {{fruit: [fruit, tools], tools: {{path: tools}}}}, tokenizer: 300,"
        f" cache: {folder / 'cache'}}}",
    )
    corpus = open_corpus(load_config(path).corpus, folder, lambda message: None)
    assert corpus.count("fruit") > corpus.count("tools")


def test_trainers_by_name_refuse_what_they_do_not_know():
    with pytest.raises(ConfigError, match="did you mean"):
        load_trainer("synthetik")
