// What Python calls, by ctypes. Nothing throws across this border: out of memory is a null pointer or a status of 1.

#include <memory>

#include "model.h"

using namespace penstock;

namespace {

template <class Pack>
Matrix* packed(Kind kind, int rows, int columns, int parts, int threads, Pack pack) {
    try {
        auto matrix = std::make_unique<Matrix>(kind, rows, columns, parts);
        Pool::instance().run(threads, [&](Team& team, int) {
            team.share(matrix->blocks, 1, [&](int block) { pack(*matrix, block); });
        });
        return matrix.release();
    } catch (const std::exception&) {
        return nullptr;
    }
}

}  // namespace

extern "C" {

/// Changes with the structs and functions below; native_step.py refuses another one.
int penstock_version() { return 1; }

/// Whether tiles were compiled in and the system lets this process use them.
int penstock_tiles() {
#ifdef PENSTOCK_AMX
    return permit_tiles();
#else
    return 0;
#endif
}

Matrix* penstock_pack_bf16(const uint16_t* weights, int rows, int columns, int parts, int threads) {
    return packed(BFLOAT16, rows, columns, parts, threads, [=](Matrix& m, int block) { pack_bf16(m, block, weights); });
}

Matrix* penstock_pack_int8(const int8_t* weights, const float* scales, int rows, int columns, int parts, int threads) {
    return packed(INT8, rows, columns, parts, threads, [=](Matrix& m, int block) { pack_int8(m, block, weights, scales); });
}

Matrix* penstock_pack_int4(const uint8_t* nibbles, const uint16_t* scales, const uint16_t* minima, int rows, int columns,
                           int parts, int threads) {
    return packed(INT4, rows, columns, parts, threads,
                  [=](Matrix& m, int block) { pack_int4(m, block, nibbles, scales, minima); });
}

int64_t penstock_matrix_bytes(const Matrix* matrix) { return int64_t(matrix->blocks) * matrix->block_bytes; }

void penstock_free_matrix(Matrix* matrix) { delete matrix; }

/// [count, columns] float32 times the matrix: [count, rows] float32.
int penstock_multiply(const Matrix* matrix, const float* from, int count, float* to, int amx, int threads) {
    try {
        Activations x;
        x.shape(count, matrix->columns);
        Pool::instance().run(threads, [&](Team& team, int) {
            team.share(count, 4, [&](int row) {
                x.fill(matrix->kind, row, from + size_t(row) * matrix->columns, 1.0f, nullptr);
            });
            team.share((matrix->blocks + 1) / 2, 1, [&](int pair) {
                multiply_pair(*matrix, pair, x, amx, [&](int first, int some, const Square& out) {
                    for (int side = 0; side < 2 && 2 * pair + side < matrix->blocks; ++side)
                        for (int i = 0; i < some; ++i)
                            _mm512_mask_storeu_ps(
                                to + size_t(first + i) * matrix->rows + matrix->first_row(2 * pair + side),
                                lanes(matrix->rows_of(2 * pair + side)), _mm512_load_ps(out[side][i]));
                });
            });
        });
        return 0;
    } catch (const std::exception&) {
        return 1;
    }
}

Model* penstock_make_model(const ModelParts* parts) {
    try {
        return new Model(*parts);
    } catch (const std::exception&) {
        return nullptr;
    }
}

void penstock_free_model(Model* model) { delete model; }

int penstock_step(Model* model, const StepParts* step) {
    try {
        model->step(*step);
        return 0;
    } catch (const std::exception&) {
        return 1;
    }
}
}
