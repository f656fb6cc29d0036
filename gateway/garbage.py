"""Spares the garbage collector what lives as long as the process, so that it looks only at what requests leave behind."""

from __future__ import annotations

import gc


def keep_what_is_loaded(look_after: int) -> None:
    """To be called once a process has started. `look_after`: new objects until the collector looks for cycles among them.

    Most of what a request, a report or a batch makes ends without cycles; looking for cycles in it, and again and again in all
    loaded modules, took a third of the deliverer's time and of a large report's.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(look_after, 10, 10)
