"""The simulator's prefix cache."""

import pytest

from trimtab_cli.engine_sim.prefixes import PrefixCache, block_hashes


@pytest.mark.parametrize(("characters", "blocks"), [(0, 0), (15, 0), (16, 1), (31, 1), (32, 2)])
def test_only_whole_blocks_have_a_hash(characters: int, blocks: int):
    assert len(block_hashes("x" * characters, 16)) == blocks


def test_a_block_depends_on_everything_before_it():
    one, other = block_hashes("a" * 16 + "same block here!", 16), block_hashes("b" * 16 + "same block here!", 16)
    assert one[0] != other[0]
    assert one[1] != other[1]
    assert block_hashes("a" * 16 + "same block here!", 16) == one


def test_lone_surrogates_have_hashes():
    assert len(block_hashes("\ud800" * 16, 16)) == 1


def test_the_longest_cached_prefix_matches():
    cache = PrefixCache(10)
    cache.add((1, 2, 3))
    assert cache.match((1, 2, 3, 4)) == 3
    assert cache.match((1, 2, 9)) == 2
    assert cache.match((9, 2, 3)) == 0
    assert cache.match(()) == 0


def test_the_least_recently_used_goes_first_and_tails_before_heads():
    cache = PrefixCache(4)
    cache.add((1, 2))
    cache.add((5, 6))
    cache.match((1, 2))
    cache.add((7,))
    assert cache.match((1, 2)) == 2
    assert cache.match((5, 6)) == 1


def test_a_prompt_longer_than_the_cache_keeps_its_head():
    cache = PrefixCache(3)
    cache.add((1, 2, 3, 4, 5))
    assert cache.match((1, 2, 3, 4, 5)) == 3


def test_an_empty_cache_remembers_nothing():
    cache = PrefixCache(0)
    cache.add((1, 2))
    assert cache.match((1, 2)) == 0
