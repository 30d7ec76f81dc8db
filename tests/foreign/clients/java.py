"""The Java client, newest: the reference implementation, in a JVM that java/ClientDaemon.java runs."""

import subprocess

from harness import paths

from .daemon import Daemon, DaemonClient


def compiled():
    """The folder with the compiled daemon; compiled anew when its source is newer."""
    source = paths.FOREIGN / "java" / "ClientDaemon.java"
    classes = paths.CACHE / "java" / "classes"
    built = classes / "ClientDaemon.class"
    if not built.exists() or built.stat().st_mtime < source.stat().st_mtime:
        classes.mkdir(parents=True, exist_ok=True)
        subprocess.run(["javac", "-nowarn", "-cp", paths.jars("client"), "-d", str(classes), str(source)], check=True)
    return classes


class Java(DaemonClient):
    """kafka-clients."""

    name = "java"

    def _spawn(self):
        jvm = ["java", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto"]
        return Daemon([*jvm, "-cp", f"{compiled()}:{paths.jars('client')}", "ClientDaemon", self.address])
