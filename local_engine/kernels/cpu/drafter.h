// A trained draft head (speculative/head_model.py says what it computes): chains of likeliest tokens in one call.
#pragma once

#include <algorithm>
#include <vector>

#include "linear.h"

namespace penstock {

// Filled by native_head.py; the fields' order and types are repeated there.
struct HeadParts {
    int32_t hidden, width, drafted, tiles;
    float eps;
    Matrix *fuse, *token_in, *state_in, *gate_up, *down, *output;
    const float *fuse_norm, *token_norm, *state_norm, *block_norm, *norm;  // [hidden]
    const uint16_t* embeddings;  // bfloat16 [vocabulary, hidden]
    const uint16_t* parts;       // bfloat16 [drafted, hidden]: what token_in makes of each drafted token
};

class Drafter {
   public:
    explicit Drafter(const HeadParts& parts) : h_(parts) {}

    /// From bfloat16 streams [count, hidden] and newest tokens [count] to places [count, depth] in the drafted vocabulary
    /// and the chance that the head gives each of them. A chain ends behind the token with which the product of its chances
    /// falls below `least`; what is behind the end is left as it was.
    void draft(const uint16_t* streams, const int32_t* tokens, int count, int depth, int threads, float least, int32_t* places,
               float* chances) {
        narrow_.shape(count, h_.hidden);
        wide_.shape(count, h_.width);
        size_t row = size_t(count) * h_.hidden;
        state_.reserve(row), next_.reserve(row), token_.reserve(row);
        inner_.reserve(size_t(count) * 2 * h_.width), logits_.reserve(size_t(count) * h_.drafted);
        hopes_.assign(count, 1.0f);
        Pool::instance().run(threads, [&](Team& team, int) {
            begin(team, streams, tokens, count);
            for (int place = 0; place < depth; ++place) {
                advance(team, count);
                choose(team, count, least, places + place, chances + place, depth);
                if (*std::max_element(hopes_.begin(), hopes_.end()) < least) break;  // read by all behind the same barrier
            }
        });
    }

   private:
    void begin(Team& team, const uint16_t* streams, const int32_t* tokens, int count) {
        team.share(count, 1, [&](int i) {
            widen(streams + size_t(i) * h_.hidden, at(next_, i));
            normalise(*h_.fuse, i, at(next_, i), h_.fuse_norm);
        });
        product(team, *h_.fuse, narrow_, h_.tiles, state_.data());
        team.share(count, 1, [&](int i) {
            widen(h_.embeddings + size_t(tokens[i]) * h_.hidden, at(next_, i));
            normalise(*h_.token_in, i, at(next_, i), h_.token_norm);
        });
        product(team, *h_.token_in, narrow_, h_.tiles, token_.data());
    }

    /// The next state of each chain, and its logits.
    void advance(Team& team, int count) {
        team.share(count, 1, [&](int i) { normalise(*h_.state_in, i, at(state_, i), h_.state_norm); });
        product(team, *h_.state_in, narrow_, h_.tiles, next_.data());
        team.share(count, 1, [&](int i) {
            add(at(next_, i), at(token_, i));
            normalise(*h_.gate_up, i, at(next_, i), h_.block_norm);
        });
        product(team, *h_.gate_up, narrow_, h_.tiles, inner_.data());
        team.share(count, 1, [&](int i) {
            float* gate = inner_.data() + size_t(i) * 2 * h_.width;
            for (int j = 0; j < h_.width; j += LANES) {
                __mmask16 mask = lanes(h_.width - j);
                __m512 up = _mm512_maskz_loadu_ps(mask, gate + h_.width + j);
                _mm512_mask_storeu_ps(gate + j, mask, _mm512_mul_ps(silu16(_mm512_maskz_loadu_ps(mask, gate + j)), up));
            }
            wide_.fill(h_.down->kind, i, gate, 1.0f, nullptr);
        });
        product(team, *h_.down, wide_, h_.tiles, state_.data());
        team.share(count, 1, [&](int i) {
            add(at(state_, i), at(next_, i));
            normalise(*h_.output, i, at(state_, i), h_.norm);
        });
        product(team, *h_.output, narrow_, h_.tiles, logits_.data());
    }

    /// One token for each chain that goes on: places[i * depth] and chances[i * depth] take it.
    void choose(Team& team, int count, float least, int32_t* places, float* chances, int depth) {
        team.share(count, 1, [&](int i) {
            if (hopes_[i] < least) return;
            const float* logits = logits_.data() + size_t(i) * h_.drafted;
            int best = place_of_largest(logits, h_.drafted);
            if (best < 0) {  // no numbers: nothing to go on with
                hopes_[i] = -1.0f;
                return;
            }
            __m512 most = _mm512_set1_ps(logits[best]), sum = _mm512_setzero_ps();
            for (int j = 0; j < h_.drafted; j += LANES) {
                __mmask16 mask = lanes(h_.drafted - j);
                __m512 below = _mm512_sub_ps(_mm512_maskz_loadu_ps(mask, logits + j), most);
                sum = _mm512_mask_add_ps(sum, mask, sum, exp16(below));
            }
            places[size_t(i) * depth] = best;
            chances[size_t(i) * depth] = 1.0f / _mm512_reduce_add_ps(sum);
            hopes_[i] *= chances[size_t(i) * depth];
            widen(h_.parts + size_t(best) * h_.hidden, at(token_, i));
        });
    }

    float* at(Buffer<float>& rows, int i) const { return rows.data() + size_t(i) * h_.hidden; }

    void normalise(const Matrix& next, int i, const float* row, const float* weight) {
        narrow_.fill(next.kind, i, row, norm_factor(row, h_.hidden, h_.eps), weight);
    }

    void widen(const uint16_t* from, float* to) const {
        for (int j = 0; j < h_.hidden; j += LANES) {
            __mmask16 mask = lanes(h_.hidden - j);
            _mm512_mask_storeu_ps(to + j, mask, from_bf16(_mm256_maskz_loadu_epi16(mask, from + j)));
        }
    }

    void add(float* to, const float* more) const {
        for (int j = 0; j < h_.hidden; j += LANES) {
            __mmask16 mask = lanes(h_.hidden - j);
            __m512 sum = _mm512_add_ps(_mm512_maskz_loadu_ps(mask, to + j), _mm512_maskz_loadu_ps(mask, more + j));
            _mm512_mask_storeu_ps(to + j, mask, sum);
        }
    }

    HeadParts h_;
    Activations narrow_, wide_;
    Buffer<float> state_, next_, token_, inner_, logits_;
    std::vector<float> hopes_;  // by chain: the chance that all of it is right
};

}  // namespace penstock
