// Attention by vector instructions, for processors without AMX.
//
// Few rows take keys and values as they are kept; many pack them first, as tiles want them, which saves adding up lanes and
// interleaving values for every four rows. Both add up in one order, so that finite values give the same bits.
#pragma once

#include "attention.h"

namespace penstock {

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

/// What score_vectors gives, to the bit, from packed keys. A lane is a key here; sum_each's order is kept among its 16 sums:
/// (0 + 2) + (1 + 3) of each four, the first four with the second, the third with the fourth, then both halves.
template <int N>
void score_packed(const uint16_t* queries, int stride, const uint16_t* tile, int visible, int padded, float* scores) {
    constexpr int together = 4;
    for (int key = 0; key < visible; key += LANES, tile += LANES * stride) {
        __m512 half[N], total[N];
        for (int pair = 0; pair < LANES; pair += together) {
            __m512 sum[together][N];
            for (int i = 0; i < together; ++i)
                for (int n = 0; n < N; ++n) sum[i][n] = _mm512_setzero_ps();
            for (int part = 0; part < stride; part += 2 * LANES)
                for (int i = 0; i < together; ++i) {
                    __m512i keys = _mm512_load_si512(tile + part * LANES + (pair + i) * 2 * LANES);
                    for (int n = 0; n < N; ++n)
                        sum[i][n] = add_pairs(sum[i][n], keys, four_bytes(queries + n * stride + part + 2 * (pair + i)));
                }
            for (int n = 0; n < N; ++n) {
                __m512 four = _mm512_add_ps(_mm512_add_ps(sum[0][n], sum[2][n]), _mm512_add_ps(sum[1][n], sum[3][n]));
                half[n] = pair % (2 * together) ? _mm512_add_ps(half[n], four) : four;
                if (pair == together) total[n] = half[n];
            }
        }
        for (int n = 0; n < N; ++n) _mm512_storeu_ps(scores + size_t(n) * padded + key, _mm512_add_ps(total[n], half[n]));
    }
}

/// What mix_vectors gives from packed values.
template <int N>
void mix_packed(const uint16_t* weights, int padded, const uint16_t* tiles, int visible, int width, float* to) {
    constexpr int together = 4;
    int parts = width / LANES;
    for (int begin = 0; begin < parts; begin += together) {
        int wide = parts - begin < together ? parts - begin : together;
        __m512 sums[N][together];
        for (int n = 0; n < N; ++n)
            for (int part = 0; part < together; ++part) sums[n][part] = _mm512_setzero_ps();
        for (int key = 0; key < visible; key += 2) {
            const uint16_t* at = tiles + (size_t(key / 32) * parts + begin) * 512 + key % 32 * LANES;
            __m512i both[together];
            for (int part = 0; part < together; ++part) both[part] = _mm512_load_si512(at + (part < wide ? part : 0) * 512);
            for (int n = 0; n < N; ++n) {
                __m512i pair = four_bytes(weights + size_t(n) * padded + key);
                for (int part = 0; part < together; ++part) sums[n][part] = add_pairs(sums[n][part], both[part], pair);
            }
        }
        for (int n = 0; n < N; ++n)
            for (int part = 0; part < wide; ++part) _mm512_store_ps(to + n * width + (begin + part) * LANES, sums[n][part]);
    }
}

/// N rows from `row` on; keys and values that are read serve all of them. They are read as they are kept, or as `space` has
/// them packed: the results are the same.
template <int N, class Put>
void attend_rows(const Queries& q, const Cached& keys, const Cached& values, int row, bool packed, AttentionSpace& space,
                 Put put) {
    int visible = q.visible(row + N - 1), padded = round_up(visible, LANES), width = round_up(q.head_dim, LANES);
    space.scores.reserve(size_t(N) * padded), space.weights.reserve(size_t(N) * padded), space.mixed.reserve(N * width);
    const uint16_t* queries = q.rows + size_t(row) * q.stride;
    float *scores = space.scores.data(), *mixed = space.mixed.data(), sums[N];
    uint16_t* weights = space.weights.data();
    if (packed)
        score_packed<N>(queries, q.stride, space.keys.data(), visible, padded, scores);
    else
        score_vectors<N>(queries, q.stride, keys, visible, q.head_dim, padded, scores);
    for (int n = 0; n < N; ++n)
        sums[n] = soften(scores + size_t(n) * padded, q.visible(row + n), padded, q.scale, weights + size_t(n) * padded);
    if (packed)
        mix_packed<N>(weights, padded, space.values.data(), visible, width, mixed);
    else
        mix_vectors<N>(weights, padded, values, visible, q.head_dim, width, mixed);
    for (int n = 0; n < N; ++n) put(row + n, mixed + n * width, sums[n]);
}

// From so many query rows of a key head on (six tokens of SmolLM2) it pays to pack their keys and values.
constexpr int MANY_ROWS = 16;
constexpr int QUERY_ROWS = 4;  // that share each key and value that is read

/// Rows `first` to `last` of the queries; `put(row, weighted sum of values [head_dim], divisor)` takes each result.
template <class Put>
void attend_vectors(const Queries& q, const Cached& keys, const Cached& values, int first, int last, AttentionSpace& space,
                    Put put) {
    bool packed = last - first >= MANY_ROWS;
    if (packed) pack(q, keys, values, q.visible(last - 1), space);
    for (int row = first; row < last; row += QUERY_ROWS) switch (last - row) {
            case 1: attend_rows<1>(q, keys, values, row, packed, space, put); break;
            case 2: attend_rows<2>(q, keys, values, row, packed, space, put); break;
            case 3: attend_rows<3>(q, keys, values, row, packed, space, put); break;
            default: attend_rows<QUERY_ROWS>(q, keys, values, row, packed, space, put);
        }
}

}  // namespace penstock
