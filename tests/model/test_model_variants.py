import pytest

from caslon.model.variants import feed_forward, simple_llama, square_norm, swiglu, wide_attention

WORDS, WIDTH = 128_256, 288


@pytest.mark.promise("pretraining", "the counts of the published teaching variants follow from their formulas")
def test_published_counts_follow_from_the_formulas():
    assert feed_forward(32_001, 288) == 18_547_809
    assert simple_llama(32_001, 768, 8) == 187_827_210
    ladder = [feed_forward(WORDS, WIDTH)]
    for part in (square_norm(WIDTH), wide_attention(WIDTH), swiglu(WIDTH)):
        ladder.append(ladder[-1] + part)
    assert ladder == [74_086_944, 74_169_888, 76_160_832, 76_327_297]
    assert simple_llama(WORDS, WIDTH, 6) == 96_444_391
    assert simple_llama(WORDS, 768, 8) == 335_771_145
