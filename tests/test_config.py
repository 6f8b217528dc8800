import pytest

from bimix_tune.config import load_config
from bimix_tune.errors import ConfigError


def write(folder, text):
    path = folder / "run.yaml"
    path.write_text(text)
    return path


def test_changes_replace_values_of_the_file(tmp_path):
    path = write(tmp_path, "search: {trials: 9}")
    config = load_config(path, {"search.trials": 4, "folder": "x", "executor.slots": 1})
    assert (config.search.trials, config.folder) == (4, "x")
    assert config.executor == {"slots": 1}


def test_a_type_alone_is_enough(tmp_path):
    config = load_config(
        write(tmp_path, "executor: local\ntrainer: synthetic"), {"executor.slots": 2}
    )
    assert config.executor == {"type": "local", "slots": 2}
    assert config.trainer == {"type": "synthetic"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("serach: {}", "unknown key 'serach'; did you mean 'search'"),
        ("search: {trails: 3}", "unknown key 'search.trails'; did you mean 'trials'"),
        ("corpus: {tokeniser: 3}", "did you mean 'tokenizer'"),
        ("search: {trials: many}", "search.trials: .*'many'"),
        ("search: {trials: 1}", "search.trials: .*greater than or equal to 2"),
        ("search: {target_tokens: -5}", "search.target_tokens"),
        ("search: {rivals: some}", "'all' or 'best'"),
        ("search: {target_tokens: .inf}", "search.target_tokens: .*whole number.*inf"),
        ("search: 5", "search: .*dictionary.*got 5"),
        ("storage: nothing://x", "storage: .*URL of a database"),
        ("storage: postgresql+pg8000://u:p@h/d", "storage: .*driver is installed.*pg8000"),
        ("- 1", "must hold keys"),
        ("a: [", "not valid YAML"),
    ],
)
def test_wrong_run_files_are_explained(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        load_config(write(tmp_path, text), {"search.trials": 4} if text == "search: 5" else None)


def test_a_run_file_that_is_no_text_is_named(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"run\.yaml is not valid YAML"):
        load_config(path)


def test_a_missing_run_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"nothing\.yaml"):
        load_config(tmp_path / "nothing.yaml")
