// A small pool of threads for work that is cut into many short phases. A waiting thread spins for about a tenth of a
// millisecond and then sleeps, so that a busy neighbour costs a wake-up and an idle machine costs nothing.
#pragma once

#include <immintrin.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <climits>
#include <functional>
#include <memory>
#include <mutex>
#include <new>
#include <thread>
#include <vector>

namespace penstock {

constexpr int SPINS = 2000;

/// A number that threads wait on until it changes.
class Gate {
   public:
    uint32_t now() const { return value_.load(std::memory_order_acquire); }

    void open() {
        value_.fetch_add(1, std::memory_order_seq_cst);
        if (sleepers_.load(std::memory_order_seq_cst) > 0)
            syscall(SYS_futex, &value_, FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0);
    }

    void wait(uint32_t seen) {
        for (int spin = 0; spin < SPINS; ++spin) {
            if (now() != seen) return;
            _mm_pause();
        }
        sleepers_.fetch_add(1, std::memory_order_seq_cst);
        while (now() == seen) syscall(SYS_futex, &value_, FUTEX_WAIT_PRIVATE, seen, nullptr, nullptr, 0);
        sleepers_.fetch_sub(1, std::memory_order_seq_cst);
    }

   private:
    std::atomic<uint32_t> value_{0};
    std::atomic<int> sleepers_{0};
};

/// What the threads of one job share: a barrier that also restarts the count of work taken.
class Team {
   public:
    explicit Team(int size) : size_(size) {}

    int size() const { return size_; }
    bool out_of_memory() const { return out_of_memory_.load(std::memory_order_relaxed); }

    /// Calls `work(index)` for 0 <= index < count, each index once, by whichever thread is free; then all wait for all.
    /// Work that finds no memory is left out: the job goes on, so that nobody waits for a thread that gave up, and fails
    /// when it is done.
    template <class Work>
    void share(int count, int portion, Work work) {
        for (;;) {
            int first = taken_.fetch_add(portion, std::memory_order_relaxed);
            if (first >= count) break;
            int last = first + portion < count ? first + portion : count;
            try {
                for (int index = first; index < last; ++index) work(index);
            } catch (const std::bad_alloc&) {
                out_of_memory_.store(true, std::memory_order_relaxed);
            }
        }
        barrier();
    }

   private:
    void barrier() {
        uint32_t seen = gate_.now();
        if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == size_) {
            arrived_.store(0, std::memory_order_relaxed);
            taken_.store(0, std::memory_order_relaxed);
            gate_.open();
        } else {
            gate_.wait(seen);
        }
    }

    const int size_;
    std::atomic<bool> out_of_memory_{false};
    alignas(64) std::atomic<int> taken_{0};
    alignas(64) std::atomic<int> arrived_{0};
    alignas(64) Gate gate_;
};

/// Threads that live as long as the process; the caller of `run` is one of the team. One job at a time.
class Pool {
   public:
    static Pool& instance() {
        static Pool* pool = new Pool;  // never destroyed: its threads may outlive static destructors
        return *pool;
    }

    /// Throws bad_alloc when memory was short, system_error when a thread cannot be started.
    void run(int threads, const std::function<void(Team&, int)>& job) {
        std::lock_guard<std::mutex> one_at_a_time(busy_);
        if (threads < 1) threads = 1;
        if (owner_ != getpid()) forget_threads_of_parent();
        while (static_cast<int>(starts_.size()) < threads - 1) add_thread();
        Team team(threads);
        job_ = &job;
        team_ = &team;
        done_.store(0, std::memory_order_relaxed);
        for (int index = 1; index < threads; ++index) starts_[index - 1]->open();
        job(team, 0);
        while (done_.load(std::memory_order_acquire) != threads - 1) _mm_pause();  // they have passed the last barrier
        if (team.out_of_memory()) throw std::bad_alloc();
    }

   private:
    Pool() : owner_(getpid()) {}

    /// Throws when the system has no room for another; the pool is as before then.
    void add_thread() {
        int index = static_cast<int>(starts_.size()) + 1;
        starts_.reserve(index);
        auto gate = std::make_unique<Gate>();
        std::thread([this, index, start = gate.get()] {
            for (uint32_t seen = 0;; ++seen) {
                start->wait(seen);
                (*job_)(*team_, index);
                done_.fetch_add(1, std::memory_order_release);
            }
        }).detach();
        starts_.push_back(gate.release());  // nobody waits for a thread that was not made
    }

    void forget_threads_of_parent() {
        starts_.clear();
        owner_ = getpid();
    }

    std::mutex busy_;
    pid_t owner_;
    std::vector<Gate*> starts_;
    const std::function<void(Team&, int)>* job_ = nullptr;
    Team* team_ = nullptr;
    std::atomic<int> done_{0};
};

}  // namespace penstock
