// Causal attention of a request's new tokens over its blocks in the pool, grouped query heads together.
//
// Scores of all keys are computed first, then turned into weights, then the values are mixed: a row's result depends on its
// own position and past only, never on which other rows are computed along (while all of them are finite: values that only a
// later row sees are multiplied by zero). Queries, keys, values and weights are bfloat16, sums are float32.
#pragma once

#include "product.h"

namespace penstock {

/// Where the keys (or values) of one key head of one request lie.
struct Cached {
    const uint16_t* base;  // of slot 0 and this head
    size_t stride;         // from slot to slot
    const int32_t* slots;  // of the request's tokens

    const uint16_t* at(int token) const { return base + slots[token] * stride; }
};

/// Query rows of one key head: row r is new token r / group, query head r % group of the head's group.
struct Queries {
    const uint16_t* rows;  // [new tokens * group][stride]
    int stride;            // head_dim filled up to 32 with zeros
    int group, head_dim;
    int start;  // position of the first new token
    float scale;

    int visible(int row) const { return start + row / group + 1; }
};

/// What one thread needs for itself.
struct AttentionSpace {
    Buffer<uint16_t> keys, values, weights;
    Buffer<float> scores, mixed;
};

/// Turn a row of scores into bfloat16 weights that are still to be divided by the returned sum; fills up with zeros.
inline float soften(const float* scores, int visible, int padded, float scale, uint16_t* weights) {
    __m512 most = _mm512_set1_ps(-3e38f), total = _mm512_setzero_ps(), times = _mm512_set1_ps(scale);
    for (int key = 0; key < visible; key += LANES) {
        __mmask16 mask = lanes(visible - key);
        most = _mm512_mask_max_ps(most, mask, most, _mm512_loadu_ps(scores + key));
    }
    __m512 largest = _mm512_set1_ps(_mm512_reduce_max_ps(most));
    for (int key = 0; key < padded; key += LANES) {
        __mmask16 mask = lanes(visible - key);
        __m512 weight = _mm512_setzero_ps();
        if (mask) {
            __m512 above = _mm512_sub_ps(_mm512_loadu_ps(scores + key), largest);
            weight = _mm512_maskz_mov_ps(mask, exp16(_mm512_mul_ps(above, times)));
        }
        total = _mm512_add_ps(total, weight);
        _mm256_storeu_si256((__m256i*)(weights + key), to_bf16(weight));
    }
    return _mm512_reduce_add_ps(total);
}

inline void transpose16(__m512i (&r)[16]) {
    __m512i t[16];
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
        r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    for (int i = 0; i < 4; ++i) {
        t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
        t[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
        t[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
        t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
    }
    for (int i = 0; i < 4; ++i) {
        r[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
        r[i + 4] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0x88);
        r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
        r[i + 12] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0xdd);
    }
}

/// Keys as tiles [16 keys][32 of head_dim]: pairs of elements as rows, keys as columns. Tokens behind `context` are zero.
inline void pack_keys(const Cached& keys, int context, int padded, int head_dim, int width, uint16_t* to) {
    for (int key = 0; key < padded; key += LANES)
        for (int part = 0; part < width; part += 32, to += 512) {
            __mmask32 mask = lanes_of_16(head_dim - part);
            __m512i rows[16];
            for (int i = 0; i < 16; ++i)
                rows[i] = key + i < context ? _mm512_maskz_loadu_epi16(mask, keys.at(key + i) + part) : _mm512_setzero_si512();
            transpose16(rows);
            for (int i = 0; i < 16; ++i) _mm512_store_si512(to + i * 32, rows[i]);
        }
}

/// Values as tiles [32 keys][16 of head_dim]: pairs of keys as rows.
inline void pack_values(const Cached& values, int context, int padded, int head_dim, uint16_t* to) {
    for (int key = 0; key < padded; key += 32)
        for (int part = 0; part < head_dim; part += LANES, to += 512)
            for (int pair = 0; pair < 16; ++pair) {
                __mmask16 mask = lanes(head_dim - part);
                int first = key + 2 * pair;
                __m256i low = _mm256_setzero_si256(), high = low;
                if (first < context) low = _mm256_maskz_loadu_epi16(mask, values.at(first) + part);
                if (first + 1 < context) high = _mm256_maskz_loadu_epi16(mask, values.at(first + 1) + part);
                __m512i both = _mm512_or_si512(_mm512_cvtepu16_epi32(low), _mm512_slli_epi32(_mm512_cvtepu16_epi32(high), 16));
                _mm512_store_si512(to + pair * 32, both);
            }
}

/// Pack the keys and values of the first `context` tokens into `space`, which attention by tiles and that of many rows read.
inline void pack(const Queries& q, const Cached& keys, const Cached& values, int context, AttentionSpace& space) {
    int padded = round_up(context, 32);
    space.keys.reserve(size_t(padded) * q.stride), space.values.reserve(size_t(padded) * round_up(q.head_dim, LANES));
    pack_keys(keys, context, padded, q.head_dim, q.stride, space.keys.data());
    pack_values(values, context, padded, q.head_dim, space.values.data());
}

}  // namespace penstock
