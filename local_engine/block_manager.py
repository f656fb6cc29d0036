"""Which blocks of the cache belong to whom, and which of them may be shared; pure bookkeeping without tensors or clock.

Invariants: a block is referenced by as many tables as `references` says, or it is free; a free block is empty or holds
tokens that can still be shared; a block is shared only when it is full, and a full block is never written again. When
blocks run out, `begin` and `grow` change nothing and say so: the scheduler then preempts.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

_KEY_BYTES = 16


@dataclass(slots=True, eq=False)
class BlockTable:
    """One request's blocks in the order of its tokens: token `i` lies in `blocks[i // block_size]`.

    `keys[i]` names everything up to the end of block `i` (salt and model included), for blocks whose tokens are known.
    `contiguous` tells that the blocks lie one after another, so that the cache can be read without copying.
    """

    root: bytes
    blocks: list[int] = field(default_factory=list)
    keys: list[bytes] = field(default_factory=list)
    contiguous: bool = True
    registered: int = 0
    """Blocks from the front that are known to the index, or whose tokens another block there already holds."""


class BlockManager:
    """`blocks` blocks of `block_size` tokens each; `identity` names the model, whose keys no other model shares.

    A key is a chained hash: of the key before it and the block's tokens, the first one of identity and salt. Two blocks
    with the same key therefore hold the same tokens after the same tokens, of the same model and salt.
    """

    def __init__(self, blocks: int, block_size: int, *, identity: bytes = b"", share: bool = True) -> None:
        if blocks < 1 or block_size < 1:
            raise ValueError(f"{blocks!r} blocks of {block_size!r} tokens: both must be at least 1")
        self.blocks = blocks
        self.block_size = block_size
        self.share = share
        self.references = [0] * blocks
        self._identity = identity
        self._key: list[bytes | None] = [None] * blocks
        self._freed_at = [0] * blocks
        self._releases = 0
        self._index: dict[bytes, int] = {}
        # Free blocks, the next one to take first: empty ones, and those that can be shared by their last use.
        self._empty: OrderedDict[int, None] = OrderedDict.fromkeys(_spread(blocks))
        self._kept: OrderedDict[int, None] = OrderedDict()

    @property
    def free(self) -> int:
        """Blocks that no request references; those that can be shared are among them."""
        return len(self._empty) + len(self._kept)

    @property
    def used(self) -> int:
        """Blocks that requests reference, a shared one counted once."""
        return self.blocks - self.free

    @property
    def kept(self) -> int:
        """Free blocks that still hold tokens to share."""
        return len(self._kept)

    def needed(self, tokens: int) -> int:
        """Blocks that `tokens` tokens fill."""
        return -(-tokens // self.block_size)

    def begin(self, tokens: Sequence[int], salt: str | None, *, spare: int = 0) -> BlockTable | None:
        """A table with room for all `tokens`, its first blocks shared where possible.

        None, and nothing changed, when fewer than `spare` blocks would stay free. The last token is never shared: it has
        to be computed, as its logits are wanted.
        """
        table = BlockTable(_hash(self._identity + b"\0" + (b"" if salt is None else b"s" + salt.encode())))
        shared = self._shared_prefix(table, tokens)
        revived = sum(1 for block in shared if not self.references[block])
        new = self.needed(len(tokens)) - len(shared)
        if new + revived + spare > self.free:
            return None
        for block in shared:
            self._reference(block)
            _append(table, block)
        table.registered = len(shared)
        self._take(table, new)
        return table

    def adopt(self, table: BlockTable, tokens: Sequence[int], computed: int) -> int:
        """Replace blocks that are still to be computed by ones that others computed meanwhile; returns `computed` after it.

        Two requests that begin with the same long prompt at the same time thus compute it once.
        """
        at, rest = divmod(computed, self.block_size)
        if rest or not self.share:
            return computed
        shared = self._shared_prefix(table, tokens, at)
        for index, block in enumerate(shared, start=at):
            self._reference(block)
            self._dereference(table.blocks[index])
            table.blocks[index] = block
        if shared:
            table.registered = at + len(shared)
            table.contiguous = _is_run(table.blocks)
        return computed + len(shared) * self.block_size

    def grow(self, table: BlockTable, tokens: int) -> bool:
        """Room for `tokens` tokens in all; False, and nothing changed, when there are too few free blocks."""
        new = self.needed(tokens) - len(table.blocks)
        if new > self.free:
            return False
        if new > 0:
            self._take(table, new)
        return True

    def shrink(self, table: BlockTable, tokens: int) -> None:
        """Give back the blocks behind those that `tokens` tokens need: room for drafts that were not accepted."""
        while len(table.blocks) > self.needed(tokens):
            block = table.blocks.pop()
            self.references[block] -= 1
            self._empty[block] = None  # the last to be taken: the request itself will want it back first
            table.contiguous = table.contiguous or _is_run(table.blocks)

    def fill(self, table: BlockTable, tokens: Sequence[int], computed: int) -> None:
        """The first `computed` of `tokens` are in the cache, or will be before anybody reads: full blocks can be shared."""
        full = computed // self.block_size
        if not self.share or full <= table.registered:
            return
        self._extend_keys(table, tokens, full)
        for index in range(table.registered, full):
            key, block = table.keys[index], table.blocks[index]
            if key not in self._index and self._key[block] is None:
                self._index[key] = block
                self._key[block] = key
        table.registered = full

    def forget(self, table: BlockTable, computed: int) -> None:
        """What lies behind the first `computed` tokens was not computed after all: nobody may share it."""
        for block in table.blocks[computed // self.block_size :]:
            self._unregister(block)
        table.registered = min(table.registered, computed // self.block_size)

    def release(self, table: BlockTable) -> None:
        """Drop the table's references; full blocks stay for others until their place is needed, last ones first."""
        for block in reversed(table.blocks):
            self._dereference(block)
        table.blocks.clear()
        table.registered = 0
        table.contiguous = True

    def check_integrity(self, tables: Sequence[BlockTable]) -> None:
        """Raise AssertionError unless `tables` explain every reference and every block is in exactly one state."""
        counted = [0] * self.blocks
        for table in tables:
            assert len(set(table.blocks)) == len(table.blocks), "a table holds a block twice"
            assert table.contiguous == _is_run(table.blocks), "a table is wrong about its blocks' order"
            for block in table.blocks:
                counted[block] += 1
        assert counted == self.references, "references and tables disagree"
        assert not self._empty.keys() & self._kept.keys(), "a block is empty and can be shared"
        free = self._empty.keys() | self._kept.keys()
        assert {block for block, count in enumerate(counted) if not count} == free, "free blocks are lost"
        named = {block: key for block, key in enumerate(self._key) if key is not None}
        assert {key: block for block, key in named.items()} == self._index, "the index and the blocks' keys disagree"
        assert all(self._key[block] is None for block in self._empty), "an empty block can be shared"
        assert all(block in named for block in self._kept), "a block is kept that cannot be shared"
        for block, count in enumerate(counted):
            assert count < 2 or self._key[block] is not None, "a block is shared that is not full"

    def _shared_prefix(self, table: BlockTable, tokens: Sequence[int], at: int = 0) -> list[int]:
        """The blocks, from the `at`th on, that hold these tokens already."""
        if not self.share:
            return []
        most = (len(tokens) - 1) // self.block_size
        found: list[int] = []
        for index in range(at, most):
            self._extend_keys(table, tokens, index + 1)
            block = self._index.get(table.keys[index])
            if block is None:
                break
            found.append(block)
        return found

    def _extend_keys(self, table: BlockTable, tokens: Sequence[int], full: int) -> None:
        size = self.block_size
        for index in range(len(table.keys), full):
            before = table.keys[-1] if table.keys else table.root
            table.keys.append(_hash(before + array("q", tokens[index * size : (index + 1) * size]).tobytes()))

    def _take(self, table: BlockTable, count: int) -> None:
        """Append `count` free blocks, behind the table's last one or at least behind each other where possible."""
        for left in range(count, 0, -1):
            following = table.blocks[-1] + 1 if table.blocks else -1
            block = following if self._may_take(following) else self._start_of_run(left)
            self._unregister(block)
            self._reference(block)
            _append(table, block)

    def _start_of_run(self, length: int) -> int:
        """Where to begin when the place behind the last block is taken.

        An empty block while there are many. Later the least recently used one; as requests give back their last block
        first, the ones before it were mostly its request's: begin so far before it that `length` blocks make one run.
        """
        if not self._crowded or not self._kept:
            return next(iter(self._empty))
        block = next(iter(self._kept))
        for _ in range(length - 1):
            if not self._may_take(block - 1):
                break
            block -= 1
        return block

    def _may_take(self, block: int) -> bool:
        """Whether to take this very block: an empty one, or when the cache is full one that was not used lately."""
        if block in self._empty:
            return True
        if block not in self._kept or not self._crowded:
            return False
        return 2 * self._freed_at[block] <= self._freed_at[next(iter(self._kept))] + self._releases  # the older half

    @property
    def _crowded(self) -> bool:
        """Whether nearly all that is free is worth keeping; the few empty blocks then lie scattered."""
        return 4 * len(self._empty) <= self.free

    def _reference(self, block: int) -> None:
        if not self.references[block]:
            del (self._empty if self._key[block] is None else self._kept)[block]
        self.references[block] += 1

    def _dereference(self, block: int) -> None:
        self.references[block] -= 1
        if self.references[block]:
            return
        if self._key[block] is None:
            self._empty[block] = None
            self._empty.move_to_end(block, last=False)
        else:
            self._releases += 1
            self._freed_at[block] = self._releases
            self._kept[block] = None

    def _unregister(self, block: int) -> None:
        key = self._key[block]
        if key is None:
            return
        del self._index[key]
        self._key[block] = None
        if not self.references[block]:
            del self._kept[block]
            self._empty[block] = None


def _append(table: BlockTable, block: int) -> None:
    table.contiguous = table.contiguous and (not table.blocks or table.blocks[-1] + 1 == block)
    table.blocks.append(block)


def _is_run(blocks: Sequence[int]) -> bool:
    return not blocks or list(blocks) == list(range(blocks[0], blocks[0] + len(blocks)))


def _hash(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=_KEY_BYTES).digest()


def _spread(blocks: int) -> list[int]:
    """All blocks, neighbours far apart: requests that start together get room to grow behind their first block."""
    bits = (blocks - 1).bit_length()
    reversed_bits = (int(f"{index:0{max(bits, 1)}b}"[::-1], 2) for index in range(1 << bits))
    return [block for block in reversed_bits if block < blocks]
