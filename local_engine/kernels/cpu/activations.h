// Rows of float32 made ready for a product.
//
//   bfloat16  rounded, as torch does
//   int8      integers of 16 bits with one scale per row, in two planes of signed bytes: scale * (256 * high + low)
//   int4      integers of 12 bits with one scale per group of 32: scale * (16 * high + low); a group's 32 high bytes,
//             then its 32 low ones, are what a tile takes at once against 16 * weight and weight
//
// Both are finer than bfloat16: a row's largest value over its root mean square is at most the root of the columns, in a
// group at most the root of 32. And all sums of products are exact integers, so their order, and with it the size of the
// batch, cannot change a result.
#pragma once

#include "matrix.h"

namespace penstock {

// The high byte of the largest value is 127, so that rounding carries nothing out of it.
constexpr float LARGEST_OF_ROW = 127 * 256, LARGEST_OF_GROUP = 127 * 16;

struct Activations {
    int count = 0, columns = 0;
    int stride = 0;  // of a row in columns; never a multiple of 4 KiB, so that 16 rows do not fall on the same cache sets
    int groups = 0;
    Buffer<uint16_t> half;              // bfloat16 [row][stride]
    Buffer<int8_t> high, low;           // int8 [row][stride]
    Buffer<float> scale;                // [row]
    Buffer<int32_t> high_sum, low_sum;  // [row], of its plane
    Buffer<int8_t> split;               // int4 [row][2 * stride]
    Buffer<float> group_scale, group_sum;  // [row / 16][group][row % 16]; the sum is that of what the integers stand for

    /// Room for rows, filled up to whole tiles. One thread calls it.
    void shape(int rows, int width) {
        count = rows, columns = width;
        stride = round_up(width, 64) + 64;
        groups = round_up(width, GROUP) / GROUP;
        size_t padded = round_up(rows, 2 * LANES);
        half.reserve(padded * stride), high.reserve(padded * stride), low.reserve(padded * stride);
        split.reserve(2 * padded * stride);
        scale.reserve(padded), high_sum.reserve(padded), low_sum.reserve(padded);
        group_scale.reserve(padded * groups), group_sum.reserve(padded * groups);
    }

    size_t place(int row, int group) const { return (size_t(row / LANES) * groups + group) * LANES + row % LANES; }

    /// Fill a row from `columns` floats, each times `factor` and, where `weight` is given, times weight[column].
    void fill(Kind kind, int row, const float* from, float factor, const float* weight) {
        if (kind == BFLOAT16)
            fill_half(row, from, factor, weight);
        else if (kind == INT8)
            fill_planes(row, from, factor, weight);
        else
            fill_groups(row, from, factor, weight);
    }

   private:
    __m512 value(const float* from, const float* weight, int column, float factor) const {
        __mmask16 mask = lanes(columns - column);
        __m512 x = _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, from + column), _mm512_set1_ps(factor));
        return weight ? _mm512_mul_ps(x, _mm512_maskz_loadu_ps(mask, weight + column)) : x;
    }

    /// NaN if one of x is infinite or NaN, else `largest`: a maximum forgets NaN, and a row without an end must not look whole.
    static float or_nan(float largest, __mmask16 broken) { return broken ? __builtin_nanf("") : largest; }

    static __mmask16 not_finite(__m512 x) {
        constexpr int nan_or_infinity = 0x99;
        return _mm512_fpclass_ps_mask(x, nan_or_infinity);
    }

    /// Round x / scale to integers and keep their two bytes; the high one is in units of 2^bits.
    static __m512i split_bytes(__m512 x, float inverse, int bits, int8_t* to_high, int8_t* to_low, __m512i* upper) {
        __m512i integer = _mm512_cvtps_epi32(_mm512_mul_ps(x, _mm512_set1_ps(inverse)));
        *upper = _mm512_srai_epi32(_mm512_add_epi32(integer, _mm512_set1_epi32(1 << (bits - 1))), bits);
        __m512i lower = _mm512_sub_epi32(integer, _mm512_slli_epi32(*upper, bits));
        _mm_storeu_si128((__m128i*)to_high, _mm512_cvtepi32_epi8(*upper));
        _mm_storeu_si128((__m128i*)to_low, _mm512_cvtepi32_epi8(lower));
        return integer;
    }

    void fill_half(int row, const float* from, float factor, const float* weight) {
        uint16_t* to = half.data() + size_t(row) * stride;
        for (int column = 0; column < stride; column += LANES)
            _mm256_storeu_si256((__m256i*)(to + column), to_bf16(value(from, weight, column, factor)));
    }

    void fill_planes(int row, const float* from, float factor, const float* weight) {
        __m512 most = _mm512_setzero_ps();
        __mmask16 broken = 0;
        for (int column = 0; column < columns; column += LANES) {
            __m512 x = value(from, weight, column, factor);
            most = _mm512_max_ps(most, _mm512_abs_ps(x));
            broken |= not_finite(x);
        }
        float largest = or_nan(_mm512_reduce_max_ps(most), broken), inverse = largest > 0 ? LARGEST_OF_ROW / largest : 0.0f;
        scale[row] = largest / LARGEST_OF_ROW;
        __m512i whole = _mm512_setzero_si512(), all_high = whole, upper;
        for (int column = 0; column < stride; column += LANES) {
            size_t at = size_t(row) * stride + column;
            __m512 x = value(from, weight, column, factor);
            whole = _mm512_add_epi32(whole, split_bytes(x, inverse, 8, high.data() + at, low.data() + at, &upper));
            all_high = _mm512_add_epi32(all_high, upper);
        }
        high_sum[row] = _mm512_reduce_add_epi32(all_high);
        low_sum[row] = _mm512_reduce_add_epi32(_mm512_sub_epi32(whole, _mm512_slli_epi32(all_high, 8)));
    }

    void fill_groups(int row, const float* from, float factor, const float* weight) {
        for (int group = 0; group < groups; ++group) {
            __m512 one = value(from, weight, group * GROUP, factor), two = value(from, weight, group * GROUP + LANES, factor);
            float largest = or_nan(_mm512_reduce_max_ps(_mm512_max_ps(_mm512_abs_ps(one), _mm512_abs_ps(two))),
                                   not_finite(one) | not_finite(two));
            float inverse = largest > 0 ? LARGEST_OF_GROUP / largest : 0.0f, unit = largest / LARGEST_OF_GROUP;
            int8_t* to = split.data() + 2 * (size_t(row) * stride + size_t(group) * GROUP);
            __m512i upper, whole = split_bytes(one, inverse, 4, to, to + GROUP, &upper);
            whole = _mm512_add_epi32(whole, split_bytes(two, inverse, 4, to + LANES, to + GROUP + LANES, &upper));
            group_scale[place(row, group)] = unit;
            group_sum[place(row, group)] = unit * float(_mm512_reduce_add_epi32(whole));
        }
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
