// A matrix times all activations by a team of threads: every thread of the team calls these, each does a part.
#pragma once

#include "product.h"
#include "threads.h"

namespace penstock {

/// Pairs of blocks that a thread takes at once: few enough that a slow thread delays little.
inline int portion(int pairs, const Team& team) {
    int portion = pairs / (8 * team.size());
    return portion < 1 ? 1 : portion > 8 ? 8 : portion;
}

/// Calls `use(activation, first row, mask of rows, results)` for every activation and block of 16 rows.
template <class Use>
void each_block(Team& team, const Matrix& w, const Activations& x, bool amx, Use use) {
    int pairs = (w.blocks + 1) / 2;
    team.share(pairs, portion(pairs, team), [&](int pair) {
        multiply_pair(w, pair, x, amx, [&](int first, int count, const Square& out) {
            for (int side = 0; side < 2 && 2 * pair + side < w.blocks; ++side) {
                int block = 2 * pair + side;
                for (int i = 0; i < count; ++i)
                    use(first + i, w.first_row(block), lanes(w.rows_of(block)), _mm512_load_ps(out[side][i]));
            }
        });
    });
}

/// [count, rows] float32.
inline void product(Team& team, const Matrix& w, const Activations& x, bool amx, float* to) {
    each_block(team, w, x, amx, [&](int i, int row, __mmask16 mask, __m512 y) {
        _mm512_mask_storeu_ps(to + size_t(i) * w.rows + row, mask, y);
    });
}

}  // namespace penstock
