"""What befalls brokers: each fault begins, lasts and ends, and the cluster is whole again. Names are those of schedule.py."""

from chaos.nodes import CLIENTS


class Fault:
    """One fault of some brokers of a cluster. `says` are patterns of what their logs may say of it."""

    says = ()

    def __init__(self, cluster, brokers):
        self.cluster, self.brokers = cluster, brokers
        self.others = [number for number in cluster.nodes if number not in brokers]
        for number in brokers:
            cluster.expected[number] += self.says

    def begin(self):
        raise NotImplementedError

    def end(self):
        raise NotImplementedError

    def __str__(self):
        return f"{self.__doc__.rstrip('.')}: {', '.join(map(str, self.brokers))}"


class Kill(Fault):
    """Killed by kill -9, and started again."""

    def begin(self):
        self.cluster.kill(*self.brokers)

    def end(self):
        self.cluster.bring_back(*self.brokers)


class MajorityKilled(Kill):
    """A majority killed by kill -9, and started again together."""


class AllKilled(Kill):
    """All killed by kill -9 at once, and started again together; a power loss where brokers forget."""


class Pause(Fault):
    """Standing still: its connections are open and nobody reads them."""

    def begin(self):
        for number in self.brokers:
            self.cluster.signal(number, "SIGSTOP")

    def end(self):
        for number in self.brokers:
            self.cluster.signal(number, "SIGCONT")


class ShortPause(Pause):
    """Standing still for less than its session."""


class LongPause(Pause):
    """Standing still for longer than its session."""


class Drop(Fault):
    """Packets that vanish; `pairs` says which."""

    def pairs(self):
        """(sender, receiver) of all that vanishes."""
        raise NotImplementedError

    def begin(self):
        self.cluster.network.drop(self.pairs())

    def end(self):
        self.cluster.network.drop([])


class Deaf(Drop):
    """Nothing of the other brokers reaches it; they hear it."""

    def pairs(self):
        return [(other, number) for number in self.brokers for other in self.others]


class Mute(Drop):
    """Nothing that it says reaches the other brokers; it hears them."""

    def pairs(self):
        return [(number, other) for number in self.brokers for other in self.others]


class Cut(Drop):
    """Cut off from the other brokers; clients reach it."""

    def pairs(self):
        ways = [(number, other) for number in self.brokers for other in self.others]
        return ways + [(receiver, sender) for sender, receiver in ways]


class CutFromClients(Drop):
    """Cut off from clients; the other brokers reach it."""

    def pairs(self):
        return [way for number in self.brokers for way in ((CLIENTS, number), (number, CLIENTS))]


class SlowLink(Fault):
    """A link of 1 Mbit/s, much less than what is to go over it."""

    def begin(self):
        for number in self.brokers:
            self.cluster.network.limit(number, "1mbit")

    def end(self):
        for number in self.brokers:
            self.cluster.network.limit(number, None)


class FullDisk(Fault):
    """A disk that is filled to the last byte, and freed."""

    says = (
        r"free space is at the reserve: records are refused",
        r"no room: records are refused",
        r"the key-value store has no room; its writes wait",
        r"no further journal file can be made; going on with those that exist",
        r"journal frames not set aside yet",
        r"journal frames set aside",
        r"coordinator snapshot was not written",
    )

    def begin(self):
        for number in self.brokers:
            self.cluster.nodes[number].disk.fill()

    def end(self):
        for number in self.brokers:
            self.cluster.nodes[number].disk.free()


class Stop(Fault):
    """Stopped by SIGTERM, and started again."""

    def begin(self):
        for number in self.brokers:
            self.cluster.stop(number)

    def end(self):
        self.cluster.bring_back(*self.brokers)


class Rolling(Fault):
    """Stopped by SIGTERM and started again, one after the other."""

    def begin(self):
        for number in self.brokers:
            self.cluster.stop(number)
            self.cluster.bring_back(number)

    def end(self):
        pass


CATALOGUE = {
    "kill": Kill,
    "short pause": ShortPause,
    "long pause": LongPause,
    "cut": Cut,
    "deaf": Deaf,
    "mute": Mute,
    "cut from clients": CutFromClients,
    "slow link": SlowLink,
    "full disk": FullDisk,
    "stop": Stop,
    "rolling": Rolling,
    "majority killed": MajorityKilled,
    "all killed": AllKilled,
}
