// Rows of float32 made ready for a product. Against bfloat16 weights they are rounded to bfloat16, as torch does.
// Against int8 and int4 weights each row becomes integers of 16 bits with one scale, split into two planes of signed bytes,
// value = scale * (256 * high + low): finer than bfloat16 over the row (largest over root mean square is at most the root
// of the columns), and all sums of products are exact integers, so their order, and with it the size of the batch, cannot
// change a result.
#pragma once

#include "matrix.h"

namespace penstock {

constexpr float LARGEST = 127 * 256;  // its high byte is 127, so that no carry leaves the plane

struct Activations {
    int count = 0, columns = 0;
    int stride = 0;  // of a row in columns; never a multiple of 4 KiB, so that 16 rows do not fall on the same cache sets
    int groups = 0;
    Buffer<int8_t> high, low;
    Buffer<float> scale;
    Buffer<int32_t> high_sum, low_sum;  // of a row's plane
    Buffer<float> group_sum;            // [row][group] of 256 * high + low, exact
    Buffer<uint16_t> half;              // bfloat16

    /// Room for rows, filled up to whole tiles. One thread calls it.
    void shape(int rows, int width) {
        count = rows, columns = width;
        stride = round_up(width, 64) + 64;
        groups = round_up(width, GROUP) / GROUP;
        size_t padded = round_up(rows, 2 * LANES);
        high.reserve(padded * stride), low.reserve(padded * stride), half.reserve(padded * stride);
        scale.reserve(padded), high_sum.reserve(padded), low_sum.reserve(padded);
        group_sum.reserve(padded * groups);
    }

    /// Fill a row from `columns` floats, each times `factor` and, where `weight` is given, times weight[column].
    void fill(Kind kind, int row, const float* from, float factor, const float* weight) {
        if (kind == BFLOAT16)
            fill_half(row, from, factor, weight);
        else
            fill_planes(row, from, factor, weight);
    }

   private:
    static __m512 value(const float* from, const float* weight, int column, __m512 factor, __mmask16 mask) {
        __m512 x = _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, from + column), factor);
        return weight ? _mm512_mul_ps(x, _mm512_maskz_loadu_ps(mask, weight + column)) : x;
    }

    void fill_half(int row, const float* from, float factor, const float* weight) {
        uint16_t* to = half.data() + size_t(row) * stride;
        __m512 times = _mm512_set1_ps(factor);
        for (int column = 0; column < stride; column += LANES) {
            __m512 x = value(from, weight, column, times, lanes(columns - column));
            _mm256_storeu_si256((__m256i*)(to + column), to_bf16(x));
        }
    }

    void fill_planes(int row, const float* from, float factor, const float* weight) {
        __m512 times = _mm512_set1_ps(factor), most = _mm512_setzero_ps();
        for (int column = 0; column < columns; column += LANES)
            most = _mm512_max_ps(most, _mm512_abs_ps(value(from, weight, column, times, lanes(columns - column))));
        float largest = _mm512_reduce_max_ps(most);
        scale[row] = largest / LARGEST;
        __m512 inverse = _mm512_set1_ps(largest > 0 ? LARGEST / largest : 0.0f);
        int8_t* to_high = high.data() + size_t(row) * stride;
        int8_t* to_low = low.data() + size_t(row) * stride;
        __m512i all_high = _mm512_setzero_si512(), all_low = all_high;
        for (int group = 0; group < stride / GROUP; ++group) {
            __m512i whole = _mm512_setzero_si512();
            for (int column = group * GROUP; column < (group + 1) * GROUP; column += LANES) {
                __m512 x = value(from, weight, column, times, lanes(columns - column));
                __m512i integer = _mm512_cvtps_epi32(_mm512_mul_ps(x, inverse));
                __m512i upper = _mm512_srai_epi32(_mm512_add_epi32(integer, _mm512_set1_epi32(128)), 8);
                __m512i lower = _mm512_sub_epi32(integer, _mm512_slli_epi32(upper, 8));
                _mm_storeu_si128((__m128i*)(to_high + column), _mm512_cvtepi32_epi8(upper));
                _mm_storeu_si128((__m128i*)(to_low + column), _mm512_cvtepi32_epi8(lower));
                all_high = _mm512_add_epi32(all_high, upper);
                all_low = _mm512_add_epi32(all_low, lower);
                whole = _mm512_add_epi32(whole, integer);
            }
            if (group < groups) group_sum[size_t(row) * groups + group] = float(_mm512_reduce_add_epi32(whole));
        }
        high_sum[row] = _mm512_reduce_add_epi32(all_high);
        low_sum[row] = _mm512_reduce_add_epi32(all_low);
    }
};

/// One over the root mean square of a row.
inline float norm_factor(const float* row, int columns, float eps) {
    __m512 squares = _mm512_setzero_ps();
    for (int column = 0; column < columns; column += LANES) {
        __m512 x = _mm512_maskz_loadu_ps(lanes(columns - column), row + column);
        squares = _mm512_fmadd_ps(x, x, squares);
    }
    return 1.0f / __builtin_sqrtf(_mm512_reduce_add_ps(squares) / columns + eps);
}

}  // namespace penstock
