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

#ifdef PENSTOCK_AMX

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

/// Rows `first` to `last` of the queries; `put(row, weighted sum of values [head_dim], divisor)` takes each result.
template <class Put>
void attend_tiles(const Queries& q, const Cached& keys, const Cached& values, int first, int last, AttentionSpace& space,
                  Put put) {
    int context = q.visible(last - 1), padded = round_up(context, 32), parts = round_up(q.head_dim, LANES) / LANES;
    space.keys.reserve(size_t(padded) * q.stride), space.values.reserve(size_t(padded) * parts * LANES);
    space.scores.reserve(size_t(padded) * LANES), space.weights.reserve(size_t(padded) * LANES);
    space.mixed.reserve(LANES * parts * LANES);
    pack_keys(keys, context, padded, q.head_dim, q.stride, space.keys.data());
    pack_values(values, context, padded, q.head_dim, space.values.data());
    shape_tiles();
    for (int row = first; row < last; row += LANES) {
        int count = last - row < LANES ? last - row : LANES, seen = round_up(q.visible(row + count - 1), 32);
        const uint16_t *query = q.rows + size_t(row) * q.stride, *key_tile = space.keys.data();
        for (int key = 0; key < seen; key += 2 * LANES, key_tile += 2 * LANES * q.stride) {
            zero_tiles();
            for (int part = 0; part < q.stride; part += 32) {
                _tile_loadd(4, query + part, q.stride * 2);
                _tile_loadd(6, key_tile + part * LANES, 64);
                _tile_loadd(7, key_tile + (part + q.stride) * LANES, 64);
                _tile_dpbf16ps(0, 4, 6);
                _tile_dpbf16ps(1, 4, 7);
            }
            _tile_stored(0, space.scores.data() + key, padded * 4);
            _tile_stored(1, space.scores.data() + key + LANES, padded * 4);
        }
        float sums[LANES];
        for (int i = 0; i < LANES; ++i)
            sums[i] = soften(space.scores.data() + size_t(i) * padded, i < count ? q.visible(row + i) : 0, seen, q.scale,
                             space.weights.data() + size_t(i) * padded);
        for (int part = 0; part < parts; part += 2) {
            bool both = part + 1 < parts;
            zero_tiles();
            for (int key = 0; key < seen; key += 32) {
                const uint16_t* tile = space.values.data() + (size_t(key / 32) * parts + part) * 512;
                _tile_loadd(4, space.weights.data() + key, padded * 2);
                _tile_loadd(6, tile, 64);
                _tile_dpbf16ps(0, 4, 6);
                if (both) {
                    _tile_loadd(7, tile + 512, 64);
                    _tile_dpbf16ps(1, 4, 7);
                }
            }
            _tile_stored(0, space.mixed.data() + part * LANES, parts * LANES * 4);
            if (both) _tile_stored(1, space.mixed.data() + (part + 1) * LANES, parts * LANES * 4);
        }
        for (int i = 0; i < count; ++i) put(row + i, space.mixed.data() + i * parts * LANES, sums[i]);
    }
}

#endif

/// The sums of 16 registers' lanes, one beside the other.
inline __m512 sum_each(const __m512 (&r)[LANES]) {
    __m512 pairs[8], fours[4], eights[2];
    for (int i = 0; i < 8; ++i)
        pairs[i] = _mm512_add_ps(_mm512_unpacklo_ps(r[2 * i], r[2 * i + 1]), _mm512_unpackhi_ps(r[2 * i], r[2 * i + 1]));
    for (int i = 0; i < 4; ++i) {
        __m512d one = _mm512_castps_pd(pairs[2 * i]), two = _mm512_castps_pd(pairs[2 * i + 1]);
        __m512d low = _mm512_unpacklo_pd(one, two), high = _mm512_unpackhi_pd(one, two);
        fours[i] = _mm512_add_ps(_mm512_castpd_ps(low), _mm512_castpd_ps(high));
    }
    for (int i = 0; i < 2; ++i)
        eights[i] = _mm512_add_ps(_mm512_shuffle_f32x4(fours[2 * i], fours[2 * i + 1], 0x88),
                                  _mm512_shuffle_f32x4(fours[2 * i], fours[2 * i + 1], 0xdd));
    return _mm512_add_ps(_mm512_shuffle_f32x4(eights[0], eights[1], 0x88), _mm512_shuffle_f32x4(eights[0], eights[1], 0xdd));
}

/// Scores [N][padded] of the queries [N][stride] with `visible` keys: each part of a query that is read serves four keys.
template <int N>
void score_vectors(const uint16_t* queries, int stride, const Cached& keys, int visible, int head_dim, int padded,
                   float* scores) {
    constexpr int together = 4;
    __m512 sums[N][LANES];
    for (int key = 0; key < visible; key += LANES) {
        for (int begin = 0; begin < LANES; begin += together) {
            const uint16_t* at[together];
            for (int i = 0; i < together; ++i) at[i] = keys.at(key + begin + i < visible ? key + begin + i : visible - 1);
            __m512 sum[N][together];
            for (int n = 0; n < N; ++n)
                for (int i = 0; i < together; ++i) sum[n][i] = _mm512_setzero_ps();
            for (int part = 0; part < head_dim; part += 2 * LANES) {
                __m512i one[together];
                __mmask32 mask = lanes_of_16(head_dim - part);
                for (int i = 0; i < together; ++i) one[i] = _mm512_maskz_loadu_epi16(mask, at[i] + part);
                for (int n = 0; n < N; ++n) {
                    __m512i query = _mm512_loadu_si512(queries + n * stride + part);
                    for (int i = 0; i < together; ++i) sum[n][i] = add_pairs(sum[n][i], one[i], query);
                }
            }
            for (int n = 0; n < N; ++n)
                for (int i = 0; i < together; ++i) sums[n][begin + i] = sum[n][i];
        }
        for (int n = 0; n < N; ++n) _mm512_storeu_ps(scores + size_t(n) * padded + key, sum_each(sums[n]));
    }
}

/// Values mixed by weights [N][padded] to [N][width], two keys and 64 of a head's numbers at a time.
template <int N>
void mix_vectors(const uint16_t* weights, int padded, const Cached& values, int visible, int head_dim, int width, float* to) {
    constexpr int parts = 4;
    for (int begin = 0; begin < width; begin += parts * LANES) {
        __m512 sums[N][parts];
        for (int n = 0; n < N; ++n)
            for (int part = 0; part < parts; ++part) sums[n][part] = _mm512_setzero_ps();
        for (int key = 0; key < visible; key += 2) {
            // Behind the last key stands a weight of zero.
            const uint16_t *one = values.at(key) + begin, *two = values.at(key + 1 < visible ? key + 1 : key) + begin;
            __m512i both[parts];
            for (int part = 0; part < parts; ++part) {
                __mmask16 mask = lanes(head_dim - begin - part * LANES);
                __m512i low = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, one + part * LANES));
                __m512i high = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, two + part * LANES));
                both[part] = _mm512_or_si512(low, _mm512_slli_epi32(high, 16));
            }
            for (int n = 0; n < N; ++n) {
                __m512i pair = four_bytes(weights + size_t(n) * padded + key);
                for (int part = 0; part < parts; ++part) sums[n][part] = add_pairs(sums[n][part], both[part], pair);
            }
        }
        for (int n = 0; n < N; ++n)
            for (int part = 0; part < parts; ++part)
                if (begin + part * LANES < width) _mm512_store_ps(to + n * width + begin + part * LANES, sums[n][part]);
    }
}

/// N rows from `row` on; keys and values that are read serve all of them.
template <int N, class Put>
void attend_rows(const Queries& q, const Cached& keys, const Cached& values, int row, AttentionSpace& space, Put put) {
    int visible = q.visible(row + N - 1), padded = round_up(visible, LANES), width = round_up(q.head_dim, LANES);
    space.scores.reserve(size_t(N) * padded), space.weights.reserve(size_t(N) * padded), space.mixed.reserve(N * width);
    float *scores = space.scores.data(), sums[N];
    uint16_t* weights = space.weights.data();
    score_vectors<N>(q.rows + size_t(row) * q.stride, q.stride, keys, visible, q.head_dim, padded, scores);
    for (int n = 0; n < N; ++n)
        sums[n] = soften(scores + size_t(n) * padded, q.visible(row + n), padded, q.scale, weights + size_t(n) * padded);
    mix_vectors<N>(weights, padded, values, visible, q.head_dim, width, space.mixed.data());
    for (int n = 0; n < N; ++n) put(row + n, space.mixed.data() + n * width, sums[n]);
}

/// The same as attend_tiles without tiles.
template <class Put>
void attend_vectors(const Queries& q, const Cached& keys, const Cached& values, int first, int last, AttentionSpace& space,
                    Put put) {
    for (int row = first; row < last; row += ROWS) switch (last - row) {
            case 1: attend_rows<1>(q, keys, values, row, space, put); break;
            case 2: attend_rows<2>(q, keys, values, row, space, put); break;
            case 3: attend_rows<3>(q, keys, values, row, space, put); break;
            default: attend_rows<ROWS>(q, keys, values, row, space, put);
        }
}

}  // namespace penstock
