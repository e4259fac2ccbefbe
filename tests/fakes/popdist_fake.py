"""What popdist does in a process that poprun started: FAKE_POPDIST is `instances,replicas,ipus per replica`, of all."""

from __future__ import annotations

import os


def _told():
    return [int(part) for part in os.environ["FAKE_POPDIST"].split(",")]


def _device(ipus_per_replica, connectionType):
    import popart

    assert ipus_per_replica == _told()[2]

    return popart.DeviceManager().tryAcquireAvailableDevice(_told()[1] // _told()[0] * _told()[2])


def _configure(options):
    """Set the replicas without a record: the backend does not do it."""
    for name, value in (("enableReplicatedGraphs", True), ("replicatedGraphCount", _told()[1] // _told()[0])):
        getattr(type(options), name).store(options, value)


BEHAVIOURS = {
    "popdist.isPopdistEnvSet": lambda: "FAKE_POPDIST" in os.environ,
    "popdist.getNumInstances": lambda: _told()[0],
    "popdist.getNumTotalReplicas": lambda: _told()[1],
    "popdist.getNumLocalReplicas": lambda: _told()[1] // _told()[0],
    "popdist.getNumIpusPerReplica": lambda: _told()[2],
    "popdist.popart.configureSessionOptions": _configure,
    "popdist.popart.getDevice": _device,
}
