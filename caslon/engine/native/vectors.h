// Numbers of the two kinds a model computes in, sixteen or thirty-two at a time (AVX-512).
//
// A "unit" is 32 bits of one kind: one float, or two neighbouring bfloat16. All products run over units, so one product of
// matrices serves both kinds: broadcast a unit of the left matrix, multiply with sixteen units of the right one, accumulate
// in float32. Nothing here looks at a row's neighbours: a row's result is the same whatever is computed beside it.
#pragma once
#include <immintrin.h>

#include <cmath>
#include <cstdint>
#include <cstring>

using Unit = uint32_t;
constexpr int LANES = 16;  // float32 numbers, or units, in a vector

struct Float32 {
    using Stored = float;
    static constexpr int PER_UNIT = 1;
    static __m512 multiply(__m512 sum, __m512i a, __m512i b) {
        return _mm512_fmadd_ps(_mm512_castsi512_ps(a), _mm512_castsi512_ps(b), sum);
    }
    static float read(Stored x) { return x; }
    static Stored rounded(float x) { return x; }
};

struct Bfloat16 {
    using Stored = uint16_t;
    static constexpr int PER_UNIT = 2;
    static __m512 multiply(__m512 sum, __m512i a, __m512i b) { return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b); }
    static float read(Stored x) {
        uint32_t bits = (uint32_t)x << 16;
        float value;
        memcpy(&value, &bits, 4);
        return value;
    }
    static Stored rounded(float x) {  // to the nearest, ties to even; infinities and NaN stay what they are
        uint32_t bits;
        memcpy(&bits, &x, 4);
        if ((bits & 0x7fffffff) > 0x7f800000) return (uint16_t)(bits >> 16 | 0x40);
        return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
    }
};

inline __mmask16 first_lanes(int count) { return count >= LANES ? 0xffff : (__mmask16)((1u << (count < 0 ? 0 : count)) - 1); }

// 2^x of sixteen numbers of at most 126: 2^n times a polynomial of 2^f on [-1/2, 1/2]. Relative error below 2e-7; 4e-6 for a
// result that is rounded to bfloat16 (the polynomial interpolates at Chebyshev's points).
template <class Kind>
inline __m512 power_of_two(__m512 x) {
    x = _mm512_max_ps(_mm512_set1_ps(-150.0f), x);  // in this order NaN stays NaN
    __m512 n = _mm512_roundscale_ps(x, 0);
    __m512 f = _mm512_sub_ps(x, n), p;
    if constexpr (Kind::PER_UNIT == 2) {
        p = _mm512_set1_ps(0.00966636852f);
        p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.0559219758f));
        p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.24022349f));
        p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.693121045f));
        p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.0f));
    } else {
        p = _mm512_set1_ps(1.5403530e-4f);
        p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.3333558e-3f));
        p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(9.6181291e-3f));
        p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(5.5504109e-2f));
        p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(2.4022651e-1f));
        p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(6.9314718e-1f));
        p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.0f));
    }
    return _mm512_scalef_ps(p, n);
}

constexpr float LOG2_E = 1.44269504f;

// x / (1 + 2^exponent).
template <class Kind>
inline __m512 gated(__m512 x, __m512 exponent) {
    exponent = _mm512_min_ps(_mm512_set1_ps(126.0f), exponent);
    return _mm512_div_ps(x, _mm512_add_ps(_mm512_set1_ps(1.0f), power_of_two<Kind>(exponent)));
}

enum Activation { SILU = 0, GELU_TANH = 1, GELU = 2, RELU = 3 };

template <class Kind>
inline __m512 activated(__m512 x, int kind) {
    if (kind == SILU) return gated<Kind>(x, _mm512_mul_ps(x, _mm512_set1_ps(-LOG2_E)));
    if (kind == RELU) return _mm512_max_ps(x, _mm512_setzero_ps());
    if (kind == GELU_TANH) {  // (1 + tanh(u)) / 2 = 1 / (1 + exp(-2u)), u = sqrt(2 / pi) (x + 0.044715 x^3)
        constexpr float LINEAR = -2 * 0.79788456f * LOG2_E;
        __m512 slope = _mm512_fmadd_ps(_mm512_mul_ps(x, x), _mm512_set1_ps(0.044715f * LINEAR), _mm512_set1_ps(LINEAR));
        return gated<Kind>(x, _mm512_mul_ps(x, slope));
    }
    alignas(64) float lanes[LANES];
    _mm512_store_ps(lanes, x);
    for (float& lane : lanes) lane = 0.5f * lane * (1.0f + std::erf(lane * 0.70710678f));
    return _mm512_load_ps(lanes);
}

// Sixteen numbers of a row, from either kind of memory.
inline __m512 load(const float* from, __mmask16 lanes = 0xffff) { return _mm512_maskz_loadu_ps(lanes, from); }
inline __m512 load(const uint16_t* from, __mmask16 lanes = 0xffff) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(lanes, from)), 16));
}
inline void store(float* to, __m512 x, __mmask16 lanes = 0xffff) { _mm512_mask_storeu_ps(to, lanes, x); }
inline void store(uint16_t* to, __m512 x, __mmask16 lanes = 0xffff) {
    _mm256_mask_storeu_epi16(to, lanes, (__m256i)_mm512_cvtneps_pbh(x));
}
