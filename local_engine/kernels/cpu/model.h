// A llama-shaped decoder and one step of it: token ids of several requests in, logits and streams out.
#pragma once

#include <memory>

#include "attention_tiles.h"
#include "attention_vectors.h"
#include "linear.h"

namespace penstock {

// These three structs are filled by native_step.py; the fields' order and types are repeated there.

struct LayerParts {
    Matrix *qkv, *attention_out, *gate_up, *down;
    const float *attention_norm, *feed_forward_norm;  // [hidden]
};

struct ModelParts {
    int32_t layers, hidden, inner, heads, kv_heads, head_dim, block_size, tiles;
    int64_t slots;               // of the pool
    float eps;
    const uint16_t* embeddings;  // bfloat16 [vocabulary, hidden]
    const float *cos, *sin;      // [positions, head_dim / 2]
    const float* norm;           // [hidden]
    Matrix* output;
    const LayerParts* each_layer;
    uint16_t* pool;  // bfloat16 [layers, 2, slots, kv_heads, head_dim]
};

struct StepParts {
    int32_t rows, requests, wanted, taps, threads;
    const int32_t* tokens;         // [rows]
    const int32_t* first_row;      // [requests + 1]
    const int32_t* start;          // [requests], position of the first row
    const int32_t* table_offset;   // [requests], into tables
    const int32_t* tables;         // block numbers
    const int32_t* wanted_rows;    // [wanted]
    const int32_t* tapped_layers;  // [taps], ascending
    float* stream;                 // [rows, hidden], behind the last layer when the step is done
    uint16_t* tapped;              // bfloat16 [rows, taps, hidden]
    float* logits;                 // [wanted, vocabulary]
    int32_t* likeliest;            // [wanted], place of the largest logit; -1 where they are not all finite
};

class Model {
   public:
    explicit Model(const ModelParts& parts)
        : m_(parts),
          layers_(parts.each_layer, parts.each_layer + parts.layers),
          group_(parts.heads / parts.kv_heads),
          query_stride_(round_up(parts.head_dim, 32)) {}

    void step(const StepParts& s) {
        make_room(s);
        Pool::instance().run(s.threads, [&](Team& team, int thread) { compute(s, team, thread); });
    }

   private:
    void make_room(const StepParts& s) {
        narrow_.shape(s.rows, m_.hidden);
        mixed_rows_.shape(s.rows, m_.heads * m_.head_dim);
        wide_.shape(s.rows, m_.inner);
        qkv_.reserve(size_t(s.rows) * (m_.heads + 2 * m_.kv_heads) * m_.head_dim);
        mixed_.reserve(size_t(s.rows) * m_.heads * m_.head_dim);
        inner_.reserve(size_t(s.rows) * m_.inner);
        query_room_ = size_t(s.rows) * group_ + LANES;
        queries_.reserve(query_room_ * m_.kv_heads * query_stride_);
        while (static_cast<int>(spaces_.size()) < s.threads) spaces_.emplace_back(new AttentionSpace);
        cut_attention(s);
    }

    void compute(const StepParts& s, Team& team, int thread) {
        team.share(s.rows, 8, [&](int row) {
            const uint16_t* from = m_.embeddings + size_t(s.tokens[row]) * m_.hidden;
            for (int i = 0; i < m_.hidden; i += LANES) {
                __mmask16 mask = lanes(m_.hidden - i);
                __m512 x = from_bf16(_mm256_maskz_loadu_epi16(mask, from + i));
                _mm512_mask_storeu_ps(s.stream + size_t(row) * m_.hidden + i, mask, x);
            }
        });
        int tap = 0;
        bool few = is_few_wanted(s);
        for (int index = 0; index < m_.layers; ++index) {
            const LayerParts& layer = layers_[index];
            normalise(s, team, *layer.qkv, layer.attention_norm);
            product(team, *layer.qkv, narrow_, qkv_.data());
            attention(s, team, thread, index);
            if (index == m_.layers - 1 && few) {
                if (s.wanted == 0) return;
                team.share(1, 1, [&](int) { keep_wanted(s); });
            }
            ready(team, *layer.attention_out, mixed_rows_, mixed_.data());
            add_product(team, *layer.attention_out, mixed_rows_, s.stream);
            normalise(s, team, *layer.gate_up, layer.feed_forward_norm);
            gated_product(team, *layer.gate_up, narrow_, inner_.data());
            ready(team, *layer.down, wide_, inner_.data());
            add_product(team, *layer.down, wide_, s.stream);
            if (tap < s.taps && s.tapped_layers[tap] == index) keep_stream(s, team, tap++);
        }
        if (s.wanted == 0) return;
        team.share(1, 1, [&](int) { narrow_.count = s.wanted; });
        team.share(s.wanted, 1, [&](int i) {
            const float* row = s.stream + size_t(few ? i : s.wanted_rows[i]) * m_.hidden;
            narrow_.fill(m_.output->kind, i, row, norm_factor(row, m_.hidden, m_.eps), m_.norm);
        });
        product(team, *m_.output, narrow_, s.logits);
        team.share(s.wanted, 1, [&](int i) {
            s.likeliest[i] = place_of_largest(s.logits + size_t(i) * m_.output->rows, m_.output->rows);
        });
    }

    /// Whether what the last layer makes of some rows, behind its keys and values, would be thrown away.
    bool is_few_wanted(const StepParts& s) const {
        if (s.taps && s.tapped_layers[s.taps - 1] == m_.layers - 1) return false;
        for (int i = 1; i < s.wanted; ++i)
            if (s.wanted_rows[i] <= s.wanted_rows[i - 1]) return false;
        return s.wanted < s.rows;
    }

    /// Go on with the wanted rows only; they move to the front.
    void keep_wanted(const StepParts& s) {
        size_t mixed = size_t(m_.heads) * m_.head_dim, hidden = m_.hidden;
        for (int i = 0; i < s.wanted; ++i) {
            size_t row = s.wanted_rows[i];
            std::memmove(mixed_.data() + i * mixed, mixed_.data() + row * mixed, mixed * sizeof(float));
            std::memmove(s.stream + i * hidden, s.stream + row * hidden, hidden * sizeof(float));
        }
        narrow_.count = mixed_rows_.count = wide_.count = s.wanted;
    }

    void normalise(const StepParts& s, Team& team, const Matrix& next, const float* weight) {
        team.share(narrow_.count, 4, [&](int row) {
            const float* from = s.stream + size_t(row) * m_.hidden;
            narrow_.fill(next.kind, row, from, norm_factor(from, m_.hidden, m_.eps), weight);
        });
    }

    void ready(Team& team, const Matrix& next, Activations& x, const float* from) {
        team.share(x.count, 4, [&](int row) { x.fill(next.kind, row, from + size_t(row) * x.columns, 1.0f, nullptr); });
    }

    void product(Team& team, const Matrix& w, const Activations& x, float* to) {
        penstock::product(team, w, x, m_.tiles, to);
    }

    void add_product(Team& team, const Matrix& w, const Activations& x, float* to) {
        each_block(team, w, x, m_.tiles, [&](int i, int row, __mmask16 mask, __m512 y) {
            float* at = to + size_t(i) * w.rows + row;
            _mm512_mask_storeu_ps(at, mask, _mm512_add_ps(y, _mm512_maskz_loadu_ps(mask, at)));
        });
    }

    /// silu(gate) * up: the blocks of gate and up alternate, so a pair has both.
    void gated_product(Team& team, const Matrix& w, const Activations& x, float* to) {
        int pairs = w.blocks / 2;
        team.share(pairs, portion(pairs, team), [&](int pair) {
            multiply_pair(w, pair, x, m_.tiles, [&](int first, int count, const Square& out) {
                __mmask16 mask = lanes(w.rows_of(2 * pair));
                for (int i = 0; i < count; ++i) {
                    __m512 y = _mm512_mul_ps(silu16(_mm512_load_ps(out[0][i])), _mm512_load_ps(out[1][i]));
                    _mm512_mask_storeu_ps(to + size_t(first + i) * m_.inner + pair * LANES, mask, y);
                }
            });
        });
    }

    void keep_stream(const StepParts& s, Team& team, int tap) {
        team.share(s.rows, 8, [&](int row) {
            const float* from = s.stream + size_t(row) * m_.hidden;
            uint16_t* to = s.tapped + (size_t(row) * s.taps + tap) * m_.hidden;
            for (int i = 0; i < m_.hidden; i += LANES) {
                __mmask16 mask = lanes(m_.hidden - i);
                _mm256_mask_storeu_epi16(to + i, mask, to_bf16(_mm512_maskz_loadu_ps(mask, from + i)));
            }
        });
    }

    // Attention.

    struct Piece {
        int request, kv_head, first, last;  // query rows, see Queries
    };

    void cut_attention(const StepParts& s) {
        constexpr int longest = 8 * LANES;  // more rows share one packing of keys and values, fewer share out the work
        pieces_.clear();
        slots_.clear();
        first_slot_.clear();
        positions_.clear();
        row_slots_.clear();
        for (int request = 0; request < s.requests; ++request) {
            int rows = s.first_row[request + 1] - s.first_row[request], context = s.start[request] + rows;
            const int32_t* table = s.tables + s.table_offset[request];
            first_slot_.push_back(slots_.size());
            for (int token = 0; token < context; ++token)
                slots_.push_back(table[token / m_.block_size] * m_.block_size + token % m_.block_size);
            for (int token = s.start[request]; token < context; ++token) {
                positions_.push_back(token);
                row_slots_.push_back(slots_[first_slot_[request] + token]);
            }
            for (int last = rows * group_; last > 0; last -= longest)  // the long ones first
                for (int head = 0; head < m_.kv_heads; ++head)
                    pieces_.push_back({request, head, last > longest ? last - longest : 0, last});
        }
    }

    uint16_t* kept(int layer, int which) const {
        return m_.pool + (size_t(layer) * 2 + which) * m_.slots * m_.kv_heads * m_.head_dim;
    }

    void attention(const StepParts& s, Team& team, int thread, int layer) {
        team.share(s.rows, 4, [&](int row) { turn_and_keep(layer, row); });
        AttentionSpace& space = *spaces_[thread];
        team.share(static_cast<int>(pieces_.size()), 1, [&](int index) {
            const Piece& piece = pieces_[index];
            size_t stride = size_t(m_.kv_heads) * m_.head_dim, head = size_t(piece.kv_head) * m_.head_dim;
            const int32_t* slots = slots_.data() + first_slot_[piece.request];
            Cached keys{kept(layer, 0) + head, stride, slots}, values{kept(layer, 1) + head, stride, slots};
            int first_row = s.first_row[piece.request];
            const uint16_t* rows = queries_.data() + (piece.kv_head * query_room_ + size_t(first_row) * group_) * query_stride_;
            Queries q{rows, query_stride_, group_, m_.head_dim, s.start[piece.request], 1.0f / __builtin_sqrtf(m_.head_dim)};
            auto put = [&](int row, const float* mixed, float divisor) {
                int query_head = piece.kv_head * group_ + row % group_;
                float* to = mixed_.data() + (size_t(first_row + row / group_) * m_.heads + query_head) * m_.head_dim;
                for (int i = 0; i < m_.head_dim; ++i) to[i] = mixed[i] / divisor;
            };
#ifdef PENSTOCK_AMX
            if (m_.tiles) return attend_tiles(q, keys, values, piece.first, piece.last, space, put);
#endif
            attend_vectors(q, keys, values, piece.first, piece.last, space, put);
        });
    }

    /// Turn a row's queries and keys by its position; queries go to their buffer, keys and values to the pool.
    void turn_and_keep(int layer, int row) {
        int position = positions_[row], dim = m_.head_dim;
        size_t place = size_t(row_slots_[row]) * m_.kv_heads * dim;
        const float* from = qkv_.data() + size_t(row) * (m_.heads + 2 * m_.kv_heads) * dim;
        for (int head = 0; head < m_.heads; ++head, from += dim)
            turn(from, position, queries_.data() + (head / group_ * query_room_ + size_t(row) * group_ + head % group_) * query_stride_);
        for (int head = 0; head < m_.kv_heads; ++head, from += dim) turn(from, position, kept(layer, 0) + place + head * dim);
        uint16_t* values = kept(layer, 1) + place;
        for (int i = 0; i < m_.kv_heads * dim; i += LANES) {
            __mmask16 mask = lanes(m_.kv_heads * dim - i);
            _mm256_mask_storeu_epi16(values + i, mask, to_bf16(_mm512_maskz_loadu_ps(mask, from + i)));
        }
    }

    void turn(const float* from, int position, uint16_t* to) const {
        int half = m_.head_dim / 2;
        const float *cos = m_.cos + size_t(position) * half, *sin = m_.sin + size_t(position) * half;
        for (int i = 0; i < half; i += LANES) {
            __mmask16 mask = lanes(half - i);
            __m512 first = _mm512_maskz_loadu_ps(mask, from + i), second = _mm512_maskz_loadu_ps(mask, from + half + i);
            __m512 c = _mm512_maskz_loadu_ps(mask, cos + i), n = _mm512_maskz_loadu_ps(mask, sin + i);
            _mm256_mask_storeu_epi16(to + i, mask, to_bf16(_mm512_fmsub_ps(first, c, _mm512_mul_ps(second, n))));
            _mm256_mask_storeu_epi16(to + half + i, mask, to_bf16(_mm512_fmadd_ps(second, c, _mm512_mul_ps(first, n))));
        }
    }

    ModelParts m_;
    std::vector<LayerParts> layers_;
    int group_, query_stride_;
    size_t query_room_ = 0;  // rows of the query buffer per key head
    Activations narrow_, mixed_rows_, wide_;
    Buffer<float> qkv_, mixed_, inner_;
    Buffer<uint16_t> queries_;
    std::vector<std::unique_ptr<AttentionSpace>> spaces_;
    std::vector<Piece> pieces_;
    std::vector<int32_t> slots_;       // of every token of every request, one request after the other
    std::vector<size_t> first_slot_;   // of each request, in slots_
    std::vector<int32_t> positions_, row_slots_;  // of each row
};

}  // namespace penstock
