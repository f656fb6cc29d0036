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
inline __m512 add_group(__m512 sum, __m512i exact, __m512 scales, __m512 minima, float group_scale, float group_sum);

/// Ask the system for the use of tiles; false when it refuses (an old kernel, a container that forbids it).
inline bool permit_tiles() {
    constexpr long request = 0x1023, tile_data = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    return syscall(SYS_arch_prctl, request, tile_data) == 0;
}

/// Results in tiles 0 to 3, activations in 4 and 5, weights in 6 and 7; all rows have 64 bytes, weights have 16 of them. A
/// product takes a cycle per row of activations: with fewer than 16 of them it is faster.
inline void shape_tiles(int rows = LANES) {
    struct alignas(64) {
        uint8_t palette = 1, start_row = 0, reserved[14] = {};
        uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
        uint8_t rows[16] = {};
    } shapes;
    for (int tile = 0; tile < 8; ++tile) shapes.rows[tile] = tile < 6 ? rows : LANES;
    asm volatile("ldtilecfg %0" : : "m"(shapes));
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
            fetch_tile_ahead(one + column * LANES), fetch_tile_ahead(two + column * LANES);
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

/// A block of int4 unpacked once for all activations: per group a tile of 16 * weight above weight; factors as float32.
struct Unpacked {
    Buffer<uint8_t> tiles;  // [group][2][8][64]
    Buffer<float> scales, minima;

    void fill(const Matrix& w, int block) {
        int groups = w.padded / GROUP;
        tiles.reserve(size_t(groups) * 1024), scales.reserve(size_t(groups) * LANES), minima.reserve(size_t(groups) * LANES);
        const uint8_t* from = w.block(block);
        const __m512i lower = _mm512_set1_epi8(15), upper = _mm512_set1_epi8((char)0xf0);
        for (int group = 0; group < groups; ++group, from += GROUP_BYTES) {
            uint8_t* to = tiles.data() + size_t(group) * 1024;
            for (int j = 0; j < 4; ++j) {
                __m512i pairs = _mm512_load_si512(from + j * 64);
                fetch_ahead(from + j * 64);
                _mm512_store_si512(to + j * 64, _mm512_and_si512(_mm512_slli_epi16(pairs, 4), upper));
                _mm512_store_si512(to + j * 64 + 256, _mm512_and_si512(pairs, upper));
                _mm512_store_si512(to + j * 64 + 512, _mm512_and_si512(pairs, lower));
                _mm512_store_si512(to + j * 64 + 768, _mm512_and_si512(_mm512_srli_epi16(pairs, 4), lower));
            }
            const auto* factors = reinterpret_cast<const __m256i*>(from + 256);
            _mm512_store_ps(scales.data() + group * LANES, _mm512_cvtph_ps(_mm256_load_si256(factors)));
            _mm512_store_ps(minima.data() + group * LANES, _mm512_cvtph_ps(_mm256_load_si256(factors + 1)));
        }
    }
};

constexpr int AHEAD = 2;  // groups that tiles work on before vectors add them up: two pairs fill 4 KiB, and no more

/// The exact sums of up to two groups.
inline void multiply_groups(const int8_t* rows, int stride, const uint8_t* weights, int groups, int32_t (*to)[LANES][LANES]) {
    zero_tiles();
    _tile_loadd(4, rows, stride);
    _tile_loadd(6, weights, 64);
    _tile_dpbsud(0, 4, 6);
    if (groups > 1) {
        _tile_loadd(5, rows + 64, stride);
        _tile_loadd(7, weights + 1024, 64);
        _tile_dpbsud(1, 5, 7);
    }
    _tile_stored(0, to[0], 64);
    if (groups > 1) _tile_stored(1, to[1], 64);
}

/// int4: a tile product per group, whose exact sums vector instructions scale and add, a few groups behind. One block
/// after the other: a block's tiles stay in the first cache while all activations pass.
template <class Use>
void tiles_int4(const Matrix& w, int pair, const Activations& x, Use use) {
    static thread_local Unpacked block;
    static thread_local Buffer<float> results;
    alignas(64) int32_t counts[2][AHEAD][LANES][LANES] = {};  // tiles fill the rows there are, the others stay what they are
    int groups = w.padded / GROUP;
    results.reserve(size_t(round_up(x.count, LANES)) * 2 * LANES);
    auto* squares = reinterpret_cast<Square*>(results.data());
    for (int side = 0; side < 2 && 2 * pair + side < w.blocks; ++side) {
        block.fill(w, 2 * pair + side);
        for (int first = 0; first < x.count; first += LANES) {
            const int8_t* rows = x.split.data() + 2 * size_t(first) * x.stride;
            const float *scale = x.group_scale.data() + x.place(first, 0), *total = x.group_sum.data() + x.place(first, 0);
            __m512 sum[LANES];
#pragma GCC unroll 16
            for (int row = 0; row < LANES; ++row) sum[row] = _mm512_setzero_ps();
            // Tiles work on the next two groups while vectors add up the last two.
            for (int from = 0; from < groups + AHEAD; from += AHEAD) {
                if (from < groups)
                    multiply_groups(rows + from * 2 * GROUP, 2 * x.stride, block.tiles.data() + size_t(from) * 1024,
                                    groups - from, counts[from / AHEAD % 2]);
                int last = from < groups ? from : groups;
                for (int group = from - AHEAD < 0 ? 0 : from - AHEAD; group < last; ++group) {
                    const auto& exact = counts[group / AHEAD % 2][group % AHEAD];
                    __m512 scales = _mm512_load_ps(block.scales.data() + group * LANES);
                    __m512 minima = _mm512_load_ps(block.minima.data() + group * LANES);
#pragma GCC unroll 16
                    for (int row = 0; row < LANES; ++row)
                        sum[row] = add_group(sum[row], _mm512_load_si512(exact[row]), scales, minima,
                                             scale[group * LANES + row], total[group * LANES + row]);
                }
            }
#pragma GCC unroll 16
            for (int row = 0; row < LANES; ++row) _mm512_store_ps(squares[first / LANES][side][row], sum[row]);
        }
    }
    for (int first = 0; first < x.count; first += LANES)
        use(first, x.count - first < LANES ? x.count - first : LANES, squares[first / LANES]);
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
            fetch_tile_ahead(one + column * LANES * 2), fetch_tile_ahead(two + column * LANES * 2);
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
    shape_tiles(x.count < LANES ? x.count : LANES);
    if (w.kind == INT8)
        tiles_int8(w, pair, x, out, use);
    else if (w.kind == INT4)
        tiles_int4(w, pair, x, use);
    else
        tiles_bf16(w, pair, x, out, use);
}

}  // namespace penstock

#endif
