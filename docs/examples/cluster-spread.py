"""How directories spread over the nodes of a Redis Cluster: each has one slot, by its hash tag.

A cluster of n masters has its 16384 slots in n ranges of the same size, as `redis-cli --cluster
create` makes them. Directory number i has SYNC_PREFIX={appi}:. Nothing is random, and nothing is
asked: run it with the names and numbers of your own.
"""

from binascii import crc_hqx
from collections import Counter

SLOTS = 16384
NODES = (3, 6, 12)
DIRECTORIES = (3, 10, 30, 100, 1000)
SIZES = {"10 MB": 10, "100 MB": 100, "1 GB": 1000}  # of a directory, in MB
ROOM = 10_000  # MB that a node has for values


def node_of(directory: int, nodes: int) -> int:
    """Return the number of the node that a directory's keys are at."""
    slot = crc_hqx(f"app{directory}".encode(), 0) % SLOTS  # CRC16, as Redis reckons it
    return slot * nodes // SLOTS


def spread(directories: int, nodes: int) -> tuple[int, int]:
    """Return how many directories the emptiest and the fullest node have."""
    counts = Counter(node_of(each, nodes) for each in range(1, directories + 1))
    return min(counts[node] for node in range(nodes)), max(counts.values())


def fit(size: int, nodes: int) -> int:
    """Return how many directories of a size there are when the first of the nodes is full."""
    counts: Counter[int] = Counter()
    number = 0
    while True:
        node = node_of(number + 1, nodes)
        if (counts[node] + 1) * size > ROOM:
            return number
        counts[node] += 1
        number += 1


def main() -> None:
    """Print both tables."""
    print("Directories of the emptiest and of the fullest node:\n")
    print("| directories |", " | ".join(f"{nodes} masters" for nodes in NODES), "|")
    print("|---|" + "---|" * len(NODES))
    for directories in DIRECTORIES:
        found = (spread(directories, nodes) for nodes in NODES)
        cells = (f"{least} to {most}" for least, most in found)
        print(f"| {directories:,} |", " | ".join(cells), "|")
    print("\nDirectories until the first node, with room for 10 GB, is full:\n")
    print("| size of each |", " | ".join(f"{nodes} masters" for nodes in NODES), "|")
    print("|---|" + "---|" * len(NODES))
    for words, size in SIZES.items():
        cells = (
            f"{found:,} ({found * size * 100 // (ROOM * nodes)} % full)"
            for nodes in NODES
            for found in [fit(size, nodes)]
        )
        print(f"| {words} |", " | ".join(cells), "|")


if __name__ == "__main__":
    main()
