// Products of a pair of blocks (32 rows of a matrix) with all activations, 16 at a time.
//
// On a CPU with AMX tiles do the work of more than a few rows; the vector instructions below do the rest, and everything on
// a CPU without AMX. Both give the same bits for int8 and int4: the sums are exact integers, and the floating-point steps
// behind them are the same. bfloat16 is always done by tiles where there are some, for the same reason.
#pragma once

#include "activations.h"
#include "tiles.h"

namespace penstock {

/// Results of 16 activations with the rows of two blocks: [block][activation][row].
using Square = float[2][LANES][LANES];

// Activations that share one pass over the weights. Few of them wait for memory, which idles in a second pass and is read
// fastest as one stream; many find the weights in the cache and wait for loads, of which two blocks at once need fewer
// (bfloat16 gains nothing by that).
constexpr int ROWS = 8, ROWS_CACHED = 4;
constexpr int FEW_INT8 = 2, FEW_INT4 = 12;  // up to so many, vectors are faster than tiles

/// The float32 result of int8: exact sums of the two planes, the weights' offset of 128 taken out.
inline __m512 finish_int8(__m512i high, __m512i low, const Activations& x, int row, __m512 scales) {
    high = _mm512_sub_epi32(high, _mm512_set1_epi32(128 * x.high_sum[row]));
    low = _mm512_sub_epi32(low, _mm512_set1_epi32(128 * x.low_sum[row]));
    __m512 sum = _mm512_fmadd_ps(_mm512_set1_ps(256.0f), _mm512_cvtepi32_ps(high), _mm512_cvtepi32_ps(low));
    return _mm512_mul_ps(sum, _mm512_mul_ps(scales, _mm512_set1_ps(x.scale[row])));
}

/// Add a group of int4 to a running sum.
inline __m512 add_group(__m512 sum, __m512i exact, __m512 scales, __m512 minima, float group_scale, float group_sum) {
    __m512 values = _mm512_mul_ps(_mm512_cvtepi32_ps(exact), _mm512_set1_ps(group_scale));
    return _mm512_fmadd_ps(minima, _mm512_set1_ps(group_sum), _mm512_fmadd_ps(scales, values, sum));
}

/// SIDES blocks at once, so that an activation that is read serves all of them.
template <int N, int SIDES>
void vector_int8(const Matrix& w, int block, const Activations& x, int row, float (**out)[LANES]) {
    const int8_t* high_row = x.high.data() + size_t(row) * x.stride;
    const int8_t* low_row = x.low.data() + size_t(row) * x.stride;
    const uint8_t* weights[SIDES];
    __m512i high[SIDES][N], low[SIDES][N], bytes[SIDES];
    for (int side = 0; side < SIDES; ++side) {
        weights[side] = w.block(block + side);
        for (int n = 0; n < N; ++n) high[side][n] = low[side][n] = _mm512_setzero_si512();
    }
    for (int column = 0; column < w.padded; column += 4) {
        for (int side = 0; side < SIDES; ++side) {
            bytes[side] = _mm512_load_si512(weights[side] + column * LANES);
            fetch_ahead(weights[side] + column * LANES);
        }
        for (int n = 0; n < N; ++n) {
            __m512i upper = four_bytes(high_row + n * x.stride + column), lower = four_bytes(low_row + n * x.stride + column);
            for (int side = 0; side < SIDES; ++side) {
                high[side][n] = add_fours(high[side][n], bytes[side], upper);
                low[side][n] = add_fours(low[side][n], bytes[side], lower);
            }
        }
    }
    for (int side = 0; side < SIDES; ++side) {
        __m512 scales = _mm512_load_ps(w.scales.data() + (block + side) * LANES);
        for (int n = 0; n < N; ++n)
            _mm512_store_ps(out[side][n], finish_int8(high[side][n], low[side][n], x, row + n, scales));
    }
}

/// Not inlined: among the other formats' code GCC 12 makes it a tenth slower.
template <int N>
__attribute__((noinline)) void vector_int4(const Matrix& w, int block, const Activations& x, int row, float (*out)[LANES]) {
    const uint8_t* group = w.block(block);
    const int8_t* rows = x.split.data() + 2 * size_t(row) * x.stride;
    const __m512i fifteen = _mm512_set1_epi8(15);
    __m512 sum[N];
    for (int n = 0; n < N; ++n) sum[n] = _mm512_setzero_ps();
    for (int index = 0; index < w.padded / GROUP; ++index, group += GROUP_BYTES, rows += 2 * GROUP) {
        __m512i bytes[8];
        for (int j = 0; j < 4; ++j) {
            __m512i pairs = _mm512_load_si512(group + j * 64);
            fetch_ahead(group + j * 64);
            bytes[j] = _mm512_and_si512(pairs, fifteen);
            bytes[j + 4] = _mm512_and_si512(_mm512_srli_epi16(pairs, 4), fifteen);
        }
        fetch_ahead(group + 256);
        __m512 scales = _mm512_cvtph_ps(_mm256_load_si256((const __m256i*)(group + 256)));
        __m512 minima = _mm512_cvtph_ps(_mm256_load_si256((const __m256i*)(group + 288)));
        for (int n = 0; n < N; ++n) {
            const int8_t* at = rows + 2 * size_t(n) * x.stride;
            __m512i high = _mm512_setzero_si512(), low = high;
            for (int j = 0; j < 8; ++j) {
                high = add_fours(high, bytes[j], four_bytes(at + 4 * j));
                low = add_fours(low, bytes[j], four_bytes(at + GROUP + 4 * j));
            }
            __m512i exact = _mm512_add_epi32(_mm512_slli_epi32(high, 4), low);
            size_t place = x.place(row + n, index);
            sum[n] = add_group(sum[n], exact, scales, minima, x.group_scale[place], x.group_sum[place]);
        }
    }
    for (int n = 0; n < N; ++n) _mm512_store_ps(out[n], sum[n]);
}

template <int N>
void vector_bf16(const Matrix& w, int block, const Activations& x, int row, float (*out)[LANES]) {
    const uint8_t* weights = w.block(block);
    const uint16_t* rows = x.half.data() + size_t(row) * x.stride;
    __m512 even[N], odd[N];
    for (int n = 0; n < N; ++n) even[n] = odd[n] = _mm512_setzero_ps();
    for (int column = 0; column < w.padded; column += 4) {
        const uint8_t *one = weights + column * LANES * 2, *two = one + 2 * LANES * 2;
        __m512i first = _mm512_load_si512(one), second = _mm512_load_si512(two);
        fetch_ahead(one), fetch_ahead(two);
        for (int n = 0; n < N; ++n) {
            const uint16_t* at = rows + size_t(n) * x.stride + column;
            even[n] = add_pairs(even[n], first, four_bytes(at));
            odd[n] = add_pairs(odd[n], second, four_bytes(at + 2));
        }
    }
    for (int n = 0; n < N; ++n) _mm512_store_ps(out[n], _mm512_add_ps(even[n], odd[n]));
}

/// N activations from row `first + row` on with the pair's blocks, of which there may be only one.
template <int N>
void vector_rows(const Matrix& w, int pair, const Activations& x, int first, int row, Square& out) {
    int block = 2 * pair;
    float(*to[2])[LANES] = {out[0] + row, out[1] + row};
    if constexpr (N == ROWS_CACHED)
        if (w.kind == INT8 && x.count > LANES && block + 1 < w.blocks) return vector_int8<N, 2>(w, block, x, first + row, to);
    for (int side = 0; side < 2 && block + side < w.blocks; ++side) {
        if (w.kind == INT8)
            vector_int8<N, 1>(w, block + side, x, first + row, to + side);
        else if (w.kind == INT4)
            vector_int4<N>(w, block + side, x, first + row, to[side]);
        else
            vector_bf16<N>(w, block + side, x, first + row, to[side]);
    }
}

inline void vector_square(const Matrix& w, int pair, const Activations& x, int first, int count, Square& out) {
    int most = w.kind == INT4 || (w.kind == INT8 && x.count > LANES) ? ROWS_CACHED : ROWS;
    for (int row = 0; row < count; row += most) switch (count - row < most ? count - row : most) {
            case 1: vector_rows<1>(w, pair, x, first, row, out); break;
            case 2: vector_rows<2>(w, pair, x, first, row, out); break;
            case 3: vector_rows<3>(w, pair, x, first, row, out); break;
            case 4: vector_rows<4>(w, pair, x, first, row, out); break;
            case 5: vector_rows<5>(w, pair, x, first, row, out); break;
            case 6: vector_rows<6>(w, pair, x, first, row, out); break;
            case 7: vector_rows<7>(w, pair, x, first, row, out); break;
            default: vector_rows<ROWS>(w, pair, x, first, row, out);
        }
}

/// Calls `use(first activation, count, results)` for all activations, 16 at a time, with the rows of a pair of blocks.
template <class Use>
void multiply_pair(const Matrix& w, int pair, const Activations& x, [[maybe_unused]] bool amx, Use use) {
    alignas(64) Square out;
#ifdef PENSTOCK_AMX
    if (amx && (w.kind == BFLOAT16 || x.count > (w.kind == INT4 ? FEW_INT4 : FEW_INT8))) {
        tile_pair(w, pair, x, out, use);
        return;
    }
#endif
    for (int first = 0; first < x.count; first += LANES) {
        int count = x.count - first < LANES ? x.count - first : LANES;
        vector_square(w, pair, x, first, count, out);
        use(first, count, out);
    }
}

}  // namespace penstock
