"""Show what of a network will be quantized, layer by layer, and what stays float and why."""

import sys

if __name__ == "inspect":
    # Python looks for modules beside the script first, so that `import inspect` anywhere in a
    # process started from this folder finds this file: give it the standard library's module.
    import importlib.util
    import os

    _path = os.path.join(os.path.dirname(os.__file__), "inspect.py")
    _spec = importlib.util.spec_from_file_location("inspect", _path)
    _module = importlib.util.module_from_spec(_spec)
    sys.modules["inspect"] = _module
    _spec.loader.exec_module(_module)
else:
    from synq_tune.cli.inspect import main
    from synq_tune.commands.ending import exit_code

    if __name__ == "__main__":
        sys.exit(exit_code(main))
