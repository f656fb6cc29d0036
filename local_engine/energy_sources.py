"""Where joules come from: NVIDIA's counter of a GPU, RAPL's of the processor packages, or an estimate from busy time.

A source that cannot be read is left out when it was not asked for by name, and refused with the reason when it was. One that
stops being readable later keeps its last reading: the engine goes on, and nothing is billed for energy nobody saw.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from local_engine.errors import EnergyUnreadable

log = logging.getLogger("local_engine")
EnergySource = Literal["auto", "nvml", "rapl", "estimate", "off"]
POWERCAP = Path("/sys/class/powercap")

CORE_WATTS = 3.5
"""Of a busy virtual core: the average at full load of AWS's machines in Cloud Carbon Footprint's methodology."""
GPU_WATTS = 500.0
"""Of a busy GPU whose counter cannot be read; data centre cards are built for 300 to 700."""

WORLD_GRAMS_PER_KWH = 473.0
"""World average of electricity in 2024: Ember, Global Electricity Review 2025. The grid of one country is far from it."""


class Source(Protocol):
    """A counter of microjoules that never goes down."""

    @property
    def name(self) -> str:
        """As replies and documents call it."""
        ...

    @property
    def estimated(self) -> bool:
        """Whether it is no measurement."""
        ...

    @property
    def steady(self) -> bool:
        """Whether it is cheap, and right at every moment."""
        ...

    def read(self, busy: float) -> int:
        """Microjoules since some moment in the past; `busy` is how many seconds steps have run."""
        ...


@dataclass(frozen=True, slots=True)
class Estimate:
    """Watts of a busy core times the processor time of this process, and on a GPU the watts of one while steps run."""

    core_watts: float
    gpu_watts: float = 0.0
    processor_time: Callable[[], int] = time.process_time_ns
    name: str = "estimate"
    estimated: bool = True
    steady: bool = True

    def read(self, busy: float) -> int:
        """From what the process has used of the processor, all its threads together."""
        return int(self.processor_time() * self.core_watts / 1000 + busy * self.gpu_watts * 1_000_000)


@dataclass(slots=True)
class _Domain:
    """One counter of RAPL, which turns over at `limit`."""

    path: Path
    limit: int
    last: int
    turned: int = 0

    def read(self) -> int:
        """Microjoules, turns included; the last known value when the file cannot be read any more."""
        try:
            now = int(self.path.read_text())
        except (OSError, ValueError):
            return self.turned + self.last
        if now < self.last:
            self.turned += self.limit + 1
        self.last = now
        return self.turned + now


@dataclass(frozen=True, slots=True)
class Rapl:
    """All processor packages and their memory: the whole machine, also what other processes use of it."""

    domains: Sequence[_Domain]
    name: str = "rapl"
    estimated: bool = False
    steady: bool = False

    def read(self, busy: float) -> int:
        """The sum of the domains."""
        return sum(domain.read() for domain in self.domains)


@dataclass(slots=True)
class Nvml:
    """The GPU's counter since its driver was loaded: the whole card, also what other processes use of it."""

    millijoules: Callable[[], int]
    name: str = "nvml"
    estimated: bool = False
    steady: bool = False
    _last: int = field(default=0)

    def read(self, busy: float) -> int:
        """The last known value when the driver does not answer any more."""
        try:
            self._last = max(self._last, self.millijoules() * 1000)
        except Exception as error:
            log.debug("the GPU's energy counter cannot be read: %s", error)
        return self._last


@dataclass(frozen=True, slots=True)
class Together:
    """Sources that measure different parts of the machine."""

    parts: Sequence[Source]
    estimated: bool = False
    steady: bool = False

    @property
    def name(self) -> str:
        """As in 'nvml+rapl'."""
        return "+".join(part.name for part in self.parts)

    def read(self, busy: float) -> int:
        """The sum of the parts."""
        return sum(part.read(busy) for part in self.parts)


def find_source(
    wanted: EnergySource, device: str, *, core_watts: float, gpu_watts: float, powercap: Path = POWERCAP
) -> Source | None:
    """The source for a torch device; None for 'off'. Raises EnergyUnreadable for a named one that is not there.

    'auto': on a GPU its counter, with RAPL beside it where that can be read; else RAPL; else the estimate.
    """
    if wanted == "off":
        return None
    gpu = device.startswith("cuda")
    if wanted == "estimate":
        return Estimate(core_watts, gpu_watts if gpu else 0.0)
    if wanted == "nvml" and not gpu:
        raise EnergyUnreadable(f"energy 'nvml' is a GPU's counter and the engine runs on {device!r}: choose another")
    found: list[Source] = []
    try:
        if gpu and wanted != "rapl":
            found.append(open_nvml(device))
    except EnergyUnreadable:
        if wanted == "nvml":
            raise
        return Estimate(core_watts, gpu_watts)
    try:
        if wanted != "nvml":
            found.append(open_rapl(powercap))
    except EnergyUnreadable:
        if wanted == "rapl":
            raise
    if not found:
        return Estimate(core_watts)
    return found[0] if len(found) == 1 else Together(found)


def open_rapl(powercap: Path = POWERCAP) -> Rapl:
    """Every package and its DRAM. Raises EnergyUnreadable; on most systems only root may read these files.

    Cores and graphics are parts of a package, and `psys` holds packages: they are left out, or they would count twice.
    """
    domains = []
    for folder in sorted(powercap.glob("intel-rapl:*")):
        try:
            name = (folder / "name").read_text().strip()
            if not (name.startswith("package") or name == "dram"):
                continue
            limit, now = (int((folder / each).read_text()) for each in ("max_energy_range_uj", "energy_uj"))
        except (OSError, ValueError) as error:
            raise EnergyUnreadable(
                f"the energy counter {str(folder)!r} cannot be read ({error}): run as a user who may, or use 'estimate'"
            ) from error
        domains.append(_Domain(folder / "energy_uj", limit, now))
    if not domains:
        raise EnergyUnreadable(f"there is no energy counter of a processor package below {str(powercap)!r}")
    return Rapl(domains)


def open_nvml(device: str) -> Nvml:
    """The counter of the GPU behind a torch device. Raises EnergyUnreadable, also for cards older than Volta."""
    try:
        import pynvml  # nvidia-ml-py: needs the driver's library, which machines without a GPU lack
        import torch

        pynvml.nvmlInit()
        properties = torch.cuda.get_device_properties(device)
        # By its UUID: NVML counts all cards, torch only those that CUDA_VISIBLE_DEVICES leaves.
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{properties.uuid}")
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except Exception as error:
        raise EnergyUnreadable(f"the energy counter of {device!r} cannot be read: {error}") from error
    return Nvml(lambda: int(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)))
