"""Import in the background what will be needed soon, while this thread waits for other processes."""

from __future__ import annotations

import importlib
import threading


def import_ahead(name: str) -> threading.Thread:
    """Import a module in a thread; whoever imports it meanwhile waits for that.

    An import that fails says so on stderr, and fails again where the module is needed.
    """
    thread = threading.Thread(target=importlib.import_module, args=(name,), daemon=True)
    thread.start()
    return thread
