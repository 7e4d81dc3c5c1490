// One step of the engine: the tokens of all sequences through all layers of a decoder, keys and values into the cache, and the logits asked for out.
//
// The arithmetic is that of model/decoder.py: matrices multiply numbers of one kind (float32 or bfloat16), everything between products is float32.
// One team of threads computes a step; its members meet after each part. The shapes below are mirrored in library.py.
// N tokens of the step, D width, H query heads, K key heads, C head size.
#include "attention.h"

struct Layer {
    const float *input_norm, *input_norm_bias, *post_norm, *post_norm_bias, *query_norm, *key_norm;
    Matrix qkv, output, up, down;  // up: gates and ups in turn, panel by panel, where the network is gated
    const float* router;           // [experts, D], or null
    const Matrix *expert_up, *expert_down;
};

struct Model {
    int32_t kind, layers, width, heads, key_heads, head_size, inner, vocabulary, experts, experts_per_token;
    int32_t is_gated, activation, is_rms, context;
    float norm_eps;
    const void* embedding;                                // [vocabulary, D]
    const float *positions, *cosines, *sines;             // [context, D]; [context, C / 2]; null where the family has none
    const float *norm, *norm_bias;
    const Layer* layer;
    Matrix head;
};

// What an adapter adds to one linear layer: (x A^T) B^T, scaled (LoRA, arXiv:2106.09685).
enum Target { QUERY, KEY, VALUE, OUTPUT, GATE, UP, DOWN };

struct Addition {
    int32_t target, rank;
    float scaling;
    const float *a, *b;  // [rank, inputs], [rank, outputs]
};

struct AdaptedRows {  // rows of the step that one adapter adds to
    const int32_t* rows;
    int32_t count;
    const int32_t* firsts;  // [layers + 1] where each layer's additions begin
    const Addition* additions;
};

struct Step {
    int32_t tokens, spans, table_width, outputs, scored, block_tokens, threads;  // scored: outputs whose logits are wanted, the first ones
    const int32_t *ids, *places;                          // [N]
    const int32_t *span_rows, *span_tokens, *span_starts; // [spans]
    const int32_t* tables;                                // [spans, table_width]
    const int32_t* output_rows;                           // [outputs]
    float* hidden;                                        // [outputs, D] after the last norm, or null
    float* logits;                                        // [scored, vocabulary]
    void* cache;
    int64_t cache_blocks;
    char* scratch;
    const AdaptedRows* adapters;
    int32_t adapter_count;
};

namespace {

struct Memory {  // hands out parts of the scratch, each on a line of its own; without a start it only counts
    char* start;
    int64_t used = 0;
    char* take(int64_t bytes) {
        char* found = start + used;
        used += (bytes + 63) / 64 * 64;
        return found;
    }
};

template <class Kind>
struct Buffers {
    float *stream, *projected, *changes, *weights, *results;
    typename Kind::Stored* queries;
    Tiles<Kind> read, inner, mixed, last;
    int32_t *experts, *order;
    Tiles<Kind> expert_read, expert_inner;
    char* threads;
    int64_t thread_bytes;
};

int64_t longest_of(const Step& step) {
    int64_t longest = 1;
    for (int s = 0; s < step.spans; s++)
        if (step.span_starts[s] + step.span_tokens[s] > longest) longest = step.span_starts[s] + step.span_tokens[s];
    return longest;
}

int counter_count(const Model& model) { return model.layers * (8 + 2 * model.experts) + 2; }

int64_t sums_bytes() { return 2ll * MOST_TILES_AT_ONCE * HIGHEST_TILE * PANEL * sizeof(float); }

template <class Kind>
Tiles<Kind> tiles_of(Memory& memory, int rows, int width) {
    Tiling tiling(rows);
    int64_t bytes = (int64_t)(tiling.tiles + 1) * HIGHEST_TILE * (width / Kind::PER_UNIT) * sizeof(Unit);
    return Tiles<Kind>{(Unit*)memory.take(bytes), width, tiling.height};
}

template <class Kind>
Buffers<Kind> buffers(const Model& model, const Step& step, Memory& memory) {
    Buffers<Kind> b;
    int tokens = step.tokens, outputs = step.outputs, threads = step.threads;
    int64_t longest = longest_of(step);
    int64_t n = tokens, qkv = (int64_t)(model.heads + 2 * model.key_heads) * model.head_size;
    b.stream = (float*)memory.take(n * model.width * 4);
    b.projected = (float*)memory.take(n * qkv * 4);
    b.queries = (typename Kind::Stored*)memory.take(n * model.heads * model.head_size * 4);
    b.read = tiles_of<Kind>(memory, tokens, model.width);
    b.mixed = tiles_of<Kind>(memory, tokens, model.heads * model.head_size);
    b.inner = tiles_of<Kind>(memory, tokens, model.inner);
    b.last = tiles_of<Kind>(memory, outputs, model.width);
    if (step.adapter_count) b.changes = (float*)memory.take(n * (model.is_gated ? 2 : 1) * model.inner * 4);
    if (model.experts) {
        int64_t choices = n * model.experts_per_token;
        b.experts = (int32_t*)memory.take(choices * 4);
        b.order = (int32_t*)memory.take(choices * 4);
        b.weights = (float*)memory.take(choices * 4);
        b.results = (float*)memory.take(choices * model.width * 4);
        b.expert_read = tiles_of<Kind>(memory, tokens, model.width);
        b.expert_inner = tiles_of<Kind>(memory, tokens, model.inner);
    }
    b.thread_bytes = sums_bytes() + attention_scratch_bytes(model.head_size, longest) + 4 * (model.experts + 16);
    b.thread_bytes = (b.thread_bytes + 63) / 64 * 64;
    b.threads = memory.take(b.thread_bytes * threads);
    return b;
}

// RMSNorm or LayerNorm of one row of D numbers, given out sixteen at a time.
template <class Give>
void normalise(const float* x, int width, const float* weight, const float* bias, bool is_rms, float eps, const Give& give) {
    __m512 mean = _mm512_setzero_ps(), squares = _mm512_setzero_ps();
    if (!is_rms) {
        for (int c = 0; c < width; c += LANES) mean = _mm512_add_ps(mean, load(x + c, first_lanes(width - c)));
        mean = _mm512_set1_ps(_mm512_reduce_add_ps(mean) / width);
    }
    for (int c = 0; c < width; c += LANES) {
        __mmask16 lanes = first_lanes(width - c);
        __m512 apart = _mm512_maskz_sub_ps(lanes, load(x + c, lanes), mean);
        squares = _mm512_fmadd_ps(apart, apart, squares);
    }
    __m512 factor = _mm512_set1_ps(1.0f / std::sqrt(_mm512_reduce_add_ps(squares) / width + eps));
    for (int c = 0; c < width; c += LANES) {
        __mmask16 lanes = first_lanes(width - c);
        __m512 y = _mm512_mul_ps(_mm512_mul_ps(_mm512_sub_ps(load(x + c, lanes), mean), factor), load(weight + c, lanes));
        if (bias) y = _mm512_add_ps(y, load(bias + c, lanes));
        give(c, y, width - c);
    }
}

void rotate(float* x, int size, const float* cosines, const float* sines) {
    int half = size / 2;
    for (int c = 0; c < half; c += LANES) {
        __mmask16 lanes = first_lanes(half - c);
        __m512 first = load(x + c, lanes), second = load(x + half + c, lanes), cos = load(cosines + c, lanes), sin = load(sines + c, lanes);
        store(x + c, _mm512_fnmadd_ps(second, sin, _mm512_mul_ps(first, cos)), lanes);
        store(x + half + c, _mm512_fmadd_ps(first, sin, _mm512_mul_ps(second, cos)), lanes);
    }
}

template <class Kind>
class Computation {
    using Stored = typename Kind::Stored;

  public:
    Computation(const Model& model, const Step& step, const Buffers<Kind>& b, std::atomic<int>* counters)
        : model(model), step(step), b(b), counters(counters) {}

    void run() const {
        part = 0;
        embed();
            meet();
        for (int number = 0; number < model.layers; number++) {
            const Layer& layer = model.layer[number];
            norm(layer.input_norm, layer.input_norm_bias);
            meet();
            float* projected = b.projected;
            int64_t qkv = layer.qkv.outputs;
            multiply<Kind, false>(layer.qkv, b.read, step.tokens, sums(), counter(), [=](int row, int column, __m512 x, int lanes) {
                store(projected + row * qkv + column, x, first_lanes(lanes));
            });
            meet();
            adapt(number, QUERY, VALUE, b.read, projected);
            place(layer, number);
            meet();
            attend_all(number);
            meet();
            add(layer.output, b.mixed, step.tokens, b.stream);
            meet();
            adapt(number, OUTPUT, OUTPUT, b.mixed, b.stream);
            norm(layer.post_norm, layer.post_norm_bias);
            meet();
            if (layer.router) {
                mixture(layer);
                continue;
            }
            if (step.adapter_count) forget_changes();
            adapt(number, GATE, UP, b.read, b.changes);
            widen(layer.up, b.read, step.tokens, b.inner, step.adapter_count ? b.changes : nullptr);
            meet();
            add(layer.down, b.inner, step.tokens, b.stream);
            meet();
            adapt(number, DOWN, DOWN, b.inner, b.stream);
        }
        finish();
    }

  private:
    const Model& model;
    const Step& step;
    const Buffers<Kind>& b;
    std::atomic<int>* counters;  // of pieces taken, one for each part of the step that is shared out
    static inline thread_local int part = 0;

    std::atomic<int>& counter() const { return counters[part++]; }

    char* own_memory() const { return b.threads + b.thread_bytes * Team::my_number; }
    float* sums() const { return (float*)own_memory(); }

    void embed() const {
        Share rows(step.tokens);
        for (int row = rows.first; row < rows.end; row++) {
            const Stored* from = (const Stored*)model.embedding + (int64_t)step.ids[row] * model.width;
            const float* learned = model.positions ? model.positions + (int64_t)step.places[row] * model.width : nullptr;
            for (int c = 0; c < model.width; c += LANES) {
                __mmask16 lanes = first_lanes(model.width - c);
                __m512 x = load(from + c, lanes);
                if (learned) x = _mm512_add_ps(x, load(learned + c, lanes));
                store(b.stream + (int64_t)row * model.width + c, x, lanes);
            }
        }
    }

    void norm(const float* weight, const float* bias) const {
        Share rows(step.tokens);
        for (int row = rows.first; row < rows.end; row++)
            normalise(b.stream + (int64_t)row * model.width, model.width, weight, bias, model.is_rms, model.norm_eps,
                      [&](int c, __m512 y, int count) { b.read.put(row, c, y, count); });
    }

    // Queries and keys normalised and turned, keys and values into the cache.
    void place(const Layer& layer, int number) const {
        int size = model.head_size;
        LayerCache<Kind> cache = cache_of(number);
        Share rows(step.tokens);
        for (int span = 0; span < step.spans; span++) {
            int first = step.span_rows[span], end = first + step.span_tokens[span];
            for (int row = first > rows.first ? first : rows.first; row < end && row < rows.end; row++) {
                float* q = b.projected + (int64_t)row * layer.qkv.outputs;
                float *k = q + model.heads * size, *v = k + model.key_heads * size;
                int position = step.places[row];
                for (int head = 0; head < model.heads + model.key_heads; head++) {
                    float* x = q + head * size;
                    const float* weight = head < model.heads ? layer.query_norm : layer.key_norm;
                    if (weight) normalise(x, size, weight, nullptr, true, model.norm_eps, [&](int c, __m512 y, int count) { store(x + c, y, first_lanes(count)); });
                    if (model.cosines) rotate(x, size, model.cosines + (int64_t)position * (size / 2), model.sines + (int64_t)position * (size / 2));
                }
                Stored* asked = b.queries + (int64_t)row * model.heads * size;
                for (int c = 0; c < model.heads * size; c += LANES) store(asked + c, load(q + c));
                int block = step.tables[(int64_t)span * step.table_width + position / step.block_tokens], slot = position % step.block_tokens;
                for (int head = 0; head < model.key_heads; head++) cache.write(block, slot, head, k + head * size, v + head * size, row + 1 == end);
            }
        }
    }

    LayerCache<Kind> cache_of(int number) const {
        BlockShape shape{step.block_tokens, model.head_size, model.key_heads};
        return LayerCache<Kind>{(Stored*)step.cache + 2 * number * step.cache_blocks * shape.numbers(), step.cache_blocks, shape};
    }

    // Whoever is free takes the next tile of rows; who computes it changes nothing.
    void attend_all(int number) const {
        LayerCache<Kind> cache = cache_of(number);
        int groups = model.heads / model.key_heads;
        char* scratch = own_memory() + sums_bytes();
        std::atomic<int>& taken = counter();
        int before = 0, mine = taken.fetch_add(1);
        for (int s = 0; s < step.spans; s++) {
            int rows = step.span_tokens[s] * groups;
            Tiling tiling(rows);
            int pieces = tiling.tiles * model.key_heads;
            Span span{step.span_rows[s], step.span_tokens[s], step.span_starts[s], step.tables + (int64_t)s * step.table_width};
            for (; mine < before + pieces; mine = taken.fetch_add(1)) {
                // Head by head: its keys and values stay in the second-level cache. The longest tiles first.
                int head = (mine - before) / tiling.tiles, tile = tiling.tiles - 1 - (mine - before) % tiling.tiles;
                int first = tile * tiling.height, height = rows - first < tiling.height ? rows - first : tiling.height;
                attend<Kind>(cache, span, head, groups, first, height, b.queries, b.mixed, scratch);
            }
            before += pieces;
        }
    }

    void add(const Matrix& matrix, const Tiles<Kind>& left, int rows, float* to) const {
        int64_t width = matrix.outputs;
        multiply<Kind, false>(matrix, left, rows, sums(), counter(), [=](int row, int column, __m512 x, int lanes) {
            float* at = to + row * width + column;
            store(at, _mm512_add_ps(load(at, first_lanes(lanes)), x), first_lanes(lanes));
        });
    }

    // `changes` [rows, gates and ups] are added before the activation.
    void widen(const Matrix& matrix, const Tiles<Kind>& left, int rows, const Tiles<Kind>& to, const float* changes = nullptr) const {
        int kind = model.activation;
        int64_t inner = model.inner, apart = matrix.outputs;
        if (model.is_gated)
            multiply<Kind, true>(matrix, left, rows, sums(), counter(), [=](int row, int column, __m512 gate, __m512 up, int lanes) {
                if (changes) {
                    const float* change = changes + row * apart + column;
                    gate = _mm512_add_ps(gate, load(change, first_lanes(lanes)));
                    up = _mm512_add_ps(up, load(change + inner, first_lanes(lanes)));
                }
                to.put(row, column, _mm512_mul_ps(activated<Kind>(gate, kind), up), lanes);
            });
        else
            multiply<Kind, false>(matrix, left, rows, sums(), counter(), [=](int row, int column, __m512 x, int lanes) {
                if (changes) x = _mm512_add_ps(x, load(changes + row * apart + column, first_lanes(lanes)));
                to.put(row, column, activated<Kind>(x, kind), lanes);
            });
    }

    void forget_changes() const {
        Share rows(step.tokens);
        int64_t width = (model.is_gated ? 2 : 1) * (int64_t)model.inner;
        memset(b.changes + rows.first * width, 0, (rows.end - rows.first) * width * sizeof(float));
            meet();
    }

    // The columns of a target in the rows it is added to.
    int64_t first_column(int target) const {
        if (target == KEY) return (int64_t)model.heads * model.head_size;
        if (target == VALUE) return (int64_t)(model.heads + model.key_heads) * model.head_size;
        return target == UP && model.is_gated ? model.inner : 0;
    }
    int64_t columns(int target) const {
        if (target == QUERY) return (int64_t)model.heads * model.head_size;
        if (target == KEY || target == VALUE) return (int64_t)model.key_heads * model.head_size;
        return target == GATE || target == UP ? model.inner : model.width;
    }

    // Add what adapters add to the layers `first` to `last`, which read the same rows; then all threads meet.
    void adapt(int number, int first, int last, const Tiles<Kind>& left, float* to) const {
        if (!step.adapter_count) return;
        int64_t apart = first == QUERY ? first_column(VALUE) + columns(VALUE) : first == GATE ? first_column(UP) + model.inner : model.width;
        float *x = sums(), *low = x + left.width;
        for (int a = 0; a < step.adapter_count; a++) {
            const AdaptedRows& adapter = step.adapters[a];
            Share share(adapter.count);
            for (int place = share.first; place < share.end; place++) {
                int row = adapter.rows[place];
                bool is_read = false;
                for (int n = adapter.firsts[number]; n < adapter.firsts[number + 1]; n++) {
                    const Addition& addition = adapter.additions[n];
                    if (addition.target < first || addition.target > last) continue;
                    for (int c = 0; !is_read && c < left.width; c++) x[c] = Kind::read(*left.place(row, c));
                    is_read = true;
                    add_low_rank(addition, x, left.width, low, to + row * apart + first_column(addition.target), columns(addition.target));
                }
            }
        }
            meet();
    }

    static void add_low_rank(const Addition& addition, const float* x, int inputs, float* low, float* to, int64_t outputs) {
        for (int r = 0; r < addition.rank; r++) {
            __m512 sum = _mm512_setzero_ps();
            for (int c = 0; c < inputs; c += LANES) {
                __mmask16 lanes = first_lanes(inputs - c);
                sum = _mm512_fmadd_ps(load(addition.a + (int64_t)r * inputs + c, lanes), load(x + c, lanes), sum);
            }
            low[r] = _mm512_reduce_add_ps(sum) * addition.scaling;
        }
        for (int64_t c = 0; c < outputs; c += LANES) {
            __mmask16 lanes = first_lanes((int)(outputs - c));
            __m512 sum = _mm512_setzero_ps();
            for (int r = 0; r < addition.rank; r++)
                sum = _mm512_fmadd_ps(load(addition.b + r * outputs + c, lanes), _mm512_set1_ps(low[r]), sum);
            store(to + c, _mm512_add_ps(load(to + c, lanes), sum), lanes);
        }
    }

    // Each expert computes all tokens that chose it; every token then adds its results up in the order of its choices.
    void mixture(const Layer& layer) const {
        int chosen = model.experts_per_token, width = model.width;
        route(layer);
            meet();
        int first = 0;
        int* counts = (int*)(own_memory() + b.thread_bytes - 4 * (model.experts + 16));
        for (int e = 0; e < model.experts; e++) counts[e] = 0;
        for (int c = 0; c < step.tokens * chosen; c++) counts[b.experts[c]]++;
        for (int expert = 0; expert < model.experts; first += counts[expert++]) {
            int rows = counts[expert];
            if (!rows) continue;
            int height = Tiling(rows).height;
            Tiles<Kind> read{b.expert_read.units, width, height}, inner{b.expert_inner.units, model.inner, height};
            Share mine(rows);
            for (int row = mine.first; row < mine.end; row++) {
                int token = b.order[first + row] / chosen;
                for (int c = 0; c < width; c += Kind::PER_UNIT) memcpy(read.place(row, c), b.read.place(token, c), sizeof(Unit));
            }
            meet();
            widen(layer.expert_up[expert], read, rows, inner);
            meet();
            multiply<Kind, false>(layer.expert_down[expert], inner, rows, sums(), counter(), [&](int row, int column, __m512 x, int lanes) {
                store(b.results + (int64_t)b.order[first + row] * width + column, x, first_lanes(lanes));
            });
            meet();
        }
        Share rows(step.tokens);
        for (int row = rows.first; row < rows.end; row++)
            for (int c = 0; c < width; c += LANES) {
                __mmask16 lanes = first_lanes(width - c);
                __m512 sum = _mm512_setzero_ps();
                for (int k = 0; k < chosen; k++)
                    sum = _mm512_fmadd_ps(load(b.results + ((int64_t)row * chosen + k) * width + c, lanes), _mm512_set1_ps(b.weights[row * chosen + k]), sum);
                float* at = b.stream + (int64_t)row * width + c;
                store(at, _mm512_add_ps(load(at, lanes), sum), lanes);
            }
            meet();
    }

    // The likeliest experts of each token (the first of equals), their shares, and the choices sorted by expert.
    void route(const Layer& layer) const {
        int chosen = model.experts_per_token, experts = model.experts;
        Share rows(step.tokens);
        float* logits = (float*)(own_memory() + b.thread_bytes - 4 * (experts + 16));
        for (int row = rows.first; row < rows.end; row++) {
            for (int e = 0; e < experts; e++) {
                double sum = 0;
                for (int c = 0; c < model.width; c++) sum += (double)Kind::read(*b.read.place(row, c)) * layer.router[(int64_t)e * model.width + c];
                logits[e] = (float)sum;
            }
            float highest = 0, total = 0;
            for (int k = 0; k < chosen; k++) {
                int best = 0;
                for (int e = 1; e < experts; e++) if (logits[e] > logits[best]) best = e;
                if (k == 0) highest = logits[best];
                b.experts[row * chosen + k] = best;
                total += b.weights[row * chosen + k] = std::exp(logits[best] - highest);
                logits[best] = -INFINITY;
            }
            for (int k = 0; k < chosen; k++) b.weights[row * chosen + k] /= total;
        }
            meet();
        if (Team::my_number == 0) {
            int place = 0;
            for (int e = 0; e < experts; e++)
                for (int c = 0; c < step.tokens * chosen; c++)
                    if (b.experts[c] == e) b.order[place++] = c;
        }
    }

    void finish() const {
        if (!step.outputs) return;
        Share rows(step.outputs);
        for (int row = rows.first; row < rows.end; row++)
            normalise(b.stream + (int64_t)step.output_rows[row] * model.width, model.width, model.norm, model.norm_bias, model.is_rms, model.norm_eps,
                      [&](int c, __m512 y, int count) {
                          b.last.put(row, c, y, count);
                          if (step.hidden) store(step.hidden + (int64_t)row * model.width + c, y, first_lanes(count));
                      });
            meet();
        float* logits = step.logits;
        int64_t vocabulary = model.vocabulary;
        multiply<Kind, false>(model.head, b.last, step.scored, sums(), counter(), [=](int row, int column, __m512 x, int lanes) {
            store(logits + row * vocabulary + column, x, first_lanes(lanes));
        });
    }
};

template <class Kind>
void run(const Model& model, const Step& step, Team& team) {
    Memory memory{step.scratch};
    std::atomic<int>* counters = (std::atomic<int>*)memory.take(counter_count(model) * sizeof(std::atomic<int>));
    for (int number = 0; number < counter_count(model); number++) counters[number] = 0;
    Buffers<Kind> b = buffers<Kind>(model, step, memory);
    Computation<Kind> computation(model, step, b, counters);
    team.run([&] { computation.run(); });
}

template <class Kind>
void pack(const typename Kind::Stored* rows, int outputs, int inputs, int every, int offset, Unit* panels) {
    constexpr int PER = Kind::PER_UNIT;
    int steps = inputs / PER, count = (outputs + PANEL - 1) / PANEL;
    for (int panel = 0; panel < count; panel++) {
        Unit* to = panels + ((int64_t)panel * every + offset) * steps * PANEL;
        for (int n = 0; n < PANEL; n++) {
            int output = panel * PANEL + n;
            const Unit* from = (const Unit*)(rows + (int64_t)output * inputs);
            for (int s = 0; s < steps; s++) to[(int64_t)s * PANEL + n] = output < outputs ? from[s] : 0;
        }
    }
}

}  // namespace

extern "C" {

// The number of this interface and the sizes of its structures: what calls must agree.
void caslon_layout(int64_t* to) {
    int64_t found[] = {1, sizeof(Matrix), sizeof(Layer), sizeof(Model), sizeof(Step)};
    memcpy(to, found, sizeof found);
}

// Whether this processor has what the kernels are written for.
int caslon_is_supported() {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512bf16");
}

int64_t caslon_scratch_bytes(const Model* model, const Step* step) {
    Memory memory{nullptr};
    memory.take(counter_count(*model) * sizeof(std::atomic<int>));
    if (model->kind) buffers<Bfloat16>(*model, *step, memory);
    else buffers<Float32>(*model, *step, memory);
    return memory.used;
}

// Rows of a weight matrix [outputs, inputs] into panels; of `every` interleaved matrices this is number `offset`.
void caslon_pack(int kind, const void* rows, int outputs, int inputs, int every, int offset, void* panels) {
    if (kind) pack<Bfloat16>((const uint16_t*)rows, outputs, inputs, every, offset, (Unit*)panels);
    else pack<Float32>((const float*)rows, outputs, inputs, every, offset, (Unit*)panels);
}

// Threads that wait for steps; the one that calls `caslon_step` is one of them.
Team* caslon_team(int threads) { return new Team(threads); }

void caslon_dismiss(Team* team) { delete team; }

void caslon_step(const Model* model, const Step* step, Team* team) {
    if (model->kind) run<Bfloat16>(*model, *step, *team);
    else run<Float32>(*model, *step, *team);
}
}
