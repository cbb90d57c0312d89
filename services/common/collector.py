"""Python's garbage collector, kept from stopping a service that people wait for."""

import atexit
import gc


def freeze_startup() -> None:
    """Let the collector pass over all that is in memory now: called once, when a service has started.

    A full collection walks through every module, route and model of a service: 140 ms with FastAPI and the
    clients of the stores, in which nobody is answered. Frozen, they are left out (`gc.freeze`). What comes
    later belongs to requests and is freed without the collector, which looks for cycles less often.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)
    atexit.register(gc.unfreeze)  # libraries in C look at the end for what was never freed
