// Attention by tiles, for processors with AMX.
#pragma once

#include "attention.h"

namespace penstock {

#ifdef PENSTOCK_AMX

/// Rows `first` to `last` of the queries; `put(row, weighted sum of values [head_dim], divisor)` takes each result.
template <class Put>
void attend_tiles(const Queries& q, const Cached& keys, const Cached& values, int first, int last, AttentionSpace& space,
                  Put put) {
    int context = q.visible(last - 1), padded = round_up(context, 32), parts = round_up(q.head_dim, LANES) / LANES;
    space.scores.reserve(size_t(padded) * LANES), space.weights.reserve(size_t(padded) * LANES);
    space.mixed.reserve(LANES * parts * LANES);
    pack(q, keys, values, context, space);
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

}  // namespace penstock
