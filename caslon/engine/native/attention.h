// Attention of a few rows of one sequence over its keys and values in blocks.
//
// A block holds, for each key head, its tokens' keys and then values in the order in which products read them: keys as tiles of 16 tokens (8 in
// blocks of 8), unit by unit of the head, the tokens side by side; values by units of tokens, the head's channels side by side.
// A row is a (token, query head of the group); rows share the keys. Each row's scores, maximum, sum and mix are computed in the order of its
// own keys, so they do not depend on how many rows a tile has (paged attention: arXiv:2309.06180).
#pragma once
#include "products.h"

struct BlockShape {
    int tokens, head_size, key_heads;
    int64_t head_numbers() const { return (int64_t)tokens * head_size; }
    int64_t numbers() const { return head_numbers() * key_heads; }
    int key_tile() const { return tokens < LANES ? tokens : LANES; }
};

template <class Kind>
struct LayerCache {  // keys of all blocks, then values of all blocks: [2, blocks, key heads, tokens x head size]
    typename Kind::Stored* memory;
    int64_t blocks;
    BlockShape shape;
    typename Kind::Stored* keys(int block, int head) const { return memory + block * shape.numbers() + head * shape.head_numbers(); }
    typename Kind::Stored* values(int block, int head) const { return keys(block, head) + blocks * shape.numbers(); }

    void write(int block, int slot, int head, const float* key, const float* value, bool nothing_after) const {
        using Stored = typename Kind::Stored;
        constexpr int PER = Kind::PER_UNIT;
        int tile = shape.key_tile(), size = shape.head_size;
        alignas(64) Stored numbers[LANES];
        Unit* k = (Unit*)(keys(block, head) + (int64_t)(slot / tile) * tile * size) + slot % tile;
        Stored* v = values(block, head) + (int64_t)(slot / PER) * size * PER + slot % PER;
        for (int c = 0; c < size; c += LANES) {
            store(numbers, load(key + c));
            for (int u = 0; u < LANES / PER; u++) k[(int64_t)(c / PER + u) * tile] = ((const Unit*)numbers)[u];
            store(numbers, load(value + c));
            for (int n = 0; n < LANES; n++) v[(c + n) * PER] = numbers[n];
        }
        // The other half of a unit is multiplied by zero, which only a finite number survives.
        if (PER == 2 && nothing_after && slot % 2 == 0)
            for (int c = 0; c < size; c++) v[c * PER + 1] = 0;
    }
};

struct KeyTiles {  // 32 keys as the right matrix: two tiles of 16, each in one block, or four of 8 where blocks have 8 tokens
    const Unit* first;
    int64_t apart[4];  // from the first tile, in units
    int units, tile;
    int runs() const { return 1; }
    int steps_of(int) const { return units; }
    const Unit* start(int) const { return first; }
    int stride() const { return tile; }
    void read(const Unit* at, __m512i* to) const {
        to[0] = tile == LANES ? _mm512_loadu_si512(at) : halves(at, apart[1]);
        to[1] = tile == LANES ? _mm512_loadu_si512(at + apart[1]) : halves(at + apart[2], apart[3] - apart[2]);
    }
    static __m512i halves(const Unit* at, int64_t apart) {
        __m256i low = _mm256_loadu_si256((const __m256i*)at), high = _mm256_loadu_si256((const __m256i*)(at + apart));
        return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
    }
};

template <class Kind>
struct ValueRuns {  // 32 channels of all values of a sequence as the right matrix, block by block
    const LayerCache<Kind>& cache;
    const int32_t* table;
    int head, column, units;  // units: of keys that are read
    bool is_whole;            // whether there are 32 channels, not 16
    int in_block() const { return cache.shape.tokens / Kind::PER_UNIT; }
    int runs() const { return (units + in_block() - 1) / in_block(); }
    int steps_of(int run) const { return run + 1 < runs() ? in_block() : units - run * in_block(); }
    const Unit* start(int run) const { return (const Unit*)cache.values(table[run], head) + column; }
    void read(const Unit* at, __m512i* to) const {
        to[0] = _mm512_loadu_si512(at);
        to[1] = _mm512_loadu_si512(at + (is_whole ? LANES : 0));
    }
    int stride() const { return cache.shape.head_size; }
};

struct Span {  // tokens of one sequence that lie side by side in the step
    int row, tokens, start;
    const int32_t* table;
};

// Memory of one thread: queries, scores and mixes of a tile.
inline int64_t attention_scratch_bytes(int head_size, int64_t longest) {
    int64_t keys = (longest + PANEL - 1) / PANEL * PANEL;
    return HIGHEST_TILE * (head_size * 4 + keys * 8 + (head_size + PANEL) * 4) + 4 * 64;
}

template <class Kind>
inline KeyTiles key_tiles(const LayerCache<Kind>& cache, const Span& span, int head, int key, int keys) {
    BlockShape shape = cache.shape;
    int tile = shape.key_tile();
    KeyTiles found{nullptr, {}, shape.head_size / Kind::PER_UNIT, tile};
    for (int part = 0; part < PANEL / tile; part++) {
        int place = key + part * tile;
        if (place >= keys) place = key;  // nothing there: any readable tile will do, its scores are dropped
        const auto* at = cache.keys(span.table[place / shape.tokens], head) + (int64_t)(place % shape.tokens / tile) * tile * shape.head_size;
        if (part == 0) found.first = (const Unit*)at;
        found.apart[part] = (const Unit*)at - found.first;
    }
    return found;
}

constexpr int KEYS_AHEAD = 64;  // with few rows attention waits for memory

// Ask for the values of the 32 keys that are next, and for keys a little further on.
template <class Kind>
inline void fetch(const LayerCache<Kind>& cache, const Span& span, int head, int key, int keys) {
    int size = cache.shape.head_size, tile = cache.shape.key_tile();
    int64_t bytes = (int64_t)tile * size * sizeof(typename Kind::Stored);
    for (int part = key; part < key + PANEL; part += tile) {
        int64_t within = (int64_t)(part % cache.shape.tokens) * size;
        if (part < keys) {
            const char* at = (const char*)(cache.values(span.table[part / cache.shape.tokens], head) + within);
            for (int64_t byte = 0; byte < bytes; byte += 64) _mm_prefetch(at + byte, _MM_HINT_T1);
        }
        if (part + KEYS_AHEAD < keys) {
            within = (int64_t)((part + KEYS_AHEAD) % cache.shape.tokens) * size;
            const char* at = (const char*)(cache.keys(span.table[(part + KEYS_AHEAD) / cache.shape.tokens], head) + within);
            for (int64_t byte = 0; byte < bytes; byte += 64) _mm_prefetch(at + byte, _MM_HINT_T1);
        }
    }
}

inline float highest_of(const float* row, int count) {
    __m512 highest[4];  // four at a time: each waits for the one before it
    for (__m512& one : highest) one = _mm512_set1_ps(-INFINITY);
    int k = 0;
    for (; k + 4 * LANES <= count; k += 4 * LANES)
        for (int part = 0; part < 4; part++) highest[part] = _mm512_max_ps(highest[part], _mm512_loadu_ps(row + k + part * LANES));
    for (; k < count; k += LANES) highest[0] = _mm512_mask_max_ps(highest[0], first_lanes(count - k), highest[0], _mm512_loadu_ps(row + k));
    return _mm512_reduce_max_ps(_mm512_max_ps(_mm512_max_ps(highest[0], highest[1]), _mm512_max_ps(highest[2], highest[3])));
}

// Rows [first, first + height) of the span's (token, query head of the group) pairs, for one key head. `queries` [tokens of the step, query heads, C].
template <class Kind>
inline void attend(const LayerCache<Kind>& cache, const Span& span, int head, int groups, int first, int height,
                   const typename Kind::Stored* queries, const Tiles<Kind>& mixed, char* scratch) {
    using Stored = typename Kind::Stored;
    constexpr int PER = Kind::PER_UNIT;
    int size = cache.shape.head_size, heads = cache.shape.key_heads * groups;
    int keys = span.start + (first + height - 1) / groups + 1;  // of the last row, which sees most
    int padded = (keys + PANEL - 1) / PANEL * PANEL;
    Stored* asked = (Stored*)scratch;
    float* scores = (float*)(scratch + HIGHEST_TILE * size * 4 + 64);
    Stored* shares = (Stored*)(scores + (int64_t)HIGHEST_TILE * padded);
    float* mix = (float*)((char*)shares + (int64_t)HIGHEST_TILE * padded * 4);
    for (int r = 0; r < height; r++) {
        int token = span.row + (first + r) / groups, query_head = head * groups + (first + r) % groups;
        memcpy(asked + (int64_t)r * size, queries + ((int64_t)token * heads + query_head) * size, size * sizeof(Stored));
    }
    for (int key = 0; key < keys; key += PANEL) {
        KeyTiles right = key_tiles(cache, span, head, key, keys);
        if (height <= FEW_ROWS) fetch(cache, span, head, key, keys);
        multiply_rows<Kind, false, true>(height, (const Unit*)asked, size / PER, right, scores + key, padded);
    }
    float inverse[HIGHEST_TILE];
    __m512 scale = _mm512_set1_ps(LOG2_E / std::sqrt((float)size));
    for (int r = 0; r < height; r++) {
        int seen = span.start + (first + r) / groups + 1, whole = seen / LANES * LANES;
        __mmask16 rest = first_lanes(seen - whole);
        float* row = scores + (int64_t)r * padded;
        Stored* share = shares + (int64_t)r * padded;
        __m512 top = _mm512_mul_ps(_mm512_set1_ps(highest_of(row, seen)), scale), sum = _mm512_setzero_ps();
        auto share_of = [&](int k) { return power_of_two<Kind>(_mm512_fmsub_ps(_mm512_loadu_ps(row + k), scale, top)); };
        for (int k = 0; k < whole; k += LANES) {
            __m512 x = share_of(k);
            sum = _mm512_add_ps(sum, x);
            store(share + k, x);
        }
        if (rest) {
            __m512 x = _mm512_maskz_mov_ps(rest, share_of(whole));
            sum = _mm512_add_ps(sum, x);
            store(share + whole, x);
        }
        for (int k = (seen + LANES - 1) / LANES * LANES; k < padded; k += LANES) store(share + k, _mm512_setzero_ps());
        inverse[r] = 1.0f / _mm512_reduce_add_ps(sum);
    }
    for (int column = 0; column < size; column += PANEL) {
        ValueRuns<Kind> right{cache, span.table, head, column, (keys + PER - 1) / PER, size - column >= PANEL};
        multiply_rows<Kind, false, true>(height, (const Unit*)shares, padded / PER, right, mix + column, size + PANEL);
    }
    for (int r = 0; r < height; r++) {
        int token = span.row + (first + r) / groups, query_head = head * groups + (first + r) % groups;
        __m512 factor = _mm512_set1_ps(inverse[r]);
        for (int c = 0; c < size; c += LANES)
            mixed.put(token, query_head * size + c, _mm512_mul_ps(_mm512_loadu_ps(mix + (int64_t)r * (size + PANEL) + c), factor), LANES);
    }
}
