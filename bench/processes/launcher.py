"""The launcher of this process: torchrun, mpirun or poprun, or none.

A launcher passes ranks by environment variables. Rank 0 listens at torchrun's master address; with the other launchers
all processes run on one machine, or the user gives the address by `--rendezvous`. Port and key are derived from the
launcher's job, so that two jobs on one machine stay apart.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Optional, Sequence

from bench import devices as device
from bench.group import LOOPBACK

PORTS = (20000, 60000)


@dataclass(frozen=True)
class Launched:
    """Process `rank` of `count`, and `local_rank` of `local_count` on this machine. All of them have the same `job`."""

    by: str
    rank: int
    count: int
    local_rank: int
    local_count: int
    host: str
    job: str

    def place(self, rendezvous: Optional[str] = None) -> Dict[str, Any]:
        """The rendezvous of the group, for `bench.group`. Raises ValueError if it is unknown or not HOST:PORT."""
        key = hashlib.sha256(self.job.encode()).hexdigest()[:32]
        host, port = self.host, PORTS[0] + int(key[:8], 16) % (PORTS[1] - PORTS[0])
        if rendezvous is not None:
            host, _, text = rendezvous.rpartition(":")
            if not host or not text.isdigit() or not 0 < int(text) < 65536:
                raise ValueError(f"--rendezvous {rendezvous}: HOST:PORT is needed, where rank 0 can be reached")
            port = int(text)
        elif self.local_count < self.count and host == LOOPBACK:
            raise ValueError(
                f"{self.by} started {self.count} processes, {self.local_count} of them here; say where rank 0 can be"
                f" reached: --rendezvous HOST:PORT"
            )
        return {"rank": self.rank, "count": self.count, "host": host, "port": port, "key": key}

    def require(self, replicas: Sequence[int], devices: Sequence[str]) -> None:
        """Raise ValueError unless each process has one replica, or the same number if the device replicates."""
        for count in replicas:
            if count != self.count and not (device.replicate(devices) and count % self.count == 0):
                raise ValueError(
                    f"--replicas {count}: {self.by} started {self.count} processes; give {self.count}, or leave it out"
                )

    def cores(self, usable: Sequence[int], threads: int) -> List[int]:
        """This process's share of the usable cores; all of them if the launcher has bound it to its share already."""
        if self.local_count * threads > len(usable):
            return list(usable)
        first = len(usable) - (self.local_count - self.local_rank) * threads
        return list(usable[first : first + threads])


def detect(environ: Mapping[str, str]) -> Optional[Launched]:
    """The launcher that started this process. None: no launcher, or a single process."""
    launched = _torchrun(environ) or _mpi(environ)
    return launched if launched is not None and launched.count > 1 else None


def alone_under_poprun(environ: Mapping[str, str]) -> bool:
    """Whether poprun started a single process. Its library works in that process only, not in workers of it."""
    launched = _mpi(environ)
    return launched is not None and launched.by == "poprun" and launched.count == 1


def _torchrun(environ: Mapping[str, str]) -> Optional[Launched]:
    if "TORCHELASTIC_RUN_ID" not in environ:
        return None
    return Launched(
        "torchrun",
        int(environ["RANK"]),
        int(environ["WORLD_SIZE"]),
        int(environ["LOCAL_RANK"]),
        int(environ["LOCAL_WORLD_SIZE"]),
        environ["MASTER_ADDR"].replace("localhost", LOOPBACK),
        f"{environ['TORCHELASTIC_RUN_ID']} {environ['MASTER_ADDR']}:{environ['MASTER_PORT']}",
    )


def _mpi(environ: Mapping[str, str]) -> Optional[Launched]:
    """mpirun of Open MPI (poprun uses it too) or of MPICH."""
    # The variables of poprun are not documented; they start with the name of its library.
    by = "poprun" if any(name.startswith("POPDIST_") for name in environ) else "mpirun"
    if "OMPI_COMM_WORLD_RANK" in environ:
        rank, count = "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"
        local, locals_ = "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"
    elif "PMI_RANK" in environ:
        rank, count, local, locals_ = "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"
    else:
        return None
    job = environ.get("PMIX_NAMESPACE") or environ.get("OMPI_MCA_ess_base_jobid") or str(os.getppid())
    return Launched(
        by,
        int(environ[rank]),
        int(environ[count]),
        int(environ.get(local, environ[rank])),
        int(environ.get(locals_, environ[count])),
        LOOPBACK,
        f"{by} {job} {os.getuid() if hasattr(os, 'getuid') else ''}",
    )
