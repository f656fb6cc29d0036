// A weight matrix [rows, columns] as the products want it: blocks of 16 rows, and in a block groups of a few columns
// (2 of bfloat16, 4 of int8) of all 16 rows side by side. A vector instruction then serves 16 rows at once, and the same
// bytes are the tiles of AMX.
//
//   bfloat16  block: [columns/2][16][2] bfloat16
//   int8      block: [columns/4][16][4] bytes, weight + 128; one float32 scale per row
//   int4      block: per group of 32 columns 256 bytes of nibbles, 16 scales, 16 minima (float16);
//             byte [j][row][i] holds column 4j + i in its low and column 4(j + 4) + i in its high half
//
// A matrix may be made of several `parts` of equal height (gate and up); their blocks alternate.
#pragma once

#include "simd.h"

namespace penstock {

enum Kind { BFLOAT16 = 0, INT8 = 1, INT4 = 2 };

constexpr int GROUP = 32;                        // columns that share a scale and a minimum in int4
constexpr int GROUP_BYTES = 256 + 2 * LANES * 2;  // of 16 rows

struct Matrix {
    Kind kind;
    int rows, columns, parts;
    int padded;  // columns, filled up with zeros to what a tile takes
    int blocks;
    size_t block_bytes;
    Buffer<uint8_t> data;
    Buffer<float> scales;

    Matrix(Kind kind, int rows, int columns, int parts)
        : kind(kind), rows(rows), columns(columns), parts(parts), padded(round_up(columns, kind == INT8 ? 64 : 32)) {
        blocks = parts * (round_up(height(), LANES) / LANES);
        block_bytes = kind == INT4 ? size_t(padded) / GROUP * GROUP_BYTES : size_t(padded) * LANES * (kind == INT8 ? 1 : 2);
        data.reserve(blocks * block_bytes);
        if (kind == INT8) scales.reserve(size_t(blocks) * LANES);
    }

    int height() const { return rows / parts; }
    /// First row of a block, and how many of its 16 rows exist.
    int first_row(int block) const { return block % parts * height() + block / parts * LANES; }
    int rows_of(int block) const {
        int left = height() - block / parts * LANES;
        return left < LANES ? left : LANES;
    }
    uint8_t* block(int index) const { return data.data() + index * block_bytes; }
};

/// Asks for the line of weights that is read a few columns later; a tenth to a quarter faster than the processor's own guesses.
inline void fetch_ahead(const uint8_t* at) { _mm_prefetch((const char*)at + 3072, _MM_HINT_T0); }

/// The same for the 1,024 bytes of a tile.
inline void fetch_tile_ahead(const uint8_t* at) {
    for (int line = 0; line < LANES; ++line) fetch_ahead(at + line * 64);
}

inline void pack_bf16(Matrix& matrix, int block, const uint16_t* weights) {
    auto* to = reinterpret_cast<uint16_t*>(matrix.block(block));
    for (int row = 0; row < matrix.rows_of(block); ++row) {
        const uint16_t* from = weights + size_t(matrix.first_row(block) + row) * matrix.columns;
        for (int column = 0; column < matrix.columns; ++column)
            to[(column / 2 * LANES + row) * 2 + column % 2] = from[column];
    }
}

inline void pack_int8(Matrix& matrix, int block, const int8_t* weights, const float* scales) {
    uint8_t* to = matrix.block(block);
    for (int row = 0; row < matrix.rows_of(block); ++row) {
        int source = matrix.first_row(block) + row;
        const int8_t* from = weights + size_t(source) * matrix.columns;
        matrix.scales[block * LANES + row] = scales[source];
        for (int column = 0; column < matrix.columns; ++column)
            to[(column / 4 * LANES + row) * 4 + column % 4] = uint8_t(from[column] + 128);
    }
}

inline void pack_int4(Matrix& matrix, int block, const uint8_t* nibbles, const uint16_t* scales, const uint16_t* minima) {
    int groups = matrix.columns / GROUP;
    for (int row = 0; row < matrix.rows_of(block); ++row) {
        size_t source = matrix.first_row(block) + row;
        const uint8_t* from = nibbles + source * (matrix.columns / 2);
        for (int group = 0; group < groups; ++group) {
            uint8_t* to = matrix.block(block) + size_t(group) * GROUP_BYTES;
            for (int column = 0; column < GROUP; ++column) {
                uint8_t pair = from[(group * GROUP + column) / 2];
                uint8_t value = column % 2 ? pair >> 4 : pair & 15;
                to[((column / 4 % 4) * LANES + row) * 4 + column % 4] |= column < GROUP / 2 ? value : value << 4;
            }
            auto* factors = reinterpret_cast<uint16_t*>(to + 256);
            factors[row] = scales[source * groups + group];
            factors[LANES + row] = minima[source * groups + group];
        }
    }
}

}  // namespace penstock
