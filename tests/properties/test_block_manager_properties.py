"""The block manager beside a model of what each block really holds: shared blocks hold the right tokens of the right salt."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from local_engine.block_manager import BlockManager, BlockTable

SIZE = 3
SALTS = (None, "", "a", "b")
# Few different tokens, so that prompts begin alike by themselves.
TOKENS = st.lists(st.integers(0, 1), min_size=1, max_size=20)


class BlockMachine(RuleBasedStateMachine):
    """Requests begin, compute, grow, adopt, fail and end in any order; `content` is what was written into each slot."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = BlockManager(12, SIZE, identity=b"model")
        self.content: dict[tuple[int, int], tuple[str | None, tuple[int, ...]]] = {}
        self.open: list[tuple[BlockTable, list[int], str | None]] = []
        self.computed: list[int] = []

    def write(self, which: int, length: int) -> None:
        """Compute `length` more tokens: what is written at a place is its token and all before it."""
        table, tokens, salt = self.open[which]
        for at in range(self.computed[which], self.computed[which] + length):
            block = table.blocks[at // SIZE]
            assert self.blocks.references[block] == 1, "a shared block is written"
            self.content[block, at % SIZE] = salt, tuple(tokens[: at + 1])
        self.computed[which] += length

    @rule(tokens=TOKENS, salt=st.sampled_from(SALTS), spare=st.integers(0, 3))
    def begin(self, tokens: list[int], salt: str | None, spare: int) -> None:
        free, kept = self.blocks.free, self.blocks.kept
        table = self.blocks.begin(tokens, salt, spare=spare)
        if table is None:
            assert (self.blocks.free, self.blocks.kept) == (free, kept), "a refusal changes nothing"
            assert self.blocks.needed(len(tokens)) + spare > free
            return
        assert self.blocks.free >= spare
        assert len(table.blocks) == self.blocks.needed(len(tokens))
        computed = table.registered * SIZE
        assert computed < len(tokens), "the last token is always computed"
        self.open.append((table, tokens, salt))
        self.computed.append(computed)

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def compute(self, data: st.DataObject) -> None:
        which = data.draw(st.integers(0, len(self.open) - 1))
        table, tokens, _ = self.open[which]
        gap = len(tokens) - self.computed[which]
        if gap == 0:
            return
        length = data.draw(st.integers(1, gap))
        self.blocks.fill(table, tokens, self.computed[which] + length)
        if data.draw(st.integers(0, 9)) == 0:  # the step failed
            self.blocks.forget(table, self.computed[which])
            self.end(which)
            return
        self.write(which, length)

    @precondition(lambda self: self.open)
    @rule(data=st.data(), token=st.integers(0, 1))
    def grow(self, data: st.DataObject, token: int) -> None:
        which = data.draw(st.integers(0, len(self.open) - 1))
        table, tokens, _ = self.open[which]
        if self.blocks.grow(table, len(tokens) + 1):
            tokens.append(token)
        else:
            assert self.blocks.free == 0

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def adopt(self, data: st.DataObject) -> None:
        which = data.draw(st.integers(0, len(self.open) - 1))
        table, tokens, _ = self.open[which]
        after = self.blocks.adopt(table, tokens, self.computed[which])
        assert self.computed[which] <= after
        assert after == self.computed[which] or after < len(tokens)
        self.computed[which] = after

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        self.end(data.draw(st.integers(0, len(self.open) - 1)))

    def end(self, which: int) -> None:
        table, _, _ = self.open.pop(which)
        del self.computed[which]
        self.blocks.release(table)

    @invariant()
    def everything_a_request_counts_as_computed_is_there_with_its_own_salt(self) -> None:
        for (table, tokens, salt), computed in zip(self.open, self.computed, strict=True):
            for at in range(computed):
                held = self.content[table.blocks[at // SIZE], at % SIZE]
                assert held == (salt, tuple(tokens[: at + 1]))

    @invariant()
    def blocks_are_conserved(self) -> None:
        self.blocks.check_integrity([table for table, _, _ in self.open])
        assert self.blocks.used + self.blocks.free == self.blocks.blocks


TestBlockMachine = BlockMachine.TestCase
TestBlockMachine.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
