"""Zip function binaries as Lambda wants them: target/lambda/<function>/bootstrap.zip with one executable, bootstrap."""

import argparse
import sys
import zipfile
from pathlib import Path

TARGET = Path(__file__).resolve().parent.parent / "target"
EXECUTABLE = 0o755 << 16
# Bytes of a release: a cold start loads and relocates all of it. AWS IoT does not wait long for the hook.
LARGEST = {"pre-provisioning-hook": 3_000_000}
LARGEST_OF_OTHERS = 4_000_000
EPOCH = (1980, 1, 1, 0, 0, 0)  # The earliest time a zip can hold: the same binary gives the same zip.


def zip_function(binary: Path, target: Path, compression: int) -> None:
    entry = zipfile.ZipInfo("bootstrap", EPOCH)
    entry.external_attr = EXECUTABLE
    entry.compress_type = compression
    target.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr(entry, binary.read_bytes())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("functions", nargs="+", help="the binaries to zip")
    parser.add_argument("--profile", default="release", help="the cargo profile that built them")
    arguments = parser.parse_args()
    # A debug build is large and goes nowhere: compressing it would only cost time.
    is_debug = arguments.profile == "dev"
    folder = TARGET / ("debug" if is_debug else arguments.profile)
    for function in arguments.functions:
        binary = folder / function
        if not binary.is_file():
            sys.exit(f"{binary} is missing; build it first")
        target = TARGET / "lambda" / function / "bootstrap.zip"
        zip_function(binary, target, zipfile.ZIP_STORED if is_debug else zipfile.ZIP_DEFLATED)
        size = target.stat().st_size
        print(f"{target.relative_to(TARGET.parent)}: {size / 1e6:.1f} MB")
        largest = LARGEST.get(function, LARGEST_OF_OTHERS)
        if size > largest and not is_debug:
            sys.exit(f"{function} is larger than {largest / 1e6:.0f} MB; look for what came in with `cargo bloat`")


if __name__ == "__main__":
    main()
