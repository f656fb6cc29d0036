// Products by AMX tiles: 16 activations with two blocks at a time. A tile is 16 rows of 64 bytes; results of a product are
// 16 x 16 numbers of 32 bits. Included by product.h, which declares what is used here.
#pragma once

#ifdef PENSTOCK_AMX

#include <asm/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "activations.h"

namespace penstock {

using Square = float[2][LANES][LANES];
inline __m512 finish_int8(__m512i high, __m512i low, const Activations& x, int row, __m512 scales);
inline __m512 add_group(__m512 sum, __m512i high, __m512i low, __m512 scales, __m512 minima, float group_sum);

/// Ask the system for the use of tiles; false when it refuses (an old kernel, a container that forbids it).
inline bool permit_tiles() {
    constexpr long request = 0x1023, tile_data = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    return syscall(SYS_arch_prctl, request, tile_data) == 0;
}

/// Shapes of the eight tiles: results in 0 to 3, activations in 4 and 5, weights in 6 and 7.
struct alignas(64) TileShapes {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {};
    uint8_t rows[16] = {};

    /// `depth` is the number of bytes of an activation that one product takes, 64 or 32.
    explicit TileShapes(int depth) {
        for (int tile = 0; tile < 8; ++tile) {
            rows[tile] = tile < 6 ? LANES : depth / 4;
            row_bytes[tile] = tile == 4 || tile == 5 ? depth : 64;
        }
    }
};

inline void shape_tiles(int depth) {
    static const TileShapes deep(64), shallow(32);
    _tile_loadconfig(depth == 64 ? &deep : &shallow);
}

/// Zeros in the tiles of results. What the compiler has yet to store is stored before: it does not see tiles read memory.
inline void zero_tiles() {
    asm volatile("" ::: "memory");
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
}

using Counts = int32_t[2][LANES][LANES];

/// int8: both planes of 16 activations with two blocks.
template <class Use>
void tiles_int8(const Matrix& w, int pair, const Activations& x, Square& out, Use use) {
    alignas(64) Counts high, low;
    bool both = 2 * pair + 1 < w.blocks;
    const uint8_t *one = w.block(2 * pair), *two = both ? w.block(2 * pair + 1) : one;
    for (int first = 0; first < x.count; first += LANES) {
        const int8_t* high_rows = x.high.data() + size_t(first) * x.stride;
        const int8_t* low_rows = x.low.data() + size_t(first) * x.stride;
        zero_tiles();
        for (int column = 0; column < w.padded; column += 64) {
            _tile_loadd(4, high_rows + column, x.stride);
            _tile_loadd(6, one + column * LANES, 64);
            _tile_dpbsud(0, 4, 6);
            _tile_loadd(5, low_rows + column, x.stride);
            _tile_dpbsud(1, 5, 6);
            _tile_loadd(7, two + column * LANES, 64);
            _tile_dpbsud(2, 4, 7);
            _tile_dpbsud(3, 5, 7);
        }
        _tile_stored(0, high[0], 64);
        _tile_stored(1, low[0], 64);
        _tile_stored(2, high[1], 64);
        _tile_stored(3, low[1], 64);
        int count = x.count - first < LANES ? x.count - first : LANES;
        for (int side = 0; side < 1 + both; ++side) {
            __m512 scales = _mm512_load_ps(w.scales.data() + (2 * pair + side) * LANES);
            for (int row = 0; row < count; ++row)
                _mm512_store_ps(out[side][row], finish_int8(_mm512_load_si512(high[side][row]),
                                                            _mm512_load_si512(low[side][row]), x, first + row, scales));
        }
        use(first, count, out);
    }
}

/// A pair of int4 blocks unpacked once for all activations: bytes as int8's, and scales and minima as float32.
struct Unpacked {
    Buffer<uint8_t> bytes[2];
    Buffer<float> scales[2], minima[2];

    void fill(const Matrix& w, int pair) {
        for (int side = 0; side < 2; ++side) {
            int groups = w.padded / GROUP;
            bytes[side].reserve(size_t(w.padded) * LANES);
            scales[side].reserve(size_t(groups) * LANES), minima[side].reserve(size_t(groups) * LANES);
            const uint8_t* from = w.block(2 * pair + (2 * pair + side < w.blocks ? side : 0));
            for (int group = 0; group < groups; ++group, from += GROUP_BYTES) {
                uint8_t* to = bytes[side].data() + size_t(group) * 512;
                for (int j = 0; j < 4; ++j) {
                    __m512i pairs = _mm512_load_si512(from + j * 64), fifteen = _mm512_set1_epi8(15);
                    _mm512_store_si512(to + j * 64, _mm512_and_si512(pairs, fifteen));
                    _mm512_store_si512(to + j * 64 + 256, _mm512_and_si512(_mm512_srli_epi16(pairs, 4), fifteen));
                }
                const auto* factors = reinterpret_cast<const __m256i*>(from + 256);
                _mm512_store_ps(scales[side].data() + group * LANES, _mm512_cvtph_ps(_mm256_load_si256(factors)));
                _mm512_store_ps(minima[side].data() + group * LANES, _mm512_cvtph_ps(_mm256_load_si256(factors + 1)));
            }
        }
    }
};

/// Add one group's exact sums, stored by tiles, to the running sums of one block.
inline void add_counts(const Unpacked& w, int side, int group, const Activations& x, int first, const Counts& high,
                       const Counts& low, __m512 (&sum)[LANES]) {
    __m512 scales = _mm512_load_ps(w.scales[side].data() + group * LANES);
    __m512 minima = _mm512_load_ps(w.minima[side].data() + group * LANES);
    const float* group_sum = x.group_sum.data() + size_t(first) * x.groups + group;
#pragma GCC unroll 16
    for (int row = 0; row < LANES; ++row)
        sum[row] = add_group(sum[row], _mm512_load_si512(high[side][row]), _mm512_load_si512(low[side][row]), scales,
                             minima, group_sum[row * x.groups]);
}

/// int4: a tile product per group of 32 columns, whose exact sums are scaled and added by vector instructions while the
/// tiles work on the next group.
template <class Use>
void tiles_int4(const Matrix& w, int pair, const Activations& x, Square& out, Use use) {
    static thread_local Unpacked unpacked;
    alignas(64) Counts high[2], low[2];
    unpacked.fill(w, pair);
    int groups = w.padded / GROUP;
    for (int first = 0; first < x.count; first += LANES) {
        int count = x.count - first < LANES ? x.count - first : LANES;
        const int8_t* high_rows = x.high.data() + size_t(first) * x.stride;
        const int8_t* low_rows = x.low.data() + size_t(first) * x.stride;
        for (int side = 0; side < 2 && 2 * pair + side < w.blocks; ++side) {
            __m512 sum[LANES];
#pragma GCC unroll 16
            for (int row = 0; row < LANES; ++row) sum[row] = _mm512_setzero_ps();
            for (int group = 0; group <= groups; ++group) {
                if (group < groups) {
                    zero_tiles();
                    _tile_loadd(4, high_rows + group * GROUP, x.stride);
                    _tile_loadd(5, low_rows + group * GROUP, x.stride);
                    _tile_loadd(6, unpacked.bytes[side].data() + size_t(group) * 512, 64);
                    _tile_dpbsud(0, 4, 6);
                    _tile_dpbsud(1, 5, 6);
                    _tile_stored(0, high[group % 2][side], 64);
                    _tile_stored(1, low[group % 2][side], 64);
                }
                if (group > 0)
                    add_counts(unpacked, side, group - 1, x, first, high[(group - 1) % 2], low[(group - 1) % 2], sum);
            }
#pragma GCC unroll 16
            for (int row = 0; row < LANES; ++row)
                _mm512_store_ps(out[side][row], _mm512_mul_ps(sum[row], _mm512_set1_ps(x.scale[first + row])));
        }
        use(first, count, out);
    }
}

/// bfloat16: up to 32 activations with two blocks.
template <class Use>
void tiles_bf16(const Matrix& w, int pair, const Activations& x, Square& out, Use use) {
    alignas(64) Square second;
    const uint8_t *one = w.block(2 * pair), *two = 2 * pair + 1 < w.blocks ? w.block(2 * pair + 1) : one;
    for (int first = 0; first < x.count; first += 2 * LANES) {
        const uint16_t* rows = x.half.data() + size_t(first) * x.stride;
        const uint16_t* more_rows = rows + size_t(LANES) * x.stride;
        int left = x.count - first - LANES;
        zero_tiles();
        for (int column = 0; column < w.padded; column += 32) {
            _tile_loadd(4, rows + column, x.stride * 2);
            _tile_loadd(6, one + column * LANES * 2, 64);
            _tile_loadd(7, two + column * LANES * 2, 64);
            _tile_dpbf16ps(0, 4, 6);
            _tile_dpbf16ps(1, 4, 7);
            if (left > 0) {
                _tile_loadd(5, more_rows + column, x.stride * 2);
                _tile_dpbf16ps(2, 5, 6);
                _tile_dpbf16ps(3, 5, 7);
            }
        }
        _tile_stored(0, out[0], 64);
        _tile_stored(1, out[1], 64);
        use(first, left < 0 ? left + LANES : LANES, out);
        if (left > 0) {
            _tile_stored(2, second[0], 64);
            _tile_stored(3, second[1], 64);
            use(first + LANES, left < LANES ? left : LANES, second);
        }
    }
}

template <class Use>
void tile_pair(const Matrix& w, int pair, const Activations& x, Square& out, Use use) {
    shape_tiles(w.kind == INT4 ? 32 : 64);
    if (w.kind == INT8)
        tiles_int8(w, pair, x, out, use);
    else if (w.kind == INT4)
        tiles_int4(w, pair, x, out, use);
    else
        tiles_bf16(w, pair, x, out, use);
}

}  // namespace penstock

#endif
