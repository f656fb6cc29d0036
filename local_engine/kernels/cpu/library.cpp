// What Python calls, by ctypes. Nothing throws across this border: out of memory is a null pointer or a status of 1.

#include <memory>

#include "drafter.h"
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
int penstock_version() { return 4; }

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
        static thread_local Activations kept;  // small products take less time than getting memory for one
        Activations& x = kept;                 // this thread's, also where the others look at it
        x.shape(count, matrix->columns);
        Pool::instance().run(threads, [&](Team& team, int) {
            team.share(count, 4, [&](int row) {
                x.fill(matrix->kind, row, from + size_t(row) * matrix->columns, 1.0f, nullptr);
            });
            product(team, *matrix, x, amx, to);
        });
        return 0;
    } catch (const std::exception&) {
        return 1;
    }
}

Drafter* penstock_make_head(const HeadParts* parts) {
    try {
        return new Drafter(*parts);
    } catch (const std::exception&) {
        return nullptr;
    }
}

void penstock_free_head(Drafter* head) { delete head; }

int penstock_draft(Drafter* head, const uint16_t* streams, const int32_t* tokens, int32_t* places, float* chances, int count,
                   int depth, int threads, float least) {
    try {
        head->draft(streams, tokens, count, depth, threads, least, places, chances);
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
