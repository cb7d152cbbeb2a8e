"""``python -m softlens.organism``: build the bundled LMs from nothing, or measure them."""

import argparse
import logging
import sys
from pathlib import Path

from softlens import files
from softlens.errors import SoftlensError
from softlens.organism.build import BUNDLED, RECIPES, build, check, seeds_table


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; 0 if all went well."""
    parser = argparse.ArgumentParser(prog="python -m softlens.organism", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="LM", help=f"some of {', '.join(RECIPES)}")
    parser.add_argument(
        "--folder",
        type=Path,
        help="where to put them (default: the bundled data; for seeds, the cache)",
    )
    parser.add_argument("--check", action="store_true", help="only measure what is there")
    parser.add_argument(
        "--seeds",
        type=int,
        nargs="+",
        help="train these seeds beside the bundled LMs, and measure them",
    )
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    names = given.names or list(BUNDLED)
    store = files.cache_dir() / "organism-seeds" if given.seeds else files.data_dir()
    folder = given.folder or store
    organism = files.data_dir() / "organism"
    try:
        if given.seeds:
            tables = [seeds_table(name, given.seeds, folder, organism) for name in names]
        elif given.check:
            against = {name: organism if name != "organism" else None for name in names}
            tables = [check(folder / name, judged=against[name]) for name in names]
        else:
            tables = [build(folder, names)]
    except SoftlensError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    for table in tables:
        sys.stdout.write(f"{table.to_string(index=False)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
