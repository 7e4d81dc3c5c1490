// Threads that compute one step together, and how they share its work and wait for each other.
//
// Work is taken piece by piece, so that a thread that the system has put aside holds up one piece, not half of everything. Who has nothing
// to do watches for some microseconds and then sleeps: on a busy machine its core goes to whoever it waits for. Nothing here
// changes a result: which thread computes a piece does not matter to it.
#pragma once
#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <functional>
#include <thread>
#include <vector>

#include "vectors.h"

// A number that threads wait to see changed.
class Signal {
  public:
    uint32_t now() const { return value.load(std::memory_order_acquire); }
    void raise() {
        value.fetch_add(1, std::memory_order_acq_rel);
        if (sleepers.load(std::memory_order_seq_cst)) syscall(SYS_futex, &value, FUTEX_WAKE_PRIVATE, INT32_MAX, nullptr, nullptr, 0);
    }
    void wait_for_change(uint32_t before) {
        for (int look = 0; look < LOOKS; look++) {
            if (now() != before) return;
            _mm_pause();
        }
        sleepers.fetch_add(1, std::memory_order_seq_cst);
        while (now() == before) syscall(SYS_futex, &value, FUTEX_WAIT_PRIVATE, before, nullptr, nullptr, 0);
        sleepers.fetch_sub(1, std::memory_order_seq_cst);
    }

  private:
    static constexpr int LOOKS = 10000;  // some tens of microseconds: longer than most parts of a step differ, shorter than a time slice
    std::atomic<uint32_t> value{0};
    std::atomic<int> sleepers{0};
};

class Team {
  public:
    explicit Team(int size) : size(size) {
        for (int number = 1; number < size; number++) members.emplace_back([this, number] { serve(number); });
    }
    ~Team() {
        is_over = true;
        start.raise();
        for (std::thread& member : members) member.join();
    }

    // Every thread calls `job`; returns when all have.
    void run(const std::function<void()>& job) {
        work = &job;
        my_team = this, my_number = 0;
        keep_off(sched_getcpu());
        start.raise();
        job();
        meet();
    }

    // Returns when all threads have called it.
    void meet() {
        if (size == 1) return;
        uint32_t before = met.now();
        if (arrived.fetch_add(1, std::memory_order_acq_rel) + 1 == size) {
            arrived.store(0, std::memory_order_relaxed);
            met.raise();
        } else {
            met.wait_for_change(before);
        }
    }

    const int size;
    static inline thread_local Team* my_team = nullptr;
    static inline thread_local int my_number = 0;

  private:
    void serve(int number) {
        my_team = this, my_number = number;
        for (uint32_t seen = 0;;) {
            start.wait_for_change(seen);
            seen = start.now();
            if (is_over) return;
            (*work)();
            meet();
        }
    }

    // Let no other thread run where the caller does: a system that wakes a sleeper beside whoever woke it would have two take turns.
    void keep_off(int processor) {
        if (processor == kept_off || processor < 0) return;
        cpu_set_t allowed;
        if (sched_getaffinity(0, sizeof allowed, &allowed) || CPU_COUNT(&allowed) < size) return;
        CPU_CLR(processor, &allowed);
        for (std::thread& member : members) pthread_setaffinity_np(member.native_handle(), sizeof allowed, &allowed);
        kept_off = processor;
    }

    std::vector<std::thread> members;
    int kept_off = -1;
    const std::function<void()>* work = nullptr;
    std::atomic<bool> is_over{false};
    Signal start, met;
    std::atomic<int> arrived{0};
};

inline void meet() { Team::my_team->meet(); }

struct Share {  // of `count` things of equal cost, for the calling thread
    int first, end;
    explicit Share(int count) {
        int64_t thread = Team::my_number, threads = Team::my_team->size;
        first = (int)(count * thread / threads);
        end = (int)(count * (thread + 1) / threads);
    }
};

// Pieces of `count` things, `each` for every thread, for whoever comes next. `taken` starts at zero.
struct Pieces {
    std::atomic<int>& taken;
    int count, size;
    Pieces(std::atomic<int>& taken, int count, int each) : taken(taken), count(count), size((count - 1) / (Team::my_team->size * each) + 1) {
    }
    bool next(int& first, int& end) {
        first = taken.fetch_add(size, std::memory_order_relaxed);
        end = first + size < count ? first + size : count;
        return first < count;
    }
};
