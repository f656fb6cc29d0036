"""Joules: shares add up, counters that jump or turn over are followed, replies and metrics say what was spent."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai import OpenAI

from local_engine.energy import EnergyMeter, share_out
from local_engine.energy_sources import Estimate, Together, find_source, open_rapl
from local_engine.errors import EnergyUnreadable
from local_engine.request import Request, SamplingParams
from local_engine.scheduler import Chunk
from tests.local_engine.conftest import EngineMaker
from tests.local_engine.running_server import RunningServer

GREEDY = SamplingParams(max_tokens=6, temperature=0, ignore_eos=True)
RANGE = 262_143_328_850


@dataclass
class Jumping:
    """A counter of 1 W that moves every `interval` seconds only, like a driver's."""

    interval: float
    now: float = 0.0
    name: str = "jumping"
    estimated: bool = False
    steady: bool = False

    def read(self, busy: float) -> int:
        return int(int(self.now / self.interval + 1e-9) * self.interval * 1_000_000)


def chunks(*lengths: int) -> list[Chunk]:
    return [Chunk(Request(number, [1] * length, GREEDY), 0, length) for number, length in enumerate(lengths)]


def powercap(folder: Path, **domains: tuple[str, int]) -> Path:
    """A tree like the kernel's, with names and readings by folder."""
    for place, (name, reading) in domains.items():
        each = folder / place.replace("_", ":").replace("rapl", "intel-rapl", 1)
        each.mkdir(parents=True, exist_ok=True)
        (each / "name").write_text(f"{name}\n")
        (each / "max_energy_range_uj").write_text(f"{RANGE}\n")
        (each / "energy_uj").write_text(f"{reading}\n")
    return folder


@given(st.integers(0, 10**12), st.lists(st.integers(1, 8192), min_size=1, max_size=64), st.integers(0, 500))
def test_shares_add_up_to_the_step_exactly(joules: int, lengths: list[int], pass_tokens: int) -> None:
    shares = share_out(joules, chunks(*lengths), pass_tokens)
    assert sum(shares) == joules
    assert all(share >= 0 for share in shares)


def test_reading_the_weights_is_shared_alike_and_tokens_are_paid_each() -> None:
    assert share_out(900, chunks(1), 32) == [900]
    assert share_out(640, chunks(1, 1, 1, 1), 32) == [160] * 4
    # Each pays half of the reading (16 of 32 tokens); the prompt pays for its 100 tokens, the answer for its one.
    assert share_out(133_000, chunks(100, 1), 32) == [116_000, 17_000]


def test_a_counter_that_jumps_is_followed_between_its_movements() -> None:
    counter = Jumping(interval=0.1)
    meter = EnergyMeter(counter, clock=lambda: counter.now)
    [chunk] = chunks(1)
    bills = []
    for step in range(1, 501):
        counter.now = step * 0.007
        before = meter.spent.billed
        meter.bill([chunk])
        bills.append(meter.spent.billed - before)
    assert meter.spent.billed == pytest.approx(3_500_000, abs=110_000), "never further off than a jump"
    assert max(bills[30:]) < 20_000, "no step pays for the jump of the counter, which is 100,000"
    assert chunk.request.microjoules == meter.spent.billed


def test_a_counter_that_stands_still_is_believed() -> None:
    counter = Jumping(interval=0.1)
    meter = EnergyMeter(counter, clock=lambda: counter.now)
    counter.now = 0.2
    meter.pass_idle()
    clock = iter(range(1, 1000))
    still = EnergyMeter(Jumping(interval=1e9), clock=lambda: float(next(clock)))
    for _ in range(50):
        still.bill(chunks(1))
    assert still.spent.billed == 0
    assert meter.spent.idle == 200_000


def test_idle_time_is_counted_and_billed_to_nobody() -> None:
    counter = Jumping(interval=0.001)
    meter = EnergyMeter(counter, clock=lambda: counter.now)
    [chunk] = chunks(1)
    for now, busy in ((1.0, True), (4.0, False), (4.5, True)):
        counter.now = now
        if busy:
            meter.bill([chunk])
        else:
            meter.pass_idle()
    assert (meter.spent.billed, meter.spent.idle) == (1_500_000, 3_000_000)


def test_rapl_adds_packages_and_memory_and_nothing_twice(tmp_path: Path) -> None:
    tree = powercap(
        tmp_path,
        rapl_0=("package-0", 1000),
        rapl_0_0=("core", 700),
        rapl_0_1=("dram", 200),
        rapl_1=("package-1", 3000),
        rapl_2=("psys", 9000),
    )
    assert open_rapl(tree).read(0.0) == 4200


def test_rapl_goes_on_when_a_counter_turns_over_and_when_it_goes_away(tmp_path: Path) -> None:
    rapl = open_rapl(powercap(tmp_path, rapl_0=("package-0", RANGE - 10)))
    first = rapl.read(0.0)
    powercap(tmp_path, rapl_0=("package-0", 40))
    assert rapl.read(0.0) - first == 51
    (tmp_path / "intel-rapl:0" / "energy_uj").unlink()
    assert rapl.read(0.0) - first == 51


def test_a_counter_asked_for_by_name_is_refused_with_the_reason_and_left_out_otherwise(tmp_path: Path) -> None:
    watts = {"core_watts": 3.5, "gpu_watts": 0.0, "powercap": tmp_path}
    with pytest.raises(EnergyUnreadable, match="no energy counter of a processor package"):
        find_source("rapl", "cpu", **watts)
    with pytest.raises(EnergyUnreadable, match="'nvml' is a GPU's counter and the engine runs on 'cpu'"):
        find_source("nvml", "cpu", **watts)
    source = find_source("auto", "cpu", **watts)
    assert isinstance(source, Estimate)
    assert find_source("off", "cpu", **watts) is None
    powercap(tmp_path, rapl_0=("package-0", 5))
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text("not a number")
    with pytest.raises(EnergyUnreadable, match="or use 'estimate'"):
        find_source("rapl", "cpu", **watts)


def test_sources_of_different_parts_are_added(tmp_path: Path) -> None:
    rapl = open_rapl(powercap(tmp_path, rapl_0=("package-0", 500)))
    both = Together([Jumping(interval=1.0, now=3.0), rapl])
    assert (both.name, both.read(0.0), both.estimated) == ("jumping+rapl", 3_000_500, False)


def test_the_estimate_is_watts_times_busy_seconds() -> None:
    seconds = Estimate(core_watts=4.0, gpu_watts=300.0, processor_time=lambda: 2_500_000_000)
    assert seconds.read(0.0) == 10_000_000
    assert seconds.read(2.0) == 610_000_000


def test_what_requests_are_billed_is_what_the_steps_took(tiny_engine: EngineMaker) -> None:
    engine = tiny_engine(max_batch=3, step_tokens=16)
    requests = [engine.new_request([5] * length, GREEDY) for length in (40, 3, 9)]
    for request in requests:
        engine.add(request)
    while engine.busy:
        engine.step()
    assert sum(request.microjoules or 0 for request in requests) == engine.energy.spent.billed > 0
    assert requests[0].microjoules > requests[1].microjoules, "the long prompt took more"


@pytest.fixture
def client(tiny_server: RunningServer) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{tiny_server.url}/v1", api_key="none", max_retries=0) as openai:
        yield openai


def test_replies_and_their_headers_say_what_they_took(tiny_server: RunningServer, client: OpenAI) -> None:
    asked = {"model": "tiny", "messages": [{"role": "user", "content": "How much?"}], "max_tokens": 4}
    raw = client.chat.completions.with_raw_response.create(**asked)
    energy = raw.parse().usage.model_dump()["energy"]
    assert energy["joules"] > 0
    assert (energy["estimated"], energy["source"]) == (True, "estimate")
    assert energy["co2e_grams"] == pytest.approx(energy["joules"] / 3.6e6 * 473, abs=1e-9)
    assert float(raw.headers["x-penstock-energy-joules"]) == pytest.approx(energy["joules"], abs=1e-6)
    stream = client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True})
    last = list(stream)[-1]
    assert last.usage.model_dump()["energy"]["joules"] > 0


def test_metrics_tell_billed_from_idle_energy(tiny_server: RunningServer, client: OpenAI) -> None:
    reply = client.completions.create(model="tiny", prompt="one two", max_tokens=3, n=2)
    tiny_server.wait_until_idle()
    values = dict(
        line.rsplit(" ", 1)
        for line in httpx.get(f"{tiny_server.url}/metrics").text.splitlines()
        if line.startswith("penstock_engine_") and not line.startswith("#")
    )
    label = '{model_name="tiny"}'
    billed = float(values["penstock_engine_energy_joules_total" + label])
    assert billed == pytest.approx(reply.usage.model_dump()["energy"]["joules"], rel=1e-6)
    assert float(values["penstock_engine_energy_estimated" + label]) == 1
    assert float(values["penstock_engine_request_energy_joules_count" + label]) == 2
    total = billed + float(values["penstock_engine_idle_energy_joules_total" + label])
    assert float(values["penstock_engine_co2e_grams_total" + label]) == pytest.approx(total / 3.6e6 * 473)


def test_without_a_source_nothing_is_said(tiny_engine: EngineMaker) -> None:
    engine = tiny_engine(energy="off")
    request = engine.new_request([1, 2, 3], GREEDY)
    engine.add(request)
    while engine.busy:
        engine.step()
    assert request.microjoules is None, "unknown is not zero"
