"""The first search again, shorter and two proxies at a time, on Ray.

An executor says where the proxies train. `LocalExecutor` is this process; `RayExecutor` is a
Ray cluster, with one long-lived worker process for each slot. The search itself does not change:
each free worker gets the proposal of another plausible law, so parallel proposals differ. Run it
with ``python examples/06_on_a_ray_cluster.py`` (under a minute; needs the extra ``ray``).
"""

from pathlib import Path
from time import monotonic

from bimix_tune import BimixError, Domain, SearchSpace, load_trainer, search
from bimix_tune.report import verdict

try:
    from bimix_tune import RayExecutor
except BimixError as error:  # Ray is not installed; the message says how to mend that
    print("skipped:", error)
    raise SystemExit from None

space = SearchSpace(
    [
        Domain("web", prior=0.70),
        Domain("code", prior=0.15),
        Domain("books", prior=0.10),
        Domain("wiki", prior=0.05),
    ]
)

# A run sleeps 0.1 s before each of its six checkpoints, to have something to do at the same time.
trainer = load_trainer("synthetic", domains=space.names, tokens=2_000_000, problem=7, sleep=0.1)

# 1. Ray starts on this machine and ends with the `with` block. For a cluster that is running, say
#    address="auto" on one of its machines, or "host:port"; slots=None takes all the room there
#    is, with one GPU for each slot if there are any. This asks for half a CPU core per slot.
#    A worker that dies or hangs is replaced and its run repeated.
began = monotonic()
with RayExecutor(trainer, slots=2, cpus_per_slot=0.5) as executor:
    print(f"{executor.slots} workers after {monotonic() - began:.1f} s")
    began = monotonic()
    folder = Path("runs/on_ray")
    result = search(space, trainer, folder=folder, trials=10, executor=executor, confirm_seeds=2)
    took = monotonic() - began

# 2. The result has the same form whatever the executor.
print("recommendation:", result.recommendation)
print("law:", result.fit.status)
print(verdict(result).sentence)
trained = sum(record.seconds for record in result.records)
print(f"{len(result.records)} runs with {trained:.1f} s of training took {took:.1f} s")
