"""Command lines, from Hydra's grammar."""

from hypothesis import strategies as st

from .configurations import numbers, often, words
from .outcome import Kind, typed

KEYS = """
    seed model model.hidden model.activation training.epochs training.callbacks tracking tracking.uri
    tracking.tags dataset dataset.path dataset.validation optimizer optimizer.learning_rate
    preprocessing.augment experiment sweep prune backend objective direction resume code hydra hydra.run.dir
    hydra.sweep.dir hydra.sweep.subdir hydra/launcher hydra.mode hydra/sweeper hydra.sweeper.params
    hydra.sweeper.n_trials hydra.sweeper.kind hydra.sweeper.initial_seeds hydra.verbose hydra.sweeper.max_jobs
    hydra.sweeper.indifference hydra.sweeper.from_sweep hydra.job.name hydra.job.chdir hydra.searchpath
    hydra.output_subdir hydra.sweeper hydra.launcher hydra.job.num model/layers model@x ???
"""
keys = st.sampled_from(KEYS.split())
literal = st.one_of(
    numbers.map(str),
    words,
    words.map(lambda text: f"'{text}'"),
    st.sampled_from(
        "null true inf -inf nan 1e-12 ??? ${seed} ${oc.env:HOME} ${ ${.x} cnn mlp grid race random a=b".split()  # noqa: SIM905
    ),
    st.sampled_from(
        [
            "sqlite:///x.db",
            "'postgresql://me:pass word@host/db'",
            "http://127.0.0.1:9",
            "[",
            "}",
            "(",
            ",",
            "\\",
            " ",
            "",
        ]
    ),
)
FUNCTIONS = "choice range interval glob sort shuffle tag int float str bool extend_list unknown".split()  # noqa: SIM905
values = st.recursive(
    literal,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: f"[{','.join(items)}]"),
        st.lists(st.tuples(literal, inner), max_size=3).map(
            lambda pairs: "{" + ",".join(f"{k}:{v}" for k, v in pairs) + "}"
        ),
        st.tuples(st.sampled_from(FUNCTIONS), st.lists(inner | st.just("reverse=true"), max_size=3)).map(
            lambda call: f"{call[0]}({','.join(call[1])})"
        ),
        st.lists(inner, min_size=2, max_size=3).map(",".join),
        st.tuples(inner, st.sampled_from([3, 60, 500, 5000])).map(lambda pair: pair[0] * pair[1]),
        st.sampled_from([40, 3000]).map(lambda n: "[" * n + "]" * n),
    ),
    max_leaves=6,
)
override = st.tuples(
    st.sampled_from(["", "", "", "", "+", "++", "~"]),
    often(keys, words),
    st.sampled_from(["=", "=", "=", "=", "", "+=", "=="]),
    values,
).map("".join)
FLAGS = """-m -m -m --multirun --help --hydra-help --version --info --resolve --cfg=job --cfg=hydra --cfg=x
    --info=config --package=model -p --config-dir=. --config-dir -cd -cp=. -cn=x --config-name=config -sc=query=bash
    --shell-completion --run -r --experimental-rerun=x -x --unknown --"""
lines = st.lists(often(override, st.sampled_from(FLAGS.split())), max_size=4).flatmap(
    lambda line: st.sampled_from([line, ["-m", *line], ["--cfg", "job", *line], ["-m", "sweep=race", *line]])
)

KINDS = {"command lines": Kind(lines, typed)}
