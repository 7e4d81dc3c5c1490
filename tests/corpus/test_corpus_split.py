import pytest

from caslon.corpus.split import group_key, group_position, split_groups
from caslon.errors import UserError

SHARES = (0.90, 0.05, 0.05)


def test_shares_are_met_for_many_groups() -> None:
    chosen = list(split_groups((number * 7919 for number in range(20_000)), SHARES, 1).values())
    assert chosen.count("train") / 20_000 == pytest.approx(0.90, abs=0.01)
    assert chosen.count("validation") / 20_000 == pytest.approx(0.05, abs=0.005)
    assert chosen.count("test") / 20_000 == pytest.approx(0.05, abs=0.005)


def test_new_groups_never_move_old_ones() -> None:
    before = split_groups((number * 7919 for number in range(500)), SHARES, 7)
    after = split_groups((number * 7919 for number in range(900)), SHARES, 7)
    assert all(after[group] == split for group, split in before.items())


def test_the_seed_changes_the_split_and_the_order_does_not() -> None:
    names = [number * 7919 for number in range(200)]
    assert split_groups(names, SHARES, 1) == split_groups(reversed(names), SHARES, 1)
    assert split_groups(names, SHARES, 1) != split_groups(names, SHARES, 2)


@pytest.mark.parametrize("count", [3, 4, 7, 12])
def test_no_split_stays_empty_in_a_small_corpus(count: int) -> None:
    for seed in range(20):
        chosen = split_groups((number * 7919 for number in range(count)), SHARES, seed)
        assert set(chosen.values()) == {"train", "validation", "test"}


def test_too_few_groups_is_the_users_mistake() -> None:
    with pytest.raises(UserError, match="2 groups of documents cannot fill 3 splits"):
        split_groups([1, 2], SHARES, 1)
    assert split_groups([1], (1.0, 0.0, 0.0), 1) == {1: "train"}


def test_an_unwanted_split_gets_nothing() -> None:
    chosen = split_groups((number * 7919 for number in range(300)), (0.9, 0.1, 0.0), 1)
    assert set(chosen.values()) == {"train", "validation"}


def test_positions_are_fixed() -> None:
    assert group_position(group_key("pg1342"), 1) == group_position(group_key("pg1342"), 1)
    assert 0.0 <= group_position(group_key("pg1342"), 1) < 1.0
    assert group_position(group_key("pg1342"), 1) == pytest.approx(0.5, abs=0.5)
