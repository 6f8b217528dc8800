"""Loss curves keep their shape, survive JSON, and are read from the tables people publish."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bimix_tune.curves import (
    BITS_PER_BYTE,
    LossCurve,
    read_curves,
    write_atomic,
    write_curves,
)
from bimix_tune.errors import CurveError, MixtureError
from bimix_tune.mixture import Mixture

MIXTURE = Mixture(["web", "code"], [0.75, 0.25])


@st.composite
def curves(draw):
    s, v = draw(st.integers(1, 5)), draw(st.integers(1, 4))
    tokens = np.cumsum(draw(st.lists(st.integers(1, 10**9), min_size=s, max_size=s)))
    loss = st.one_of(st.floats(1e-3, 20.0), st.just(math.nan))
    return LossCurve(
        MIXTURE,
        tokens,
        [[draw(loss) for _ in range(v)] for _ in range(s)],
        [f"t{i}" for i in range(v)],
        draw(st.one_of(st.none(), st.lists(st.booleans(), min_size=s, max_size=s))),
        seed=draw(st.integers(0, 99)),
        unit=draw(st.sampled_from(["nats/token", BITS_PER_BYTE])),
        scale=draw(st.text(max_size=5)),
        run=draw(st.text(max_size=5)),
    )


def assert_same(a, b):
    assert (a.mixture, a.targets, a.seed, a.unit, a.scale, a.run) == (
        (b.mixture, b.targets, b.seed, b.unit, b.scale, b.run)
    )
    assert a.mixture.names == b.mixture.names
    for name in ("tokens", "losses", "decayed"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


class TestLossCurve:
    def test_defaults(self):
        c = LossCurve(MIXTURE, [1, 2], [[3.0, 4.0], [2.0, 3.0]])
        assert c.targets == ("web", "code")
        assert c.final() == {"web": 2.0, "code": 3.0}
        assert not c.decayed.any()

    @pytest.mark.parametrize(
        ("tokens", "losses", "targets", "shape"),
        [
            (5, [3.0, 4.0], None, (1, 2)),
            ([5], [3.0, 4.0], None, (1, 2)),
            ([1, 2, 3], [3.0, 2.0, 1.0], ["t"], (3, 1)),
            (5, 3.0, ["t"], (1, 1)),
        ],
    )
    def test_flat_losses_where_there_is_one_reading(self, tokens, losses, targets, shape):
        assert LossCurve(MIXTURE, tokens, losses, targets).losses.shape == shape

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"tokens": [2, 1]}, "tokens must be positive and increase"),
            ({"tokens": [1, 1]}, "tokens must be positive and increase"),
            ({"tokens": [0, 1]}, "tokens must be positive"),
            ({"tokens": [1, math.inf]}, "tokens must be positive"),
            ({"tokens": [1, math.nan]}, "tokens must be positive"),
            ({"tokens": [], "losses": []}, "tokens must be positive"),
            ({"losses": [[1.0, 2.0]]}, r"\(2, 2\), but got \(1, 2\)"),
            # Four numbers would fit when reshaped, and be scrambled.
            ({"losses": [1.0, 2.0, 3.0, 4.0]}, r"\(2, 2\), but got \(4,\)"),
            (
                {"losses": [[1.0] * 2] * 3, "targets": ["a", "b", "c"]},
                r"\(2, 3\), but got \(3, 2\)",
            ),
            ({"targets": ["a"]}, r"\(2, 1\), but got \(2, 2\)"),
            ({"targets": ["a", "a"]}, "target names must differ"),
            ({"decayed": [True]}, r"decayed must have shape \(2,\)"),
            ({"losses": [[1.0, math.inf], [1.0, 1.0]]}, "positive and finite"),
            ({"losses": [[1.0, 0.0], [1.0, 1.0]]}, "positive and finite"),
            ({"unit": "nats"}, "unit must be 'nats/token' or 'bits/byte', but got 'nats'"),
        ],
    )
    def test_refuses_arrays_that_disagree(self, change, message):
        fields = {"tokens": [1, 2], "losses": [[3.0, 4.0], [2.0, 3.0]], "run": "r7", **change}
        with pytest.raises(CurveError, match=message) as error:
            LossCurve(MIXTURE, **fields)
        assert str(error.value).startswith("run 'r7': ")

    def test_is_read_only(self):
        losses = np.array([[3.0, 4.0]])
        c = LossCurve(MIXTURE, [1], losses)
        losses[0, 0] = 99.0
        assert c.losses[0, 0] == 3.0
        with pytest.raises(ValueError, match="read-only"):
            c.losses[0, 0] = 1.0
        with pytest.raises(AttributeError):
            c.seed = 3


class TestJson:
    @given(curves())
    def test_round_trip(self, c):
        line = c.to_json()
        assert "\n" not in line
        json.loads(line, parse_constant=pytest.fail)  # strict JSON has no NaN
        assert_same(LossCurve.from_json(line), c)

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ("{", "not a loss curve: JSONDecodeError"),
            ("[]", "not a loss curve: TypeError"),
            ('{"mixture": {"a": 1.0}}', "not a loss curve: KeyError: 'losses'"),
            ('{"mixture": [1], "losses": [], "tokens": []}', "AttributeError"),
            ('{"mixture": {"a": 1.0}, "losses": [["x"]], "tokens": [1]}', "ValueError"),
            ('{"mixture": {"a": 1.0}, "losses": [[1.0]], "tokens": [-1]}', "tokens must be"),
        ],
    )
    def test_errors(self, line, message):
        with pytest.raises(CurveError, match=message):
            LossCurve.from_json(line)

    def test_a_mixture_that_is_none(self):
        with pytest.raises(MixtureError, match="must sum to 1"):
            LossCurve.from_json('{"mixture": {"a": 0.5}, "losses": [[1.0]], "tokens": [1]}')


def write(folder, **files):
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text, encoding="utf-8")
    return folder


class TestReadCurves:
    def test_json_lines_from_file_and_folder(self, tmp_path):
        written = [LossCurve(MIXTURE, [1], [[1.0, math.nan]], run=str(i)) for i in range(3)]
        path = tmp_path / "new" / "curves.jsonl"
        write_curves(path, written)
        with path.open("a") as file:
            file.write("\n")
        for source in (path, tmp_path / "new", str(path)):
            back = read_curves(source)
            assert len(back) == 3
            for a, b in zip(back, written, strict=True):
                assert_same(a, b)

    def test_an_error_names_the_line(self, tmp_path):
        path = tmp_path / "curves.jsonl"
        good = LossCurve(MIXTURE, [1], [[1.0, 1.0]]).to_json()
        bad = json.dumps({**json.loads(good), "mixture": {"web": 0.5, "code": 0.1}})
        path.write_text(f"{good}\n\n{bad}\n")
        with pytest.raises(CurveError, match=r"curves.jsonl, line 3: .*sum to 0.6"):
            read_curves(path)

    def test_runs_and_losses(self, tmp_path):
        folder = write(
            tmp_path / "t",
            runs__csv="run_id,seed,model_label,r_web,r_code\na,3,1M,0.7,0.301\nb,,,1,0\nc,,,0,1\n",
            losses__csv=(
                "run_id,tokens,loss_web,loss_math\nb,100,2.5,\na,200,2.0,3.0\na,100,2.2,3.2\n"
            ),
        )
        a, b = read_curves(folder)
        assert (a.run, a.seed, a.scale, a.targets) == ("a", 3, "1M", ("web", "math"))
        assert dict(a.mixture) == pytest.approx({"web": 0.7 / 1.001, "code": 0.301 / 1.001})
        np.testing.assert_array_equal(a.tokens, [100, 200])
        np.testing.assert_array_equal(a.losses, [[2.2, 3.2], [2.0, 3.0]])
        assert (b.run, b.seed) == ("b", 0)
        np.testing.assert_array_equal(b.losses, [[2.5, math.nan]])

    def test_olmix_pair(self, tmp_path):
        folder = write(
            tmp_path / "t",
            ratios__csv="run,name,index,web,code\nx1,n,0,0.25,0.75\n",
            metrics__csv="run,name,index,arc,hellaswag\nx1,n,0,1.5,2.5\n",
        )
        (c,) = read_curves(folder)
        assert dict(c.mixture) == {"web": 0.25, "code": 0.75}
        assert c.final() == {"arc": 1.5, "hellaswag": 2.5}
        assert c.tokens.tolist() == [1.0]

    def test_one_table_with_a_byte_order_mark(self, tmp_path):
        path = tmp_path / "t.csv"
        text = "run_id,tokens,r_web,r_code,loss_web\na,10,0.5,0.5,3\na,20,0.5,0.5,2\nb,10,1,0,4\n"
        path.write_text("\ufeff" + text, encoding="utf-8")
        a, b = read_curves(path)
        assert (a.run, a.tokens.tolist(), a.losses.tolist()) == ("a", [10, 20], [[3.0], [2.0]])
        assert (b.run, b.final()) == ("b", {"web": 4.0})

    def test_one_table_without_names_of_runs(self, tmp_path):
        path = tmp_path / "t.csv"
        path.write_text("r_web,r_code,loss_web\n0.5,0.5,3\n1,0,4\n")
        assert [c.run for c in read_curves(path)] == ["0", "1"]

    @pytest.mark.parametrize(
        ("runs", "losses", "message"),
        [
            ("a,0.5,0.4\n", "a,1,2.0\n", r"runs.csv, row 2: proportions sum to 0.9, not to 1"),
            ("a,0.5,0.5\nb,0.5,\n", "b,1,2.0\n", r"runs.csv, row 3: proportions sum to nan"),
            ("a,0.5,x\n", "a,1,2.0\n", r"runs.csv, row 2: column 'r_code' holds 'x', not a num"),
            ("a,1.5,-0.5\n", "a,1,2.0\n", r"runs.csv, row 2: .*'code' must be a finite number"),
            ("a,1,0\na,1,0\n", "a,1,2.0\n", r"runs.csv, row 3: run 'a' occurs twice"),
            ("a,1,0\n", "a,1,2.0\na,1,2.1\n", r"losses.csv, row 3: .*two rows of losses at 1 "),
            ("a,1,0\n", "a,1,two\n", r"losses.csv, row 2: column 'loss_web' holds 'two'"),
            ("a,1,0\n", "a,soon,2\n", r"losses.csv, row 2: column 'tokens' holds 'soon'"),
            ("a,1,0\n", "a,1,2,5\n", r"losses.csv, row 2: more cells than the header"),
            ("a,1,0\n", "a,1,-2\n", r"runs.csv, row 2: run 'a': losses must be positive"),
            ("", "a,1,2\n", r"runs.csv holds no rows"),
            ("a,1,0\n", "", r"losses.csv holds no rows"),
        ],
    )
    def test_an_error_names_file_row_and_column(self, tmp_path, runs, losses, message):
        folder = write(
            tmp_path / "t",
            runs__csv="run_id,r_web,r_code\n" + runs,
            losses__csv="run_id,tokens,loss_web\n" + losses,
        )
        with pytest.raises(CurveError, match=message):
            read_curves(folder)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("web,loss_web\n1,2\n", r"no columns r_<domain>; found \['web', 'loss_web'\]"),
            ("r_web,web\n1,2\n", r"no columns loss_<target>; found \['r_web', 'web'\]"),
        ],
    )
    def test_one_table_needs_both_kinds_of_columns(self, tmp_path, text, message):
        path = tmp_path / "t.csv"
        path.write_text(text)
        with pytest.raises(CurveError, match=message):
            read_curves(path)

    def test_nothing_there(self, tmp_path):
        with pytest.raises(CurveError, match=r"holds no runs: expected curves\.jsonl"):
            read_curves(tmp_path)
        with pytest.raises(CurveError, match="no such file or folder"):
            read_curves(tmp_path / "x.jsonl")

    @pytest.mark.parametrize("text", ["", "\n  \n"])
    def test_no_line_is_no_run(self, tmp_path, text):
        path = tmp_path / "curves.jsonl"
        path.write_text(text)
        with pytest.raises(CurveError, match=r"curves\.jsonl holds no runs"):
            read_curves(tmp_path)

    @pytest.mark.parametrize("name", ["runs.jsonl", "runs.csv", "weights.bin"])
    def test_what_is_no_text(self, tmp_path, name):
        (tmp_path / name).write_bytes(b"\x80\x02}q\x00\xff")
        with pytest.raises(CurveError, match=rf"{name} is not text"):
            read_curves(tmp_path / name)

    def test_what_cannot_be_read(self, tmp_path):
        for name in ("runs.csv", "losses.csv"):
            (tmp_path / name).mkdir()
        with pytest.raises(CurveError, match=r"runs\.csv cannot be read: Is a directory"):
            read_curves(tmp_path)
        (tmp_path / "t.csv").write_text('r_a,loss_a\n1,"' + "2" * 200_000 + '"\n')
        with pytest.raises(CurveError, match=r"t\.csv is no table"):
            read_curves(tmp_path / "t.csv")

    def test_a_table_may_say_what_decayed_and_in_which_unit(self, tmp_path):
        path = tmp_path / "t.csv"
        path.write_text(
            "run_id,tokens,decayed,unit,r_web,loss_web\n"
            "a,10,,bits/byte,1,3\na,20,True,bits/byte,1,2\nb,10,0,,1,3\nb,20,1,,1,2\n"
        )
        a, b = read_curves(path)
        assert (a.decayed.tolist(), b.decayed.tolist()) == ([False, True], [False, True])
        assert (a.unit, b.unit) == (BITS_PER_BYTE, "nats/token")

    @pytest.mark.parametrize(
        ("cells", "message"),
        [
            ("maybe,", r"t\.csv, row 2: column 'decayed' must hold 0, 1, true or false.*'maybe'"),
            ("1,bits", r"t\.csv, row 2: .*unit must be .* but got 'bits'"),
        ],
    )
    def test_wrong_words_in_a_table_are_named(self, tmp_path, cells, message):
        path = tmp_path / "t.csv"
        path.write_text(f"decayed,unit,r_web,loss_web\n{cells},1,3\n")
        with pytest.raises(CurveError, match=message):
            read_curves(path)

    def test_tables_without_a_common_column(self, tmp_path):
        folder = write(tmp_path / "t", runs__csv="r_web\n1\n", losses__csv="run_id,loss_web\na,1\n")
        with pytest.raises(CurveError, match="need a common column run_id or run"):
            read_curves(folder)


def test_write_atomic_replaces_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "deep" / "file.txt"
    write_atomic(path, "old")
    write_atomic(path, "new ü")
    assert path.read_text(encoding="utf-8") == "new ü"
    assert [p.name for p in path.parent.iterdir()] == ["file.txt"]
