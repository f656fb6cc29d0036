// The few vector functions that everything here is made of, and memory that is aligned for them.
#pragma once

#include <immintrin.h>
#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>

namespace penstock {

constexpr int LANES = 16;  // float32 in a register; also rows and columns of a tile

inline int round_up(int value, int step) { return (value + step - 1) / step * step; }

/// The first `count` of 16 lanes.
inline __mmask16 lanes(int count) { return count >= LANES ? 0xffff : count <= 0 ? 0 : (__mmask16)((1u << count) - 1); }

/// The first `count` of 32 lanes of 16 bits.
inline __mmask32 lanes_of_16(int count) { return count >= 2 * LANES ? 0xffffffff : count <= 0 ? 0 : (1u << count) - 1; }

/// Zeroed memory at a multiple of 64 bytes, on large pages where the system has them.
template <class T>
class Buffer {
   public:
    Buffer() = default;
    explicit Buffer(size_t count) { reserve(count); }
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;
    ~Buffer() { std::free(data_); }

    /// Room for `count`; what was there is lost when it has to grow.
    void reserve(size_t count) {
        if (count <= capacity_) return;
        if (capacity_ && count < capacity_ * 3 / 2) count = capacity_ * 3 / 2;
        std::free(data_);
        size_t alignment = count * sizeof(T) >= (4u << 20) ? (2u << 20) : 64;
        size_t bytes = (count * sizeof(T) + 2 * alignment - 1) / alignment * alignment;
        data_ = static_cast<T*>(std::aligned_alloc(alignment, bytes));
        capacity_ = data_ ? count : 0;
        if (!data_) throw std::bad_alloc();
        if (alignment > 64) madvise(data_, bytes, MADV_HUGEPAGE);
        std::memset(static_cast<void*>(data_), 0, bytes);
    }

    T* data() const { return data_; }
    T& operator[](size_t index) const { return data_[index]; }

   private:
    T* data_ = nullptr;
    size_t capacity_ = 0;
};

/// e to the power of x, relative error below 2e-7; x is clamped to [-100, 88].
inline __m512 exp16(__m512 x) {
    x = _mm512_max_ps(_mm512_min_ps(x, _mm512_set1_ps(88.0f)), _mm512_set1_ps(-100.0f));
    __m512 turns = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504f)), 0);
    __m512 rest = _mm512_fnmadd_ps(turns, _mm512_set1_ps(0.693359375f), x);
    rest = _mm512_fnmadd_ps(turns, _mm512_set1_ps(-2.12194440e-4f), rest);
    __m512 sum = _mm512_set1_ps(1.3888889e-3f);
    sum = _mm512_fmadd_ps(sum, rest, _mm512_set1_ps(8.3333333e-3f));
    sum = _mm512_fmadd_ps(sum, rest, _mm512_set1_ps(4.1666668e-2f));
    sum = _mm512_fmadd_ps(sum, rest, _mm512_set1_ps(1.6666667e-1f));
    sum = _mm512_fmadd_ps(sum, rest, _mm512_set1_ps(0.5f));
    sum = _mm512_fmadd_ps(sum, rest, _mm512_set1_ps(1.0f));
    sum = _mm512_fmadd_ps(sum, rest, _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(sum, turns);
}

/// x / (1 + e^-x).
inline __m512 silu16(__m512 x) {
    return _mm512_div_ps(x, _mm512_add_ps(_mm512_set1_ps(1.0f), exp16(_mm512_sub_ps(_mm512_setzero_ps(), x))));
}

/// float32 to bfloat16, to nearest even.
inline __m256i to_bf16(__m512 x) {
#ifdef __AVX512BF16__
    return (__m256i)_mm512_cvtneps_pbh(x);
#else
    __m512i bits = _mm512_castps_si512(x);
    __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    bits = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    return _mm512_cvtepi32_epi16(_mm512_srli_epi32(bits, 16));
#endif
}

/// Place of the largest of `count` numbers, the first of equals; -1 if one of them is NaN or infinite.
inline int32_t place_of_largest(const float* from, int count) {
    __m512 largest = _mm512_set1_ps(-__builtin_inff()), broken = _mm512_setzero_ps();
    for (int i = 0; i < count; i += LANES) {
        __mmask16 mask = lanes(count - i);
        __m512 x = _mm512_maskz_loadu_ps(mask, from + i);
        largest = _mm512_mask_max_ps(largest, mask, largest, x);
        broken = _mm512_fmadd_ps(x, _mm512_setzero_ps(), broken);  // 0 times what is no number is NaN
    }
    if (_mm512_cmp_ps_mask(broken, broken, _CMP_UNORD_Q)) return -1;
    __m512 wanted = _mm512_set1_ps(_mm512_reduce_max_ps(largest));
    for (int i = 0; i < count; i += LANES) {
        __mmask16 mask = lanes(count - i);
        mask = _mm512_mask_cmp_ps_mask(mask, _mm512_maskz_loadu_ps(mask, from + i), wanted, _CMP_EQ_OQ);
        if (mask) return i + __builtin_ctz(mask);
    }
    return -1;
}

inline __m512 from_bf16(__m256i x) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16)); }

/// The same four bytes in every lane of 32 bits.
inline __m512i four_bytes(const void* from) {
    int32_t bytes;
    std::memcpy(&bytes, from, 4);
    return _mm512_set1_epi32(bytes);
}

// The instructions that most of the time is spent in are written out: around their intrinsics GCC 12 copies each sum of a loop
// twice, which cost about a tenth of a prompt's time on a Zen 4.

/// Products of four unsigned and four signed bytes added to each of 16 sums.
inline __m512i add_fours(__m512i sums, __m512i positive, __m512i either) {
    asm("vpdpbusd %2, %1, %0" : "+v"(sums) : "v"(positive), "v"(either));
    return sums;
}

/// Products of pairs of bfloat16 added to 16 sums: one instruction where the processor has it.
inline __m512 add_pairs(__m512 sums, __m512i left, __m512i right) {
#ifdef __AVX512BF16__
    asm("vdpbf16ps %2, %1, %0" : "+v"(sums) : "v"(left), "v"(right));
    return sums;
#else
    auto first = [](__m512i pairs) { return _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16)); };
    auto second = [](__m512i pairs) { return _mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32(0xffff0000))); };
    sums = _mm512_fmadd_ps(first(left), first(right), sums);
    return _mm512_fmadd_ps(second(left), second(right), sums);
#endif
}

}  // namespace penstock
