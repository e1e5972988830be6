"""Images a second of the search by number of devices, at an equal batch."""

from collections.abc import Iterator

import jax
import numpy as np

from launch.build import build_mesh
from launch.suites.children import SIZES
from launch.suites.loop import SPACE, search
from launch.suites.timing import Options, Row, in_turn

TICKS = 10


def scaling(options: Options) -> Iterator[Row]:
    """Yields a row for 1, 2, 4, ... devices, beside one device.

    Simulated devices of a CPU share its cores: they show that the program runs, and
    what splitting it costs.  ``XLA_FLAGS=--xla_force_host_platform_device_count=8``
    makes 8.
    """
    counts = [2**i for i in range(len(jax.devices()).bit_length())]
    runs = {count: search(TICKS, mesh=build_mesh(count)) for count in counts}
    images = SIZES[SPACE].batch * TICKS
    times = in_turn(runs, options.repeats)
    speeds = {count: images / (1e-3 * np.array(ms)) for count, ms in times.items()}
    for count, speed in speeds.items():
        name = f"{SPACE}: child steps on {count} device{'s' * (count > 1)}"
        yield Row.of(name, speed, speeds[1], unit="images/s", note="beside one device")
