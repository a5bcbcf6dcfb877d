"""Zip function binaries as Lambda wants them: target/lambda/<function>/bootstrap.zip with one executable, bootstrap."""

import argparse
import struct
import sys
import zipfile
from pathlib import Path

TARGET = Path(__file__).resolve().parent.parent / "target"
EXECUTABLE = 0o755 << 16
# The most bytes of a release's zip, about a tenth above what it has. A cold start loads and relocates all of it, and AWS
# IoT does not wait long for the hook. `jobs` has the SDK of S3 beside the others, and nobody waits for its start.
LARGEST = {"pre-provisioning-hook": 3_200_000, "jobs": 4_700_000}
LARGEST_OF_OTHERS = 4_000_000
# Those that are packed with more patience.
REPACKED = {"pre-provisioning-hook"}
EPOCH = (1980, 1, 1, 0, 0, 0)  # The earliest time a zip can hold: the same binary gives the same zip.


def zip_function(binary: Path, target: Path, compression: int) -> None:
    entry = zipfile.ZipInfo("bootstrap", EPOCH)
    entry.external_attr = EXECUTABLE
    entry.compress_type = compression
    target.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr(entry, binary.read_bytes())


def repack(target: Path) -> None:
    """Packs the one entry of a zip again as small as its format allows (zopfli), which takes half a minute."""
    from zopfli.zlib import compress  # Only a release needs it: a debug build is zipped without the tools.

    with zipfile.ZipFile(target) as archive:
        (entry,) = archive.infolist()
        # A zlib stream is a deflate stream between two bytes and four (RFC 1950).
        deflated = compress(archive.read(entry), numiterations=1)[2:-4]
    entry.compress_size = len(deflated)
    entry.header_offset = 0
    local = entry.FileHeader()
    name = entry.filename.encode()
    # APPNOTE.TXT of PKWARE, 4.3.12 (central directory header) and 4.3.16 (end of central directory record).
    central = struct.pack(
        "<4s4B4HL2L5H2L", b"PK\x01\x02", entry.create_version, entry.create_system, entry.extract_version, 0,
        entry.flag_bits, entry.compress_type, 0, 0x21, entry.CRC, entry.compress_size, entry.file_size,
        len(name), 0, 0, 0, entry.internal_attr, entry.external_attr, 0,
    ) + name
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 1, 1, len(central), len(local) + len(deflated), 0)
    target.write_bytes(local + deflated + central + end)
    with zipfile.ZipFile(target) as archive:
        if archive.testzip() or archive.infolist()[0].external_attr != EXECUTABLE:
            sys.exit(f"{target} was not packed well; this is a bug, please report it")


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
        if function in REPACKED and not is_debug:
            repack(target)
        size = target.stat().st_size
        print(f"{target.relative_to(TARGET.parent)}: {size / 1e6:.1f} MB")
        largest = LARGEST.get(function, LARGEST_OF_OTHERS)
        if size > largest and not is_debug:
            sys.exit(f"{function} is larger than {largest / 1e6:.1f} MB; look for what came in with `cargo bloat`")


if __name__ == "__main__":
    main()
