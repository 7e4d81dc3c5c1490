// Products of a few to a few hundred rows with a weight matrix, each row's numbers added up in the same order whatever the number of rows.
//
// Left matrices lie in tiles: the rows are cut into tiles of equal height R <= 12, and a tile is stored unit by unit, its R rows side by side.
// Right matrices (weights) lie in panels of 32 outputs: for each unit of the inputs 32 units, one for each output. A tile times a panel
// keeps 2 R vectors of sums in registers; each step loads two vectors of the panel and broadcasts R units of the tile.
// The scheme is that of BLIS (Van Zee and van de Geijn, 2015). Eight- and four-bit weights are widened panel by panel into a piece of memory that stays in
// the first-level cache; their whole numbers are exact in bfloat16, the scales are applied to float32 sums.
#pragma once
#include <type_traits>

#include "team.h"

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

// A right matrix: runs of steps that lie side by side in memory, each step read as two vectors for each of PANELS panels.

template <int PANELS>
struct Numbers {  // weights as they are. While they are read, a line of `ahead` is asked for at each step, up to its end.
    const Unit* first;
    int steps;
    int64_t apart;  // units from a panel to the next
    mutable const char* ahead = nullptr;
    const char* ahead_end = nullptr;
    int runs() const { return 1; }
    int steps_of(int) const { return steps; }
    const Unit* start(int) const { return first; }
    int stride() const { return PANEL; }
    void read(const Unit* at, __m512i* to) const {
        if (ahead < ahead_end) _mm_prefetch(ahead, _MM_HINT_T1), ahead += 64;
        for (int v = 0; v < 2 * PANELS; v++) to[v] = _mm512_loadu_si512(at + (v / 2) * apart + (v % 2) * LANES);
    }
};

inline void widen8(const void* codes, __m512i* to, Float32) {
    for (int half = 0; half < 2; half++)
        to[half] = _mm512_castps_si512(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)codes + half))));
}

// The bytes of a bfloat16 are looked up by the size of the code; codes lie so that the halves of two looked-up vectors interleave in order.
struct Bytes {
    __m512i low[2], high[2];
    Bytes() {
        alignas(64) uint8_t tables[4][64];
        for (int size = 0; size < 128; size++) {
            uint16_t bits = Bfloat16::rounded((float)size);
            tables[size / 64][size % 64] = bits & 255;
            tables[2 + size / 64][size % 64] = bits >> 8;
        }
        for (int half = 0; half < 2; half++) low[half] = _mm512_load_si512(tables[half]), high[half] = _mm512_load_si512(tables[2 + half]);
    }
};
inline void widen8(const void* codes, __m512i* to, const Bytes& bytes) {
    __m512i code = _mm512_loadu_si512(codes), size = _mm512_abs_epi8(code);
    __m512i low = _mm512_permutex2var_epi8(bytes.low[0], size, bytes.low[1]);
    __m512i high = _mm512_permutex2var_epi8(bytes.high[0], size, bytes.high[1]);
    high = _mm512_ternarylogic_epi32(high, code, _mm512_set1_epi8((char)0x80), 0xf8);  // high | (code & sign)
    to[0] = _mm512_unpacklo_epi8(low, high);
    to[1] = _mm512_unpackhi_epi8(low, high);
}

constexpr int FURTHER_ON = 4096;  // bytes; without it few-bit weights come at two thirds of the speed of memory

template <class Kind, int PANELS>
struct Codes8 {
    const Unit* first;
    int steps;
    int64_t apart;
    typename std::conditional<Kind::PER_UNIT == 2, Bytes, Float32>::type table{};
    int runs() const { return 1; }
    int steps_of(int) const { return steps; }
    const Unit* start(int) const { return first; }
    int stride() const { return PANEL * Kind::PER_UNIT / 4; }
    void read(const Unit* at, __m512i* to) const {
        for (int panel = 0; panel < PANELS; panel++) {
            const char* codes = (const char*)(at + panel * apart);
            _mm_prefetch(codes + FURTHER_ON, _MM_HINT_T0);
            widen8(codes, to + 2 * panel, table);
        }
    }
};

template <class Kind, int PANELS>
struct Codes4 {
    const Unit* first;
    int steps;
    int64_t apart;
    __m512i table;
    int runs() const { return 1; }
    int steps_of(int) const { return steps; }
    const Unit* start(int) const { return first; }
    int stride() const { return PANEL * Kind::PER_UNIT / 8; }
    static __m512i table_of(const float* levels) {
        __m512 values = _mm512_loadu_ps(levels);
        return Kind::PER_UNIT == 2 ? _mm512_castsi256_si512((__m256i)_mm512_cvtneps_pbh(values)) : _mm512_castps_si512(values);
    }
    void read(const Unit* at, __m512i* to) const {
        for (int panel = 0; panel < PANELS; panel++, to += 2) {
            const Unit* codes = at + panel * apart;
            _mm_prefetch((const char*)codes + FURTHER_ON, _MM_HINT_T0);
            if constexpr (Kind::PER_UNIT == 2) {
                __m512i both = _mm512_cvtepu8_epi16(_mm256_loadu_si256((const __m256i*)codes));
                to[0] = _mm512_permutexvar_epi16(_mm512_and_si512(both, _mm512_set1_epi16(15)), table);
                to[1] = _mm512_permutexvar_epi16(_mm512_srli_epi16(both, 4), table);
            } else {
                __m512i both = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)codes));
                to[0] = _mm512_permutexvar_epi32(_mm512_and_si512(both, _mm512_set1_epi32(15)), table);
                to[1] = _mm512_permutexvar_epi32(_mm512_srli_epi32(both, 4), table);
            }
        }
    }
};

// A tile (height R) times PANELS x 32 columns: out[panel][r][0..31], `panel_apart` and `row_apart` floats apart. With CONTINUED the sums go on
// from what `out` holds. With BY_ROW the left matrix lies row by row, `left_apart` units apart, instead of in tiles.
template <class Kind, int R, int PANELS, bool CONTINUED, bool BY_ROW, class Right>
inline void multiply_tile(const Unit* left, int64_t left_apart, const Right& right, float* out, int64_t row_apart, int64_t panel_apart) {
    constexpr int VECTORS = 2 * PANELS;
    __m512 sums[R][VECTORS];
    auto place = [=](int r, int v) { return out + (v / 2) * panel_apart + r * row_apart + (v % 2) * LANES; };
    for (int r = 0; r < R; r++)
        for (int v = 0; v < VECTORS; v++) sums[r][v] = CONTINUED ? _mm512_loadu_ps(place(r, v)) : _mm512_setzero_ps();
    for (int run = 0; run < right.runs(); run++) {
        const Unit* at = right.start(run);
        int steps = right.steps_of(run);
        for (int step = 0; step < steps; step++) {
            __m512i columns[VECTORS];
            right.read(at, columns);
            at += right.stride();
#pragma GCC unroll 12
            for (int r = 0; r < R; r++) {
                __m512i a = _mm512_set1_epi32((int)(BY_ROW ? left[r * left_apart] : left[r]));
#pragma GCC unroll 4
                for (int v = 0; v < VECTORS; v++) sums[r][v] = Kind::multiply(sums[r][v], a, columns[v]);
            }
            left += BY_ROW ? 1 : R;
        }
    }
    for (int r = 0; r < R; r++)
        for (int v = 0; v < VECTORS; v++) _mm512_storeu_ps(place(r, v), sums[r][v]);
}

template <class Kind, bool CONTINUED, bool BY_ROW, class Right>
inline void multiply_rows(int height, const Unit* left, int64_t left_apart, const Right& right, float* out, int64_t row_apart) {
    switch (height) {
#define CASE(R) case R: return multiply_tile<Kind, R, 1, CONTINUED, BY_ROW>(left, left_apart, right, out, row_apart, 0);
        CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8) CASE(9) CASE(10) CASE(11) CASE(12)
#undef CASE
    }
}

// With few rows the sums of one panel would wait for each other: two panels at once.
constexpr int FEW_ROWS = 4;

template <class Kind, int PANELS, class Right>
inline void multiply_some(int height, const Unit* left, const Right& right, float* out) {
    if constexpr (PANELS == 1) return multiply_rows<Kind, false, false>(height, left, 0, right, out, PANEL);
    switch (height) {
#define CASE(R) case R: return multiply_tile<Kind, R, PANELS, false, false>(left, 0, right, out, PANEL, R * PANEL);
        CASE(1) CASE(2) CASE(3) CASE(4)
#undef CASE
    }
}

// PANELS panels of weights times one tile, into sums [panel][row][32].
template <class Kind, int PANELS>
inline void multiply_one_tile(const Matrix& matrix, int panel, const Unit* left, int height, float* sums) {
    constexpr int PER = Kind::PER_UNIT;
    int steps = matrix.inputs / PER, numbers = PANELS * height * PANEL;
    if (matrix.format == SAME) {
        int64_t units = (int64_t)steps * PANEL;
        return multiply_some<Kind, PANELS>(height, left, Numbers<PANELS>{(const Unit*)matrix.panels + panel * units, steps, units}, sums);
    }
    if (matrix.format == INT8) {
        int64_t units = (int64_t)steps * PANEL * PER / 4;
        multiply_some<Kind, PANELS>(height, left, Codes8<Kind, PANELS>{(const Unit*)matrix.panels + panel * units, steps, units}, sums);
        for (int n = 0; n < numbers; n += LANES) {
            const float* scale = matrix.scales + (int64_t)(panel + n / (height * PANEL)) * PANEL + n % PANEL;
            _mm512_storeu_ps(sums + n, _mm512_mul_ps(_mm512_loadu_ps(scale), _mm512_loadu_ps(sums + n)));
        }
        return;
    }
    alignas(64) float part[2 * FEW_ROWS * PANEL > HIGHEST_TILE * PANEL ? 2 * FEW_ROWS * PANEL : HIGHEST_TILE * PANEL];
    int group = matrix.group / PER, groups = steps / group;
    int64_t units = (int64_t)steps * PANEL * PER / 8;
    __m512i table = Codes4<Kind, PANELS>::table_of(matrix.levels);
    for (int g = 0; g < groups; g++) {
        const Unit* codes = (const Unit*)matrix.panels + panel * units + (int64_t)g * group * PANEL * PER / 8;
        multiply_some<Kind, PANELS>(height, left + (int64_t)g * group * height, Codes4<Kind, PANELS>{codes, group, units, table}, part);
        for (int n = 0; n < numbers; n += LANES) {
            const float* scale = matrix.scales + ((int64_t)(panel + n / (height * PANEL)) * groups + g) * PANEL + n % PANEL;
            __m512 before = g ? _mm512_loadu_ps(sums + n) : _mm512_setzero_ps();
            _mm512_storeu_ps(sums + n, _mm512_fmadd_ps(_mm512_loadu_ps(scale), _mm512_loadu_ps(part + n), before));
        }
    }
}

template <class Right>
inline void widen(const Right& right, Unit* to) {
    const Unit* at = right.start(0);
    for (int step = 0; step < right.steps; step++, at += right.stride(), to += PANEL) {
        __m512i columns[2];
        right.read(at, columns);
        _mm512_storeu_si512(to, columns[0]);
        _mm512_storeu_si512(to + LANES, columns[1]);
    }
}

// One panel of a weight matrix times several tiles, into `sums` [rows, 32] float32. Few-bit weights are widened a piece at a time.
template <class Kind>
inline void multiply_tiles(const Matrix& matrix, int panel, const Tiles<Kind>& left, int first_tile, int tiles, float* sums) {
    constexpr int PER = Kind::PER_UNIT;
    int height = left.height, steps = matrix.inputs / PER;
    int64_t tile_floats = (int64_t)height * PANEL;
    if (matrix.format == SAME) {
        const Unit* first = (const Unit*)matrix.panels + (int64_t)panel * steps * PANEL;
        const char* next = (const char*)(first + (int64_t)steps * PANEL);  // the second tile and those after it find this panel in the cache
        int64_t bytes = panel + 1 < (matrix.outputs + PANEL - 1) / PANEL ? (int64_t)steps * PANEL * sizeof(Unit) : 0;
        for (int t = 0; t < tiles; t++) {
            Numbers<1> right{first, steps, 0, next + bytes * t / tiles, next + bytes * (t + 1) / tiles};
            multiply_rows<Kind, false, false>(height, left.tile(first_tile + t), 0, right, sums + t * tile_floats, PANEL);
        }
        return;
    }
    bool is_int8 = matrix.format == INT8;
    alignas(64) Unit widened[WIDENED_INPUTS * PANEL];
    alignas(64) float part[HIGHEST_TILE * PANEL];
    int chunk = (is_int8 ? WIDENED_INPUTS : matrix.group) / PER, chunks = (steps + chunk - 1) / chunk;
    int step_units = PANEL * PER / (is_int8 ? 4 : 8);
    for (int c = 0; c < chunks; c++) {
        int here = c + 1 < chunks ? chunk : steps - c * chunk;
        const Unit* codes = (const Unit*)matrix.panels + ((int64_t)panel * steps + (int64_t)c * chunk) * step_units;
        if (is_int8) widen(Codes8<Kind, 1>{codes, here, 0}, widened);
        else widen(Codes4<Kind, 1>{codes, here, 0, Codes4<Kind, 1>::table_of(matrix.levels)}, widened);
        Numbers<1> right{widened, here, 0};
        for (int t = 0; t < tiles; t++) {
            const Unit* at = left.tile(first_tile + t) + (int64_t)c * chunk * height;
            float* to = sums + t * tile_floats;
            if (is_int8) {
                if (c) multiply_rows<Kind, true, false>(height, at, 0, right, to, PANEL);
                else multiply_rows<Kind, false, false>(height, at, 0, right, to, PANEL);
                continue;
            }
            multiply_rows<Kind, false, false>(height, at, 0, right, part, PANEL);
            const float* scales = matrix.scales + ((int64_t)panel * chunks + c) * PANEL;
            for (int n = 0; n < tile_floats; n += LANES) {
                __m512 before = c ? _mm512_loadu_ps(to + n) : _mm512_setzero_ps();
                _mm512_storeu_ps(to + n, _mm512_fmadd_ps(_mm512_loadu_ps(scales + n % PANEL), _mm512_loadu_ps(part + n), before));
            }
        }
    }
    if (is_int8) {
        const float* scales = matrix.scales + (int64_t)panel * PANEL;
        for (int64_t n = 0; n < tiles * tile_floats; n += LANES)
            _mm512_storeu_ps(sums + n, _mm512_mul_ps(_mm512_loadu_ps(scales + n % PANEL), _mm512_loadu_ps(sums + n)));
    }
}

constexpr int BLOCK_BYTES = 384 * 1024;  // of the left matrix that one pass over the panels reads: it stays in the second-level cache
constexpr int MOST_TILES_AT_ONCE = 32;

// Give sums of one panel to `finish`, bias added.
template <class Finish>
inline void give(const Matrix& matrix, const float* sums, int panel, int first_row, int rows, const Finish& finish) {
    for (int r = 0; r < rows; r++)
        for (int n = 0; n < PANEL; n += LANES) {
            int column = panel * PANEL + n, lanes = matrix.outputs - column;
            if (lanes <= 0) break;
            __m512 x = _mm512_loadu_ps(sums + r * PANEL + n);
            if (matrix.bias) x = _mm512_add_ps(x, load(matrix.bias + column, first_lanes(lanes)));
            finish(first_row + r, column, x, lanes);
        }
}

template <class Finish>
inline void give_gated(const Matrix& matrix, const float* gates, const float* ups, int panel, int first_row, int rows, const Finish& finish) {
    for (int r = 0; r < rows; r++)
        for (int n = 0; n < PANEL; n += LANES) {
            int column = panel * PANEL + n, lanes = matrix.outputs / 2 - column;
            if (lanes <= 0) break;
            finish(first_row + r, column, _mm512_loadu_ps(gates + r * PANEL + n), _mm512_loadu_ps(ups + r * PANEL + n), lanes);
        }
}

// Few rows: the weights are read once, panel by panel.
template <class Kind, bool GATED, class Finish>
inline void multiply_few(const Matrix& matrix, const Tiles<Kind>& left, int rows, float* sums, int first, int end, const Finish& finish) {
    int height = left.height;
    float* second = sums + height * PANEL;
    for (int panel = first; panel < end;) {
        bool both = height <= FEW_ROWS && (GATED || panel + 1 < end);
        if (both) multiply_one_tile<Kind, 2>(matrix, GATED ? 2 * panel : panel, left.units, height, sums);
        else multiply_one_tile<Kind, 1>(matrix, GATED ? 2 * panel : panel, left.units, height, sums);
        if constexpr (GATED) {
            if (!both) multiply_one_tile<Kind, 1>(matrix, 2 * panel + 1, left.units, height, second);
            give_gated(matrix, sums, second, panel++, 0, rows, finish);
        } else {
            give(matrix, sums, panel++, 0, rows, finish);
            if (both) give(matrix, second, panel++, 0, rows, finish);
        }
    }
}

// Many rows: a block of tiles stays in the cache while the panels pass.
template <class Kind, bool GATED, class Finish>
inline void multiply_many(const Matrix& matrix, const Tiles<Kind>& left, int rows, float* sums, int first, int end, const Finish& finish) {
    int height = left.height, tiles = (rows + height - 1) / height;
    int64_t tile_bytes = (int64_t)left.per_row() * height * sizeof(Unit);
    int block = (int)(BLOCK_BYTES / tile_bytes);
    block = block < 1 ? 1 : block > MOST_TILES_AT_ONCE ? MOST_TILES_AT_ONCE : block;
    for (int tile = 0; tile < tiles; tile += block) {
        int here = tiles - tile < block ? tiles - tile : block;
        int first_row = tile * height, row_count = rows - first_row < here * height ? rows - first_row : here * height;
        for (int panel = first; panel < end; panel++) {
            multiply_tiles(matrix, GATED ? 2 * panel : panel, left, tile, here, sums);
            if constexpr (GATED) {
                float* ups = sums + (int64_t)here * height * PANEL;
                multiply_tiles(matrix, 2 * panel + 1, left, tile, here, ups);
                give_gated(matrix, sums, ups, panel, first_row, row_count, finish);
            } else {
                give(matrix, sums, panel, first_row, row_count, finish);
            }
        }
    }
}

// Of the panels for each thread. Smaller pieces read the left matrix more often.
constexpr int PIECES_OF_FEW = 6, PIECES_OF_MANY = 2;

// All threads of the team call this. `finish(row, column, vector, lanes)` gets sixteen float32 sums, bias added, of a row that exists;
// with GATED it gets two vectors: weights then lie as panels of gates and ups in turn, and `column` counts ups. `taken` counts panels.
template <class Kind, bool GATED, class Finish>
inline void multiply(const Matrix& matrix, const Tiles<Kind>& left, int rows, float* sums, std::atomic<int>& taken, const Finish& finish) {
    int outputs = GATED ? matrix.outputs / 2 : matrix.outputs, first, end;
    bool is_few = rows <= left.height;
    Pieces pieces(taken, (outputs + PANEL - 1) / PANEL, is_few ? PIECES_OF_FEW : PIECES_OF_MANY);
    while (rows && pieces.next(first, end)) {
        if (is_few) multiply_few<Kind, GATED>(matrix, left, rows, sums, first, end, finish);
        else multiply_many<Kind, GATED>(matrix, left, rows, sums, first, end, finish);
    }
}
