"""A SLURM of one node on this machine: munged, slurmctld, slurmd in a temporary folder, without systemd, accounting or cgroups.

    apt-get install --no-install-recommends slurmctld slurmd slurm-client munge
    python tests/cluster/one_node_slurm.py      # runs until Ctrl-C; prints what to export in another terminal

It pretends to have four CPUs, 4 GB and two GPUs, whatever the machine has. Tried with SLURM 22.05 (Debian 12), as root and not.
"""

import getpass
import os
import platform
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

DAEMONS = ("munged", "slurmctld", "slurmd")
SBIN = "/usr/sbin"  # where Debian has them; not on every user's PATH
SETTINGS = """
ClusterName=one
SlurmctldHost={node}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
ReturnToService=2
KillWait=5
GresTypes=gpu
NodeName={node} NodeAddr=127.0.0.1 CPUs=4 RealMemory=4000 Gres=gpu:2
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
# Snakemake's plugin takes SLURM_CONF from the environment of srun, which then looks for /etc/slurm/slurm.conf.
SRUN = '#!/bin/sh\nSLURM_CONF={folder}/slurm.conf exec {srun} "$@"\n'


def missing() -> str:
    """Which programs are not installed; empty: none."""
    wanted = {name for name in (*DAEMONS, "sbatch", "srun") if not _program(name)}
    return f"not installed: {', '.join(sorted(wanted))}" if wanted else ""


class OneNodeSlurm:
    """Running while the block runs.

    Attributes:
        environment: Variables with which sbatch, squeue and Snakemake find it.
    """

    def __enter__(self):
        self.folder = Path(
            tempfile.mkdtemp(prefix="slurm-")
        )  # short, because paths of sockets have at most 108 characters
        for name in ("state", "spool", "bin"):
            (self.folder / name).mkdir()
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        (self.folder / "gres.conf").write_text(f"Name=gpu File={self.folder}/gpu[0-1]\n")
        for number in range(2):
            (self.folder / f"gpu{number}").touch()
        (self.folder / "slurm.conf").write_text(
            SETTINGS.format(
                folder=self.folder,
                node=platform.node().split(".")[0],
                user=getpass.getuser(),
                controller_port=_free_port(),
                node_port=_free_port(),
            )
        )
        srun = self.folder / "bin/srun"
        srun.write_text(SRUN.format(folder=self.folder, srun=_program("srun")))
        srun.chmod(0o755)
        self.environment = {
            "SLURM_CONF": str(self.folder / "slurm.conf"),
            "PATH": f"{self.folder}/bin{os.pathsep}{os.environ['PATH']}",
        }
        self.daemons: list[subprocess.Popen] = []
        try:
            own = {name: f"{self.folder}/munge.{name}" for name in ("socket", "pid", "log", "seed")}
            self._start(
                "munged",
                "--foreground",
                "--force",
                f"--key-file={key}",
                f"--socket={own['socket']}",
                f"--pid-file={own['pid']}",
                f"--log-file={own['log']}",
                f"--seed-file={own['seed']}",
            )
            self._wait_for(Path(own["socket"]).exists)
            self._start("slurmctld", "-D", "-i")
            self._start("slurmd", "-D", "-c")
            self._wait_for(lambda: "idle" in self.run("sinfo", "--noheader", "--format=%T"))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error):
        if self.daemons[1:]:
            self.run("scancel", f"--user={getpass.getuser()}")
        for daemon in reversed(self.daemons):
            daemon.send_signal(signal.SIGTERM)
            try:
                daemon.wait(20)
            except subprocess.TimeoutExpired:
                daemon.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def run(self, *command: str) -> str:
        """What one of SLURM's commands prints; errors too."""
        environment = {**os.environ, **self.environment}
        return subprocess.run(command, env=environment, stdout=-1, stderr=-2, text=True, timeout=60).stdout

    def _start(self, name: str, *words: str) -> None:
        with open(self.folder / f"{name}.out", "w") as said:
            environment = {**os.environ, **self.environment}
            self.daemons.append(subprocess.Popen([_program(name), *words], env=environment, stdout=said, stderr=said))

    def _wait_for(self, happened, seconds=30):
        end = time.monotonic() + seconds
        while not happened():
            if time.monotonic() > end or any(daemon.poll() is not None for daemon in self.daemons):
                words = [path.read_text()[-1000:] for path in self.folder.glob("*.out")]
                raise RuntimeError("SLURM did not start:\n" + "\n".join(words))
            time.sleep(0.1)


def _program(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path=SBIN)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


if __name__ == "__main__":
    with OneNodeSlurm() as slurm:
        print(f"export SLURM_CONF={slurm.environment['SLURM_CONF']} PATH={slurm.folder}/bin:$PATH", flush=True)
        signal.pause()
