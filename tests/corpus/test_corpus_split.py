import pytest

from caslon.corpus.split import group_key, group_position, split_groups
from caslon.errors import UserError

SHARES = (0.90, 0.05, 0.05)


def split(count: int, seed: int, shares: tuple[float, float, float] = SHARES) -> dict[int, str]:
    """The splits of `count` groups with names of their own."""
    return split_groups({number: group_position(f"group {number}", seed) for number in range(count)}, shares)


def test_shares_are_met_for_many_groups() -> None:
    chosen = list(split(20_000, 1).values())
    assert chosen.count("train") / 20_000 == pytest.approx(0.90, abs=0.01)
    assert chosen.count("validation") / 20_000 == pytest.approx(0.05, abs=0.005)
    assert chosen.count("test") / 20_000 == pytest.approx(0.05, abs=0.005)


def test_new_groups_never_move_old_ones() -> None:
    before, after = split(500, 7), split(900, 7)
    assert all(after[group] == name for group, name in before.items())


def test_the_seed_changes_the_split() -> None:
    assert split(200, 1) != split(200, 2)


@pytest.mark.parametrize("count", [3, 4, 7, 12])
def test_no_split_stays_empty_in_a_small_corpus(count: int) -> None:
    for seed in range(20):
        assert set(split(count, seed).values()) == {"train", "validation", "test"}


def test_too_few_groups_is_the_users_mistake() -> None:
    with pytest.raises(UserError, match="2 groups of documents cannot fill 3 splits"):
        split_groups({1: 0.1, 2: 0.2}, SHARES)
    assert split_groups({1: 0.5}, (1.0, 0.0, 0.0)) == {1: "train"}


def test_an_unwanted_split_gets_nothing() -> None:
    assert set(split(300, 1, (0.9, 0.1, 0.0)).values()) == {"train", "validation"}


def test_positions_are_fixed_by_name_and_seed() -> None:
    assert group_position("pg1342", 1) == pytest.approx(
        0.6393331892776338, abs=1e-15
    )  # a corpus of last year keeps its splits
    assert group_position("pg1342", 1) != group_position("pg1342", 2)
    assert group_key("pg1342") == 11255977776196496101
