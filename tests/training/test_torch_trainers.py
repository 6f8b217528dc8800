"""Trainings with PyTorch: learning, guards, saved weights, options, devices."""

import gc
import importlib.util
import json
import math
import pickle
import weakref
from pathlib import Path

import pytest
import torch

import bimix_tune.training.transformers as transformers_module
from bimix_tune.corpus import Corpus
from bimix_tune.errors import (
    ConfigError,
    CorpusError,
    DivergedError,
    MissingExtraError,
    MixtureError,
    OutOfMemoryError,
)
from bimix_tune.mixture import Mixture
from bimix_tune.training.device import choose_device, compute_dtype, memory_errors
from bimix_tune.training.llama import LlamaTrainer
from bimix_tune.training.schedule import Steps
from bimix_tune.training.step import Proxy, passes
from bimix_tune.training.transformers import TransformersTrainer

DOMAINS = ("ab", "cd", "mixed")
MIXTURE = Mixture(DOMAINS, [0.5, 0.3, 0.2])
TINY = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 64,
}


def llama(corpus: Path, **options: object) -> LlamaTrainer:
    chosen = {"tokens": 2000, "size": "0.1M", "sequence_length": 16, "batch_tokens": 160}
    return LlamaTrainer(corpus=corpus, **{**chosen, "device": "cpu", **options})


def final(trainer, mixture: Mixture = MIXTURE, seed: int = 0) -> dict[str, float]:
    return dict(list(trainer.run(mixture, seed))[-1].losses)


def test_it_learns_what_it_reads(corpus: Path) -> None:
    trainer = llama(corpus, tokens=6000, unit="nats/token")
    first = final(trainer, Mixture(DOMAINS, [0.9, 0.05, 0.05]))
    second = final(trainer, Mixture(DOMAINS, [0.05, 0.9, 0.05]))
    assert first["ab"] < second["ab"] - 0.05
    assert second["cd"] < first["cd"] - 0.05
    assert max(*first.values(), *second.values()) < math.log(64)


def test_units_differ_by_bytes_and_logarithm(corpus: Path) -> None:
    nats = final(llama(corpus, unit="nats/token"))
    bits = final(llama(corpus, unit="bits/byte"))
    for name in DOMAINS:  # the corpus has three bytes a token
        assert bits[name] == pytest.approx(nats[name] / math.log(2) / 3)


def test_targets_are_chosen_and_ordered(corpus: Path) -> None:
    trainer = llama(corpus, targets=("cd", "ab"), evaluation_tokens=16)
    assert tuple(final(trainer)) == trainer.targets == ("cd", "ab")
    assert final(trainer)["ab"] == final(llama(corpus, evaluation_tokens=16))["ab"]


def test_evaluation_does_not_touch_training(corpus: Path) -> None:
    one, five = (llama(corpus, checkpoints=n, evaluation_tokens=16) for n in (1, 5))
    assert final(one) == final(five)


def test_micro_batches_add_up(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bimix_tune.training.device.compute_dtype", lambda d: torch.float32)
    whole = final(llama(corpus))
    monkeypatch.setattr("bimix_tune.training.memory.CPU_MICRO_BATCH", 48)
    assert final(llama(corpus)) == pytest.approx(whole, rel=1e-4)


def test_signs_of_life(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bimix_tune.training.loop.SIGN_OF_LIFE", 0.0)
    checkpoints = list(llama(corpus, checkpoints=2).run(MIXTURE, 0))
    assert [c.tokens for c in checkpoints] == [160 * i for i in range(13)] + [2000]
    assert sum(bool(c.losses) for c in checkpoints) == 2
    assert checkpoints[0].notes["device"] == "cpu"
    assert checkpoints[-1].notes["epochs.ab"] == pytest.approx(0.5 * 125 / 374, abs=0.01)


@pytest.mark.parametrize("kind", ["llama", "transformers"])
def test_saved_weights_have_the_losses_reported(kind: str, corpus: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    from bimix_tune.corpus import Corpus
    from bimix_tune.training.evaluate import affordable_tokens, fixed_windows

    options = {"save_to": tmp_path / "out", "unit": "nats/token", "evaluation_tokens": 10**6}
    if kind == "llama":
        trainer = llama(corpus, tokens=4000, **options)
    else:
        trainer = TransformersTrainer(
            corpus=corpus, tokens=4000, model=TINY, sequence_length=16, device="cpu", **options
        )
    end = list(trainer.run(MIXTURE, 0))[-1]
    model = AutoModelForCausalLM.from_pretrained(end.notes["weights"])
    read = affordable_tokens(10**6, 4000, 3, 6)[1] // 16
    windows = torch.from_numpy(fixed_windows(Corpus.open(corpus).tokens("ab", "valid"), 16, read))
    with torch.no_grad():
        logits = model(input_ids=windows[:, :-1]).logits
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())
    assert end.losses["ab"] == pytest.approx(loss.item(), rel=0.01)  # bfloat16 against float32
    assert len(list((tmp_path / "out").iterdir())) == 1


def test_transformers_and_lean_llama_train_alike(
    corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the same weights, in float32, both kinds of proxy see the same losses."""
    from bimix_tune.training.model import Llama
    from bimix_tune.training.sizes import shape_of

    monkeypatch.setattr("bimix_tune.training.device.compute_dtype", lambda d: torch.float32)
    ours = llama(corpus, learning_rate=2e-3)
    start = Llama(shape_of("0.1M"), 64)
    start.initialise(torch.Generator().manual_seed(4))
    theirs = TransformersTrainer(
        corpus=corpus,
        tokens=2000,
        model=start.config(64, 0),
        sequence_length=16,
        batch_tokens=160,
        learning_rate=2e-3,
        device="cpu",
    )
    build = TransformersTrainer.build

    def same_weights(self, *arguments: object) -> Proxy:
        proxy = build(self, *arguments)
        proxy.module.load_state_dict(start.state_dict())
        return proxy

    monkeypatch.setattr(TransformersTrainer, "build", same_weights)
    assert final(theirs, seed=4) == pytest.approx(final(ours, seed=4), rel=1e-4)


def test_closing_frees_the_model(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build, models = LlamaTrainer.build, []

    def watched(self, *arguments: object) -> Proxy:
        proxy = build(self, *arguments)
        models.append(weakref.ref(proxy.module))
        return proxy

    monkeypatch.setattr(LlamaTrainer, "build", watched)
    run = llama(corpus).run(MIXTURE, 0)
    next(run)
    assert models[0]() is not None
    run.close()
    gc.collect()
    assert models[0]() is None


def test_paths_hold_in_another_folder(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(corpus.parent)
    trainer = llama(Path(corpus.name), save_to="out")
    monkeypatch.chdir(tmp_path)
    assert final(trainer) == final(llama(corpus))
    assert trainer.save_to == corpus.parent / "out"


def test_divergence_is_named(corpus: Path) -> None:
    with pytest.raises(DivergedError, match=r"after \d+ tokens on Mixture\(ab: 0.5000"):
        final(llama(corpus, learning_rate=1e30))


def test_running_out_of_memory_is_named(corpus: Path) -> None:
    huge = {**TINY, "intermediate_size": 10**13}
    trainer = TransformersTrainer(
        corpus=corpus,
        tokens=100,
        model=huge,
        sequence_length=16,
        batch_tokens=160,
        learning_rate=1e-3,
        device="cpu",
    )
    with pytest.raises(OutOfMemoryError, match=r"10 sequences of 16 tokens.*lower size"):
        final(trainer)


@pytest.mark.parametrize(
    "error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("x")]
)
def test_kinds_of_memory_errors(error: Exception) -> None:
    wanted = RuntimeError if str(error) == "x" else OutOfMemoryError
    with pytest.raises(wanted) as caught, memory_errors("it"):
        raise error
    assert (type(caught.value) is OutOfMemoryError) == (str(error) != "x")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tokens": 0}, "tokens must be a whole number > 0, but got 0"),
        ({"tokens": 1.5}, "tokens must be a whole number > 0"),
        ({"learning_rate": -1.0}, "learning_rate must be a number > 0"),
        ({"unit": "bits"}, "unit must be 'bits/byte' or 'nats/token'"),
        ({"targets": ("abc",)}, "did you mean 'ab'"),
        ({"targets": "ab"}, "targets must be a list, but got 'ab'"),
        ({"size": "many"}, "size must be a whole number such as"),
        ({"size": "10k"}, "between 0.1M and 1B"),
    ],
)
def test_wrong_options_are_named(options: dict, message: str, corpus: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        llama(corpus, **options)


def test_a_domain_that_is_not_named_is_not_trained_on(corpus: Path) -> None:
    named = final(llama(corpus), Mixture(("ab", "cd", "mixed"), [0.5, 0.5, 0.0]))
    assert final(llama(corpus), Mixture(("ab", "cd"), [0.5, 0.5])) == named


def test_wrong_mixtures_and_corpora_are_named(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(MixtureError, match="'mixt' that the corpus has not; did you mean 'mixed'"):
        final(llama(corpus), Mixture(("ab", "mixt"), [0.5, 0.5]))
    with pytest.raises(CorpusError, match="is no corpus"):
        llama(tmp_path)
    with pytest.raises(CorpusError, match="needs more than sequence_length = 2000"):
        final(llama(corpus, sequence_length=2000))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"hidden_size": 32}, "has no `model_type`"),
        ({"model_type": "lama"}, "no usable model configuration"),
        ("missing.json", "no usable model configuration in 'missing.json'"),
    ],
)
def test_wrong_models_are_named(model: object, message: str, corpus: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        TransformersTrainer(corpus=corpus, tokens=100, model=model, device="cpu").steps()


def test_a_model_can_be_a_file_or_a_folder(corpus: Path, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(TINY))
    for model in (path, tmp_path):
        config = transformers_module.configuration(model, Corpus.open(corpus))
        assert (config.hidden_size, config.vocab_size) == (32, 64)


@pytest.mark.parametrize("model", ["config.json", "."])
def test_a_model_is_found_once_wherever_a_worker_starts(
    model: str, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    found = transformers_module.configuration
    monkeypatch.setattr(
        transformers_module, "configuration", lambda *args: calls.append(args) or found(*args)
    )
    (tmp_path / "config.json").write_text(json.dumps(TINY))
    monkeypatch.chdir(tmp_path)
    trainer = TransformersTrainer(corpus=corpus, tokens=500, model=model, device="cpu")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert final(trainer)
    (tmp_path / "config.json").unlink()
    assert final(pickle.loads(pickle.dumps(trainer))) == final(trainer)  # our own bytes
    assert len(calls) == 1


def test_a_missing_library_is_named(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    absent = {"torch"}
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda n, *a: None if n in absent else found(n, *a)
    )
    with pytest.raises(MissingExtraError, match=r"bimix-tune\[train\]"):
        llama(corpus)


def test_threads_are_given_back_at_the_end_of_a_run(corpus: Path) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        for stopped in (False, True):
            run = llama(corpus).run(MIXTURE, 0)
            next(run)
            assert torch.get_num_threads() == 1
            if stopped:
                run.close()
            else:
                list(run)
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_devices() -> None:
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(ConfigError, match="device 'tpu9' cannot be used"):
        choose_device("tpu9")
    assert compute_dtype(torch.device("meta")) == torch.float32


def test_passes_are_micro_batches_of_all_steps() -> None:
    assert passes(Steps(10**6, 128, 24), 12) == 2 * 326


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_gpu_trains_like_cpu(corpus: Path) -> None:
    cpu = final(llama(corpus, tokens=6000))
    gpu = final(llama(corpus, tokens=6000, device="cuda"))
    assert gpu == pytest.approx(cpu, rel=0.03)
    notes = next(llama(corpus, device="auto").run(MIXTURE, 0)).notes
    assert (notes["device"], notes["dtype"]) == ("cuda", "bfloat16")
