// Products of a few to a few hundred rows with a weight matrix, each row's numbers added up in the same order whatever the number of rows.
//
// Left matrices lie in tiles: the rows are cut into tiles of equal height R <= 12, and a tile is stored unit by unit, its R rows side by side.
// Right matrices (weights) lie in panels of 32 outputs: for each unit of the inputs 32 units, one for each output. A tile times a panel
// keeps 2 R vectors of sums in registers; each step loads two vectors of the panel and broadcasts R units of the tile.
// The scheme is that of BLIS (Van Zee and van de Geijn, 2015). Eight- and four-bit weights are widened panel by panel into a piece of memory that stays in
// the first-level cache; their whole numbers are exact in bfloat16, the scales are applied to float32 sums.
#pragma once
#include <omp.h>

#include "vectors.h"

constexpr int PANEL = 32;
constexpr int HIGHEST_TILE = 12;
constexpr int WIDENED_INPUTS = 256;  // of eight-bit weights at a time: 16 KiB

enum Format { SAME = 0, INT8 = 1, INT4 = 2 };

struct Matrix {
    int32_t outputs, inputs, format, group;  // group: inputs that share a scale (four bits)
    const void* panels;
    const float* scales;  // INT8: [panels, 32]; INT4: [panels, groups, 32]
    const float* levels;  // INT4: what the sixteen codes stand for
    const float* bias;    // or null
};

// How rows are cut into tiles.
struct Tiling {
    int rows, tiles, height;
    explicit Tiling(int rows) : rows(rows), tiles((rows + HIGHEST_TILE - 1) / HIGHEST_TILE), height(tiles ? (rows + tiles - 1) / tiles : 0) {}
};

template <class Kind>
struct Tiles {  // [tiles, units, height]
    Unit* units;
    int width;  // numbers in a row
    int height;
    int per_row() const { return width / Kind::PER_UNIT; }
    Unit* tile(int number) const { return units + (int64_t)number * per_row() * height; }
    typename Kind::Stored* place(int row, int column) const {
        Unit* unit = tile(row / height) + (int64_t)(column / Kind::PER_UNIT) * height + row % height;
        return (typename Kind::Stored*)unit + column % Kind::PER_UNIT;
    }
    // Sixteen numbers of a row from `column` (even), fewer at the end of the row.
    void put(int row, int column, __m512 x, int count) const {
        Unit* to = tile(row / height) + (int64_t)(column / Kind::PER_UNIT) * height + row % height;
        alignas(64) typename Kind::Stored numbers[LANES];
        store(numbers, x);
        const Unit* from = (const Unit*)numbers;
        int units_here = (count < LANES ? count : LANES) / Kind::PER_UNIT;
        for (int u = 0; u < units_here; u++) to[(int64_t)u * height] = from[u];
    }
};

// Where the two vectors of a step of the right matrix lie.
struct Panels {  // of weights: one run of steps. While they are read, a line of `ahead` is asked for at each step, up to its end.
    const Unit* first;
    int steps;
    mutable const char* ahead = nullptr;
    const char* ahead_end = nullptr;
    int runs() const { return 1; }
    int steps_of(int) const { return steps; }
    const Unit* start(int) const { return first; }
    __m512i left(const Unit* at) const {
        if (ahead < ahead_end) _mm_prefetch(ahead, _MM_HINT_T1), ahead += 64;
        return _mm512_loadu_si512(at);
    }
    __m512i right(const Unit* at) const { return _mm512_loadu_si512(at + LANES); }
    int stride() const { return PANEL; }
};

// Tile (height R) times 32 columns: out[r][0..31]. With CONTINUED the sums go on from what `out` holds. ROWS_APART: 0 for a left matrix in
// tiles, else the left matrix lies row by row with that many units between rows given at run time.
template <class Kind, int R, bool CONTINUED, bool BY_ROW, class Right>
inline void multiply_tile(const Unit* left, int64_t apart, const Right& right, float* out, int64_t out_apart) {
    __m512 sums[R][2];
    for (int r = 0; r < R; r++) {
        sums[r][0] = CONTINUED ? _mm512_loadu_ps(out + r * out_apart) : _mm512_setzero_ps();
        sums[r][1] = CONTINUED ? _mm512_loadu_ps(out + r * out_apart + LANES) : _mm512_setzero_ps();
    }
    for (int run = 0; run < right.runs(); run++) {
        const Unit* at = right.start(run);
        int steps = right.steps_of(run);
        for (int step = 0; step < steps; step++) {
            __m512i b0 = right.left(at), b1 = right.right(at);
            at += right.stride();
#pragma GCC unroll 12
            for (int r = 0; r < R; r++) {
                __m512i a = _mm512_set1_epi32((int)(BY_ROW ? left[r * apart] : left[r]));
                sums[r][0] = Kind::multiply(sums[r][0], a, b0);
                sums[r][1] = Kind::multiply(sums[r][1], a, b1);
            }
            left += BY_ROW ? 1 : R;
        }
    }
    for (int r = 0; r < R; r++) {
        _mm512_storeu_ps(out + r * out_apart, sums[r][0]);
        _mm512_storeu_ps(out + r * out_apart + LANES, sums[r][1]);
    }
}

template <class Kind, bool CONTINUED, bool BY_ROW, class Right>
inline void multiply_rows(int height, const Unit* left, int64_t apart, const Right& right, float* out, int64_t out_apart) {
    switch (height) {
#define CASE(R) case R: return multiply_tile<Kind, R, CONTINUED, BY_ROW>(left, apart, right, out, out_apart);
        CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8) CASE(9) CASE(10) CASE(11) CASE(12)
#undef CASE
    }
}

// Codes of one step (32 outputs) to units.
inline void widen8(const int8_t* codes, Unit* to, Float32) {
    for (int half = 0; half < 2; half++)
        _mm512_storeu_ps((float*)to + half * LANES, _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)codes + half))));
}
inline void widen8(const int8_t* codes, Unit* to, Bfloat16) {
    for (int half = 0; half < 2; half++) {
        __m512 low = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)codes + 2 * half)));
        __m512 high = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)codes + 2 * half + 1)));
        _mm512_storeu_si512(to + half * LANES, (__m512i)_mm512_cvtne2ps_pbh(high, low));
    }
}
inline void widen4(const uint8_t* codes, Unit* to, const float* levels, Float32) {
    __m512 table = _mm512_loadu_ps(levels);
    __m512i both = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)codes));
    _mm512_storeu_ps((float*)to, _mm512_permutexvar_ps(_mm512_and_si512(both, _mm512_set1_epi32(15)), table));
    _mm512_storeu_ps((float*)to + LANES, _mm512_permutexvar_ps(_mm512_srli_epi32(both, 4), table));
}
inline void widen4(const uint8_t* codes, Unit* to, const float* levels, Bfloat16) {
    __m512i table = _mm512_castsi256_si512((__m256i)_mm512_cvtneps_pbh(_mm512_loadu_ps(levels)));
    __m512i both = _mm512_cvtepu8_epi16(_mm256_loadu_si256((const __m256i*)codes));
    _mm512_storeu_si512(to, _mm512_permutexvar_epi16(_mm512_and_si512(both, _mm512_set1_epi16(15)), table));
    _mm512_storeu_si512(to + LANES, _mm512_permutexvar_epi16(_mm512_srli_epi16(both, 4), table));
}

// One panel of a weight matrix times all tiles of a block of rows, into `sums` [rows, 32] float32.
template <class Kind>
inline void multiply_panel(const Matrix& matrix, int panel, const Tiles<Kind>& left, int first_tile, int tiles, float* sums) {
    constexpr int PER = Kind::PER_UNIT;
    int height = left.height, steps = matrix.inputs / PER;
    if (matrix.format == SAME) {
        const Unit* first = (const Unit*)matrix.panels + (int64_t)panel * steps * PANEL;
        const char* next = (const char*)(first + (int64_t)steps * PANEL);  // the second tile and those after it find this panel in the cache
        int64_t bytes = tiles > 1 && panel + 1 < (matrix.outputs + PANEL - 1) / PANEL ? (int64_t)steps * PANEL * sizeof(Unit) : 0;
        for (int t = 0; t < tiles; t++) {
            Panels right{first, steps, next + bytes * t / tiles, next + bytes * (t + 1) / tiles};
            multiply_rows<Kind, false, false>(height, left.tile(first_tile + t), 0, right, sums + (int64_t)t * height * PANEL, PANEL);
        }
        return;
    }
    alignas(64) Unit widened[WIDENED_INPUTS * PANEL];
    alignas(64) float part[HIGHEST_TILE * PANEL];
    int chunk = (matrix.format == INT8 ? WIDENED_INPUTS : matrix.group) / PER;
    int chunks = (steps + chunk - 1) / chunk;
    int bytes = matrix.format == INT8 ? PANEL * PER : PANEL * PER / 2;  // codes of a step
    const uint8_t* codes = (const uint8_t*)matrix.panels + (int64_t)panel * steps * bytes;
    for (int c = 0; c < chunks; c++) {
        int here = c + 1 < chunks ? chunk : steps - c * chunk;
        for (int s = 0; s < here; s++) {
            const uint8_t* from = codes + (int64_t)(c * chunk + s) * bytes;
            if (matrix.format == INT8) widen8((const int8_t*)from, widened + s * PANEL, Kind());
            else widen4(from, widened + s * PANEL, matrix.levels, Kind());
        }
        Panels right{widened, here};
        for (int t = 0; t < tiles; t++) {
            const Unit* at = left.tile(first_tile + t) + (int64_t)c * chunk * height;
            float* to = sums + (int64_t)t * height * PANEL;
            if (matrix.format == INT8) {
                if (c) multiply_rows<Kind, true, false>(height, at, 0, right, to, PANEL);
                else multiply_rows<Kind, false, false>(height, at, 0, right, to, PANEL);
                continue;
            }
            multiply_rows<Kind, false, false>(height, at, 0, right, part, PANEL);
            const float* scales = matrix.scales + ((int64_t)panel * chunks + c) * PANEL;
            for (int r = 0; r < height; r++)
                for (int n = 0; n < PANEL; n += LANES) {
                    __m512 before = c ? _mm512_loadu_ps(to + r * PANEL + n) : _mm512_setzero_ps();
                    _mm512_storeu_ps(to + r * PANEL + n, _mm512_fmadd_ps(_mm512_loadu_ps(scales + n), _mm512_loadu_ps(part + r * PANEL + n), before));
                }
        }
    }
    if (matrix.format == INT8) {
        const float* scales = matrix.scales + (int64_t)panel * PANEL;
        for (int r = 0; r < tiles * height; r++)
            for (int n = 0; n < PANEL; n += LANES)
                _mm512_storeu_ps(sums + r * PANEL + n, _mm512_mul_ps(_mm512_loadu_ps(scales + n), _mm512_loadu_ps(sums + r * PANEL + n)));
    }
}

struct Share {  // of `count` things, for the calling thread
    int first, end;
    explicit Share(int count) {
        int64_t thread = omp_get_thread_num(), threads = omp_get_num_threads();
        first = (int)(count * thread / threads);
        end = (int)(count * (thread + 1) / threads);
    }
};

constexpr int BLOCK_BYTES = 384 * 1024;  // of the left matrix that one pass over the panels reads: it stays in the second-level cache
constexpr int MOST_TILES_AT_ONCE = 32;

// All threads of the team call this. `finish(row, column, vector, lanes)` gets sixteen float32 sums, bias added, of a row that exists;
// with GATED it gets two vectors: weights then lie as panels of gates and ups in turn, and `column` counts ups.
template <class Kind, bool GATED, class Finish>
inline void multiply(const Matrix& matrix, const Tiles<Kind>& left, int rows, float* sums, const Finish& finish) {
    int height = left.height, tiles = (rows + height - 1) / height;
    int64_t tile_bytes = (int64_t)left.per_row() * height * sizeof(Unit);
    int block = (int)(BLOCK_BYTES / tile_bytes);
    block = block < 1 ? 1 : block > MOST_TILES_AT_ONCE ? MOST_TILES_AT_ONCE : block;
    int outputs = GATED ? matrix.outputs / 2 : matrix.outputs;
    Share panels((outputs + PANEL - 1) / PANEL);
    for (int tile = 0; tile < tiles; tile += block) {
        int here = tiles - tile < block ? tiles - tile : block;
        for (int panel = panels.first; panel < panels.end; panel++) {
            multiply_panel(matrix, GATED ? 2 * panel : panel, left, tile, here, sums);
            float* ups = sums + (int64_t)here * height * PANEL;
            if (GATED) multiply_panel(matrix, 2 * panel + 1, left, tile, here, ups);
            int first_row = tile * height, row_count = rows - first_row < here * height ? rows - first_row : here * height;
            for (int r = 0; r < row_count; r++)
                for (int n = 0; n < PANEL; n += LANES) {
                    int column = panel * PANEL + n, lanes = outputs - column;
                    if (lanes <= 0) break;
                    __m512 x = _mm512_loadu_ps(sums + r * PANEL + n);
                    if constexpr (GATED) {
                        finish(first_row + r, column, x, _mm512_loadu_ps(ups + r * PANEL + n), lanes);
                    } else {
                        if (matrix.bias) x = _mm512_add_ps(x, load(matrix.bias + column, first_lanes(lanes)));
                        finish(first_row + r, column, x, lanes);
                    }
                }
        }
    }
}
