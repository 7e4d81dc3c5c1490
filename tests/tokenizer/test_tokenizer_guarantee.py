import random

from tokenizers import Tokenizer, models

from caslon.tokenizer.guarantee import MergeRules, least_entries, with_guaranteed

ALPHABET = list("abcdefgh")
MERGES = [("a", "b"), ("c", "d"), ("ab", "cd"), ("e", "f"), ("b", "c"), ("g", "h"), ("ef", "gh"), ("d", "e")]


def random_words(number: int, seed: int) -> list[str]:
    generator = random.Random(seed)
    return ["".join(generator.choices(ALPHABET, k=generator.randrange(2, 9))) for _ in range(number)]


def test_rules_act_as_the_library_does() -> None:
    rules = MergeRules(MERGES, ALPHABET)
    vocab = {entry: id for id, entry in enumerate([*ALPHABET, *(left + right for left, right in MERGES)])}
    library = Tokenizer(models.BPE(vocab=vocab, merges=MERGES))
    for word in random_words(500, 1):
        assert list(rules.applied(word)) == library.encode(word).tokens


def test_every_word_becomes_one_entry_and_the_size_is_exact() -> None:
    words = list(dict.fromkeys(random_words(12, 2)))
    least = least_entries(ALPHABET, words)
    for entries in range(least, least + len(MERGES) + 1):
        merges, left_out = with_guaranteed(MERGES, ALPHABET, words, entries)
        rules = MergeRules(merges, ALPHABET)
        assert all(rules.applied(word) == (word,) for word in words)
        assert len(rules.entries) <= entries
        if left_out:
            assert len(rules.entries) == entries


def test_nothing_to_guarantee_changes_nothing() -> None:
    assert with_guaranteed(MERGES, ALPHABET, [], len(ALPHABET) + len(MERGES)) == (MERGES, 0)
    assert with_guaranteed(MERGES, ALPHABET, ["abcd"], len(ALPHABET) + len(MERGES)) == (MERGES, 0)


def test_other_words_are_cut_as_before_up_to_the_learned_rules() -> None:
    merges, _ = with_guaranteed(MERGES, ALPHABET, ["hag"], 100)
    before, after = MergeRules(MERGES, ALPHABET), MergeRules(merges, ALPHABET)
    for word in random_words(300, 3):
        if not any(pair in word for pair in ("ha", "ag")):
            assert before.applied(word) == after.applied(word)
