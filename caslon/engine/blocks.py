"""A pool of fixed blocks of key-value cache, shared by reference count, full ones found again by what they hold.

Turns "this sequence needs room for n tokens" into block numbers. A full block is known by the block before it and its
own token ids, which are compared whole on a hit, so two prompts can never be mixed. Blocks that nobody holds keep
their content until the room is needed, least recently used first. Only full blocks are shared and full blocks are
never written again, so nothing has to be copied on divergence.
Paged attention: arXiv:2309.06180; the shape of this class follows nano-vllm's block manager.
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence

ROOT = 0  # the link before a sequence's first block, where it may share blocks with any other

Link = int | tuple[str, ...]  # a tuple is the root of those sequences alone that name the same words
Key = tuple[Link, tuple[int, ...]]


class BlockPool:
    """Blocks 0 to `count - 1`. After every call: free + used = count, and each count equals the number of holders."""

    def __init__(
        self, count: int, block_tokens: int, *, prefix_cache: bool = True, most_tokens: int | None = None
    ) -> None:
        self.count = count
        self.block_tokens = block_tokens
        self.prefix_cache = prefix_cache
        self.most_tokens = most_tokens  # that one holder has room for, where the cache forgets
        self.evictions = 0
        self._holders = [0] * count
        self._empty = list(range(count - 1, -1, -1))
        self._idle: OrderedDict[int, None] = OrderedDict()  # nobody holds them, content still known; oldest first
        self._by_key: dict[Key, int] = {}
        self._key_of: dict[int, Key] = {}
        self._link_of: dict[int, int] = {}
        self._next_link = ROOT + 1

    @property
    def free(self) -> int:
        """Return how many blocks nobody holds."""
        return len(self._empty) + len(self._idle)

    @property
    def used(self) -> int:
        """Return how many blocks somebody holds."""
        return self.count - self.free

    @property
    def known(self) -> int:
        """Return how many blocks can be found by their content."""
        return len(self._by_key)

    def needed(self, tokens: int) -> int:
        """Return how many blocks hold that many tokens of one sequence."""
        if self.most_tokens is not None:
            tokens = min(tokens, self.most_tokens)
        return -(-tokens // self.block_tokens)

    def take(self, count: int) -> list[int]:
        """Return that many blocks, held once each. The caller has checked `free`."""
        assert count <= self.free
        taken = []
        for _ in range(count):
            block = self._empty.pop() if self._empty else self._evict()
            self._holders[block] = 1
            taken.append(block)
        return taken

    def match(self, ids: Sequence[int], root: Link = ROOT) -> tuple[list[int], list[int]]:
        """Return the blocks (held once more) and links of the longest known prefix of `ids` among those after `root`.

        The last token is never part of it: it has to pass through the model to say what comes next.
        """
        blocks: list[int] = []
        links: list[int] = []
        link, size = root, self.block_tokens
        for start in range(0, len(ids) - size, size) if self.prefix_cache else ():
            block = self._by_key.get((link, tuple(ids[start : start + size])))
            if block is None:
                break
            link = self._link_of[block]
            blocks.append(block)
            links.append(link)
        self.share(blocks)
        return blocks, links

    def share(self, blocks: Sequence[int]) -> None:
        """Hold each block once more."""
        for block in blocks:
            self._hold(block)

    def remember(self, block: int, link: Link, ids: Iterable[int]) -> int:
        """Make a full block findable as the one that follows `link`; return the link that names it.

        Where another block already holds the same tokens, that one stays the known one and its link is returned.
        """
        if not self.prefix_cache:
            return ROOT
        key = (link, tuple(ids))
        known = self._by_key.get(key)
        if known is not None:
            return self._link_of[known]
        self._by_key[key] = block
        self._key_of[block] = key
        self._link_of[block] = self._next_link
        self._next_link += 1  # never used twice: what followed an evicted block can never be reached again
        return self._link_of[block]

    def release(self, blocks: Sequence[int]) -> None:
        """Give up one hold on each block. The last ones go to rest first, so that a prefix outlives what follows it."""
        for block in reversed(blocks):
            assert self._holders[block] > 0
            self._holders[block] -= 1
            if self._holders[block]:
                continue
            if block in self._key_of:
                self._idle[block] = None
            else:
                self._empty.append(block)

    def check(self, holders: Iterable[Sequence[int]]) -> None:
        """Assert that the books are right, given the block lists of all who hold blocks."""
        counted = [0] * self.count
        for blocks in holders:
            for block in blocks:
                counted[block] += 1
        assert counted == self._holders
        resting = self._empty + list(self._idle)
        assert len(resting) == len(set(resting))
        assert set(resting) == {block for block, held in enumerate(counted) if not held}
        assert self._by_key == {key: block for block, key in self._key_of.items()}
        assert self._link_of.keys() == self._key_of.keys()

    def _hold(self, block: int) -> None:
        if not self._holders[block]:
            del self._idle[block]
        self._holders[block] += 1

    def _evict(self) -> int:
        block, _ = self._idle.popitem(last=False)
        del self._by_key[self._key_of.pop(block)]
        del self._link_of[block]
        self.evictions += 1
        return block
