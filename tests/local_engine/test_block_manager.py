"""The page's example of the cache, block by block; tests/properties/test_block_manager_properties.py has the rest."""

from __future__ import annotations

from local_engine.block_manager import BlockManager, BlockTable


def begin(blocks: BlockManager, tokens: list[int]) -> BlockTable:
    table = blocks.begin(tokens, None)
    assert table is not None
    blocks.fill(table, tokens, len(tokens))
    return table


def test_the_page_about_the_cache_shows_what_really_happens() -> None:
    blocks = BlockManager(8, 16)
    system = list(range(40))
    a_tokens, b_tokens = [*system, *[100] * 5], [*system, *[200] * 10]
    a = begin(blocks, a_tokens)
    assert (len(a.blocks), a.registered) == (3, 2)
    b = begin(blocks, b_tokens)
    assert b.blocks[:2] == a.blocks[:2]
    assert (len(b.blocks), blocks.used) == (4, 5)
    a_tokens += [101] * 15
    assert blocks.grow(a, 60)
    blocks.fill(a, a_tokens, 60)
    assert (len(a.blocks), a.registered, blocks.used) == (4, 3, 6)
    third = a.blocks[2]
    blocks.release(a)
    assert (blocks.used, blocks.kept) == (4, 1)
    a = begin(blocks, [*a_tokens, 102])
    assert (a.blocks[:3], blocks.kept) == ([*b.blocks[:2], third], 0)
    blocks.release(a)
    blocks.release(b)
    assert (blocks.used, blocks.kept) == (0, 4)
    assert blocks.begin([7] * 7 * 16, None) is not None
    assert (blocks.used, blocks.kept) == (7, 1)


def test_requests_that_start_together_keep_their_blocks_in_a_row() -> None:
    blocks = BlockManager(64, 4)
    tables = [begin(blocks, [salt] * 9) for salt in range(4)]
    for length in range(10, 57):
        assert all(blocks.grow(table, length) for table in tables)
    assert all(table.contiguous for table in tables)


def test_a_full_cache_still_gives_new_requests_their_blocks_in_a_row() -> None:
    blocks = BlockManager(64, 4)
    for salt in range(30):
        blocks.release(begin(blocks, [salt] * 40))
    assert blocks.kept >= 48
    tables = [begin(blocks, [100 + salt] * 24) for salt in range(4)]
    assert sum(table.contiguous for table in tables) >= 3


def test_lately_used_blocks_stay_when_others_make_room() -> None:
    blocks = BlockManager(16, 4)
    for salt in range(4):
        blocks.release(begin(blocks, [salt] * 16))
    begin(blocks, [9] * 20)
    for salt in (3, 2):
        table = blocks.begin([*[salt] * 16, 5], None)
        assert table is not None
        assert table.registered == 4, salt
        blocks.release(table)
