"""Show what of a network will be quantized, layer by layer, and what stays float and why.

python scripts/inspect.py --space resnet18_w4a4 --weights resnet18.pth
"""

from __future__ import annotations

if __name__ == "inspect":
    # Python looks for modules beside the script first, so that `import inspect` anywhere in a
    # process started from this folder finds this file: give it the standard library's module.
    import importlib.util
    import os
    import sys

    _path = os.path.join(os.path.dirname(os.__file__), "inspect.py")
    _spec = importlib.util.spec_from_file_location("inspect", _path)
    _module = importlib.util.module_from_spec(_spec)
    sys.modules["inspect"] = _module
    _spec.loader.exec_module(_module)
else:
    import argparse
    import sys

    from synq_tune.commands.cli import exit_code
    from synq_tune.config.load import load_space

    def main(argv: list[str] | None = None) -> int:
        """Run the command; returns the exit code."""
        parser = argparse.ArgumentParser(
            description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        parser.add_argument("--space", required=True, metavar="NAME|FILE")
        parser.add_argument("--weights", metavar="FILE", help="the teacher's checkpoint")
        parser.add_argument(
            "--random-weights", action="store_true", help="ask no checkpoint: shapes are enough"
        )
        parser.add_argument(
            "--set", metavar="KEY.PATH=VALUE", action="append", default=[], dest="sets"
        )
        arguments = parser.parse_args(argv)
        flags = {"teacher": {"weights": {"file": arguments.weights}}}
        spec = load_space(arguments.space, arguments.sets, flags)
        # torch takes a second to import: wrong settings are refused before.
        from synq_tune.commands.inspect import inspect_space

        print("\n".join(inspect_space(spec, arguments.random_weights)))
        return 0

    if __name__ == "__main__":
        sys.exit(exit_code(main))
