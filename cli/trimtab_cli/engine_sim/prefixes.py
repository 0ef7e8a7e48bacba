"""The prefix cache: which blocks of earlier prompts are still there.

A block is a fixed run of prompt text hashed together with all blocks before it, so that equal hashes mean equal
prefixes (vLLM's automatic prefix caching). The least recently used block goes first. At most `MAX_BLOCKS` are
remembered, whatever the size of the simulated cache: it bounds the simulator's own memory.
"""

from collections import OrderedDict
from hashlib import blake2b

MAX_BLOCKS = 65_536


class PrefixCache:
    """A bounded set of block hashes, least recently used out first."""

    def __init__(self, capacity_blocks: int) -> None:
        self._capacity = min(capacity_blocks, MAX_BLOCKS)
        self._blocks: OrderedDict[int, None] = OrderedDict()

    def match(self, blocks: tuple[int, ...]) -> int:
        """How many leading blocks are cached."""
        for count, block in enumerate(blocks):
            if block not in self._blocks:
                return count
            self._blocks.move_to_end(block)
        return len(blocks)

    def add(self, blocks: tuple[int, ...]) -> None:
        """Remember the blocks of a prompt. Later blocks go first: without the ones before them they are useless."""
        for block in reversed(blocks[: self._capacity]):
            self._blocks[block] = None
            self._blocks.move_to_end(block)
        while len(self._blocks) > self._capacity:
            self._blocks.popitem(last=False)


def block_hashes(text: str, block_characters: int) -> tuple[int, ...]:
    """The chained hashes of all whole blocks of a prompt."""
    state = blake2b(digest_size=8)
    hashes = []
    for start in range(0, len(text) - block_characters + 1, block_characters):
        state.update(text[start : start + block_characters].encode("utf-8", "surrogatepass"))
        hashes.append(int.from_bytes(state.digest(), "big"))
    return tuple(hashes)
