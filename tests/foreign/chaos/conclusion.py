"""How it ends: everybody comes to an end, and everything that was promised is looked at."""

from chaos import replicas
from chaos.load import PARTITIONS, TOPIC
from chaos.view import OFFSETS_TOPIC

SETTLE_S = 90


def conclude(cluster, world, say):
    """Nothing is the matter any more. `say` is told how far it is."""
    world.end_writing()
    cluster.settle([TOPIC, OFFSETS_TOPIC], SETTLE_S)
    say("every partition has its leader and all replicas in sync")
    ends = replicas.ends(cluster, TOPIC, PARTITIONS)
    # Before the readers: where something is lost, this says what.
    stored = replicas.read_each(cluster, TOPIC, ends)
    say(f"the books balance on each replica: {world.balance(stored)}")
    world.read_to(ends)
    world.have_read(stored)
    say(f"followers and groups have come to the ends, {ends}\n{world.told()}")
    world.was_busy()
    cluster.end()
